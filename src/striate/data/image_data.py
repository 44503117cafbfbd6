"""Images in parts, with everything needed to treat new ones alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from striate.core.class_names import ClassNames
from striate.core.errors import DataError, SettingError
from striate.core.preprocess import Preprocess
from striate.data.channel_stats import channel_mean_std
from striate.data.sources.source import Skipped
from striate.data.split.fraction import spared
from striate.data.split.hash_split import SplitConfig
from striate.data.split.split_file import SPARE, SplitRow
from striate.data.subset import Subset


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Images in parts, with everything needed to treat new ones alike.

    `seen` files are used, spare (training images beyond the fraction), quarantined
    (should have worked and did not) or ignored (by rule no images of the set); the
    four always add up. `origin` is where they can be read again: a name or an absolute
    path, empty for images from memory. `split_config` says how they were split;
    `measured`, that mean and deviation are those of the training split.
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
    earlier: str = ""
    measured: bool = False

    @property
    def num_classes(self) -> int:
        """Return how many classes there are."""
        return len(self.labels)

    @property
    def in_chans(self) -> int:
        """Return the channels of the network's input."""
        return self.preprocess.channels

    @property
    def image_size(self) -> tuple[int, int]:
        """Return the (height, width) of the network's input."""
        return self.preprocess.height, self.preprocess.width

    @property
    def seen(self) -> int:
        """Return how many files were met."""
        return len(self.rows) + len(self.quarantined) + len(self.ignored)

    @property
    def spare(self) -> int:
        """Return how many training images lie beyond the fraction."""
        return sum(row.split == SPARE for row in self.rows)

    def cut(self, fraction: float) -> ImageData:
        """Return the data as it would have been loaded at a smaller fraction.

        Raises:
            SettingError: The fraction is none, or more than there is.
        """
        if not 0 < fraction <= self.split_config.fraction:
            have = f"have {self.split_config.fraction:g} of the training split"
            raise SettingError(f"fraction {fraction:g} cannot be cut: {have}")
        split_config = replace(self.split_config, fraction=fraction)
        rows = spared(self.rows, split_config)
        had = [i for i, row in enumerate(self.rows) if row.split == "train"]
        stays = [n for n, i in enumerate(had) if rows[i].split == "train"]
        train = self.subset("train").take(stays)
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
        """Return a part.

        Raises:
            DataError: The data has no such part; lists those it has.
        """
        if name not in self.subsets:
            have = ", ".join(self.subsets)
            raise DataError(f"'{self.name}' has no {name} split, only {have}")
        return self.subsets[name]
