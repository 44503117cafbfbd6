"""A loaded data set: subsets, class names, preprocessing, and every file's fate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from striate.core.class_names import ClassNames
from striate.core.errors import DataError, SettingError
from striate.core.preprocess_config import Preprocess
from striate.data.channel_stats import channel_mean_std
from striate.data.sources.source import Skipped
from striate.data.split.fraction import mark_spare
from striate.data.split.hash_split import SplitConfig
from striate.data.split.split_file import SPARE, SplitRow
from striate.data.subset import Subset


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A loaded data set, with all that is needed to preprocess new images equally.

    Each of the `num_files` files is used, spare (a training image beyond the fraction),
    quarantined (it should be usable and is not) or ignored (by rule not an image of the
    set). The four counts always add up.

    Args:
        name: Short name of the set.
        origin: Where it can be read again: a name or an absolute path; empty for images
            from memory.
        labels: Class names in output order.
        preprocess: How images become input.
        subsets: Images by split: `train`, `val`, `test`.
        rows: One line of `split.csv` for each image.
        quarantined: Files that should be usable and are not.
        ignored: Files that by rule are no images of the set.
        warnings: Sentences that the user should read.
        notes: Sentences about how the split was made.
        split_config: How the images were split.
        earlier_split: The split that was taken over, empty where there is none.
        measured: Whether mean and standard deviation come from the training split.
    """

    name: str
    origin: str
    labels: ClassNames
    preprocess: Preprocess
    subsets: Mapping[str, Subset] = field(repr=False)
    rows: Sequence[SplitRow] = field(repr=False)
    quarantined: tuple[Skipped, ...] = field(default=(), repr=False)
    ignored: tuple[Skipped, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    split_config: SplitConfig = field(default_factory=SplitConfig, repr=False)
    earlier_split: str = ""
    measured: bool = False

    @property
    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.labels)

    @property
    def in_chans(self) -> int:
        """Return the number of channels of the network's input."""
        return self.preprocess.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the (height, width) of the network's input."""
        return self.preprocess.height, self.preprocess.width

    @property
    def num_files(self) -> int:
        """Return the number of files: used, spare, quarantined and ignored."""
        return len(self.rows) + len(self.quarantined) + len(self.ignored)

    @property
    def num_spare(self) -> int:
        """Return the number of training images beyond the fraction."""
        return sum(row.split == SPARE for row in self.rows)

    def with_fraction(self, fraction: float) -> ImageData:
        """Return the data as it would have been loaded with a smaller fraction.

        Raises:
            SettingError: The fraction is not above 0, or above the loaded one.
        """
        if not 0 < fraction <= self.split_config.fraction:
            have = f"have {self.split_config.fraction:g} of the training split"
            raise SettingError(f"fraction {fraction:g} is not possible: {have}")
        split_config = replace(self.split_config, fraction=fraction)
        rows = mark_spare(self.rows, split_config)
        train_rows = [i for i, row in enumerate(self.rows) if row.split == "train"]
        rows_kept = [n for n, i in enumerate(train_rows) if rows[i].split == "train"]
        train = self.subset("train").take(rows_kept)
        preprocess = self.preprocess
        if self.measured:
            mean, std = channel_mean_std(train.pixels)
            preprocess = replace(preprocess, mean=mean, std=std)
        return replace(
            self,
            preprocess=preprocess,
            subsets={**self.subsets, "train": train},
            rows=tuple(rows),
            split_config=split_config,
        )

    def subset(self, name: str) -> Subset:
        """Return the images of a split.

        Raises:
            DataError: The data has no such split; lists those it has.
        """
        if name not in self.subsets:
            have = ", ".join(self.subsets)
            raise DataError(f"'{self.name}' has no {name} split, only {have}")
        return self.subsets[name]
