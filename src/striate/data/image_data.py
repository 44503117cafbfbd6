"""Loaded data set: subsets, class names, preprocessing, and status of every file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from striate.core.class_names import ClassNames
from striate.core.errors import DataError, SettingError
from striate.core.format import file_counts_text
from striate.core.notebook import NotebookResult
from striate.core.preprocess_config import Preprocess
from striate.data.channel_stats import channel_mean_std
from striate.data.sources.source import UNUSED, Skipped
from striate.data.split.assign import is_left_out
from striate.data.split.fraction import mark_unused
from striate.data.split.hash_split import SplitConfig
from striate.data.split.split_file import SplitRow
from striate.data.subset import Subset


@dataclass(frozen=True, kw_only=True)
class ImageData(NotebookResult):
    """Loaded data set, with the preprocessing settings for new images.

    Each of the `num_files` files is used, unused (a training image outside the
    fraction), quarantined (an image file that cannot be used) or ignored (not an image
    of the set). The four counts always add up.

    Args:
        name: Short name of the set.
        origin: Name or absolute path to load the set again; empty for images from
            memory.
        labels: Class names in output order.
        preprocess: Preprocessing of the images.
        subsets: Images by split: `train`, `val`, `test`.
        rows: Rows of `split.csv`, one for each image.
        quarantined: Files that should be images but cannot be used.
        ignored: Files that do not belong to the data set, and images that are left out
            because an equal image of another group is in val or test.
        warnings: Warnings for the user, as sentences.
        notes: Notes about the split, as sentences.
        split_config: Settings of the split.
        earlier_split: Path of the earlier split that was reused; empty if none was.
        measured: Whether mean and standard deviation come from the training split.
        inexact: Why another load or read can give other images; empty for files.
        batch_size: Batch size of the `DataLoader` that was loaded, if any.
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
    inexact: tuple[str, ...] = ()
    batch_size: int | None = None

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
        """Return the number of files, with unused, quarantined and ignored ones."""
        return len(self.rows) + len(self.quarantined) + len(self.ignored)

    @property
    def num_unused(self) -> int:
        """Return the number of training images left unused because of `fraction`."""
        return sum(row.split == UNUSED for row in self.rows)

    @property
    def num_left_out(self) -> int:
        """Return the number of images left out as duplicates of another group."""
        return sum(is_left_out(skip) for skip in self.ignored)

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of files of each status; the sum is `num_files`."""
        return {
            "used": len(self.rows) - self.num_unused,
            "unused": self.num_unused,
            "left_out": self.num_left_out,
            "quarantined": len(self.quarantined),
            "ignored": len(self.ignored) - self.num_left_out,
        }

    @property
    def counts_text(self) -> str:
        """Return the number of files of each status as one sum."""
        return file_counts_text(**self.counts)

    def with_fraction(self, fraction: float) -> ImageData:
        """Return the data set with a smaller fraction of the training images.

        Raises:
            SettingError: The fraction is not above 0, or exceeds the loaded fraction.
        """
        if not 0 < fraction <= self.split_config.fraction:
            have = f"only {self.split_config.fraction:g} of the training set is loaded"
            raise SettingError(f"fraction {fraction:g} is not possible: {have}")
        split_config = replace(self.split_config, fraction=fraction)
        rows = mark_unused(self.rows, split_config, self.labels.multi_label)
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

    def image(self, path: str) -> Tensor | None:
        """Return the stored pixels of an image by its path; None if there is none."""
        for subset in self.subsets.values():
            if path in subset.paths:
                return subset.pixels[list(subset.paths).index(path)]
        return None

    def subset(self, name: str) -> Subset:
        """Return the images of a split.

        Raises:
            DataError: The data set has no such split.
        """
        if name not in self.subsets:
            have = ", ".join(self.subsets)
            raise DataError(f"'{self.name}' has no {name} split, only {have}")
        return self.subsets[name]


def images_by_class(data: ImageData) -> Counter[tuple[str, str]]:
    """Return the number of images by (class, split); an image can have some classes."""
    return Counter(
        (name, row.split)
        for row in data.rows
        for name in data.labels.classes_of(row.label)
    )
