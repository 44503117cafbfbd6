"""Stable random split: a function of image content (or group) and seed.

Adding images never moves an old one. That requires a rule that looks only at the image
itself (see docs/data_split.md): a threshold on a hash, independent of the list of
files, their number and their order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from striate.core.derive_seed import derive_seed
from striate.core.errors import SettingError

SPAN = 1 << 63  # `derive_seed` gives 0 … SPAN - 1
# A hash split gives a class m ± √m images in a split; below this m, they vary too much.
FEW_EXPECTED = 7.5
FOLD_FLAGS = "--folds, --fold"
SHARE_FLAGS = "--val-fraction, --test-fraction"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """Settings for splitting the images that have no given split.

    Raises:
        SettingError: No images are left for training, or there is no such fold.

    Example:
        >>> SplitConfig(folds=5, fold=2).shares["test"]
        0.2
    """

    val: float = 0.15  # fraction of all images for validation
    # fraction of all images for the test; 1/folds with cross-validation
    test: float = 0.25
    fraction: float = 1.0  # fraction of the training images to use, see `fraction`
    seed: int = 0  # random seed
    # number of cross-validation folds, each of which is the test split once
    folds: int | None = None
    fold: int | None = None  # index of the fold that is the test split, from 0
    # exact counts per class instead of a stable split, see `exact_counts`
    exact: bool = False
    # Classes with fewer expected images (or groups) in a split also get exact counts.
    exact_below: float = FEW_EXPECTED

    def __post_init__(self) -> None:
        self._check_folds()
        test = self.shares["test"]
        if not (0 < self.val < 1 and 0 <= test < 1 and self.val + test < 1):
            shares = f"{self.val:g} + {test:g}"
            what = f"no images are left for training; validation + test is {shares}"
            fix = "use for example --val-fraction 0.15 --test-fraction 0.25"
            raise SettingError(what, where=SHARE_FLAGS, fix=fix)
        if not 0 < self.fraction <= 1:
            what = f"fraction must be above 0 and at most 1, got {self.fraction:g}"
            raise SettingError(what, where="--fraction")

    def _check_folds(self) -> None:
        if (self.folds is None) != (self.fold is None):
            what = "--folds and --fold must be given together"
            fix = "for example --folds 5 --fold 0, to test on the first of five folds"
            raise SettingError(what, where=FOLD_FLAGS, fix=fix)
        if self.folds is None or self.fold is None:
            return
        if self.folds < 2:
            what = f"folds must be at least 2, got {self.folds}"
            raise SettingError(what, where="--folds")
        if not 0 <= self.fold < self.folds:
            what = f"there is no fold {self.fold} among {self.folds} folds"
            fix = f"folds count from 0 to {self.folds - 1}"
            raise SettingError(what, where="--fold", fix=fix)

    @property
    def shares(self) -> dict[str, float]:
        """Return the fractions of train, val and test."""
        test = 1 / self.folds if self.folds else self.test
        return {"train": 1 - self.val - test, "val": self.val, "test": test}

    def smallest_class(self, splits: Collection[str]) -> float:
        """Return the number of images from which a class is split by hash.

        Example:
            >>> round(SplitConfig().smallest_class(("val", "test")))
            50
        """
        shares = [self.shares[split] for split in splits if self.shares[split] > 0]
        if self.folds:
            shares.append(1 / self.folds)
        return self.exact_below / min(shares)


def hash_number(seed: int, purpose: str, content: str, group: str | None = None) -> int:
    """Return a reproducible random integer below SPAN for an image or its group."""
    key = ("group", group) if group else ("content", content)
    return derive_seed(seed, purpose, *key)


def split_of_number(
    number: int, split_config: SplitConfig, splits: Collection[str]
) -> str:
    """Return the split of an image from its hash number (see `hash_number`).

    Low numbers are the test split, high numbers the validation split. So another
    validation fraction does not change the test split, and a smaller fraction is a
    subset of a larger fraction. With folds, the numbers are rotated so that fold i has
    the low numbers; fold i is the test split, or validation if the test split is given.

    Example:
        >>> quarter = SPAN // 4
        >>> config, splits = SplitConfig(), ("val", "test")
        >>> [split_of_number(n * quarter, config, splits) for n in range(4)]
        ['test', 'train', 'train', 'train']
        >>> config = SplitConfig(folds=4, fold=2)
        >>> [split_of_number(n * quarter, config, ("val",)) for n in range(4)]
        ['train', 'train', 'val', 'train']
    """
    folds, fold = split_config.folds, split_config.fold
    low_split = "test" if "test" in splits else "val"
    start, end = 0, round(split_config.test * SPAN) if "test" in splits else 0
    if folds is not None and fold is not None:
        # Whole numbers, so that folds cannot overlap.
        start, end = fold * SPAN // folds, (fold + 1) * SPAN // folds
    if (rotated := (number - start) % SPAN) < end - start:
        return low_split
    has_val = "val" in splits and not (folds is not None and low_split == "val")
    if has_val and rotated >= SPAN - round(split_config.val * SPAN):
        return "val"
    return "train"
