"""Where an image belongs: a pure function of what it shows, or its group, and a seed.

A rule by which adding images never moves an old one can look at nothing but the
image itself (docs/data_split.md says why), so a place is a threshold on a hash: no
list of files, no count, no order enters.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from striate.core.errors import SettingError
from striate.core.seeds import derive

SPAN = 1 << 63  # `derive` gives 0 … SPAN - 1
FOLD_FLAGS = "--folds, --fold"
SHARE_FLAGS = "--val-fraction, --test-fraction"


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How images that have no part get one.

    Args:
        val: Share for validation, of all images.
        test: Share for the test, of all images; with folds it is 1/folds.
        fraction: Share of the training split that is trained on, see `fraction`.
        seed: Another seed deals another split.
        folds: Part the images into so many, each of which is the test split once.
        fold: Which of them is the test split now, counted from 0.
        exact: Hold the shares of every class to the image, at the price of
            stability: see `exact`.

    Raises:
        SettingError: Nothing is left to train on, or there is no such fold.

    Example:
        >>> SplitConfig(folds=5, fold=2).shares["test"]
        0.2
    """

    val: float = 0.15
    test: float = 0.25
    fraction: float = 1.0
    seed: int = 0
    folds: int | None = None
    fold: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        self._check_folds()
        test = self.shares["test"]
        if not (0 < self.val < 1 and 0 <= test < 1 and self.val + test < 1):
            what = "validation and test shares must leave some to train on: "
            fix = "use for example --val-fraction 0.15 --test-fraction 0.25"
            raise SettingError(
                f"{what}{self.val:g} + {test:g}", where=SHARE_FLAGS, fix=fix
            )

        if not 0 < self.fraction <= 1:
            what = f"a fraction is above 0 and at most 1, got {self.fraction:g}"
            raise SettingError(what, where="--fraction")

    def _check_folds(self) -> None:
        if (self.folds is None) != (self.fold is None):
            what = "--folds says into how many parts, --fold which of them is judged"
            fix = "give both, for example --folds 5 --fold 0"
            raise SettingError(what, where=FOLD_FLAGS, fix=fix)
        if self.folds is None or self.fold is None:
            return
        if self.folds < 2:
            what = f"folds must be at least 2, got {self.folds}"
            raise SettingError(what, where="--folds")
        if not 0 <= self.fold < self.folds:
            what = f"there is no fold {self.fold} of {self.folds}"
            fix = f"folds count from 0 to {self.folds - 1}"
            raise SettingError(what, where="--fold", fix=fix)

    @property
    def shares(self) -> dict[str, float]:
        """Return the share of each part where all three are dealt."""
        test = 1 / self.folds if self.folds else self.test
        return {"train": 1 - self.val - test, "val": self.val, "test": test}


def draw(seed: int, purpose: str, content: str, group: str | None = None) -> int:
    """Return the number, 0 … SPAN-1, that stands for an image or its whole group."""
    key = ("group", group) if group else ("content", content)
    return derive(seed, purpose, *key)


def place(number: int, split_config: SplitConfig, splits: Collection[str]) -> str:
    """Return the part of a number drawn with the purpose `split`.

    The test split takes the low end and validation the high end, so that another
    validation share moves no image into or out of the test, and a smaller share is
    a subset of a larger one. With folds the circle of numbers is turned, so that fold
    i lies at the low end; the part it becomes is the test, or validation where the
    test is given.

    Args:
        number: From `draw`.
        split_config: Shares, or folds.
        splits: Those to deal beside `train`: val, test, or both.

    Example:
        >>> quarter = SPAN // 4
        >>> [place(n * quarter, SplitConfig(), ("val", "test")) for n in range(4)]
        ['test', 'train', 'train', 'train']
        >>> config = SplitConfig(folds=4, fold=2)
        >>> [place(n * quarter, config, ("val",)) for n in range(4)]
        ['train', 'train', 'val', 'train']
    """
    folded = split_config.folds is not None
    low = "test" if "test" in splits else "val"
    start, end = _fold_edges(split_config)
    if not folded:
        end = round(split_config.test * SPAN) if "test" in splits else 0
    if (turned := (number - start) % SPAN) < end - start:
        return low
    on_top = "val" in splits and not (folded and low == "val")
    if on_top and turned >= SPAN - round(split_config.val * SPAN):
        return "val"
    return "train"


def _fold_edges(split_config: SplitConfig) -> tuple[int, int]:
    """Return where a fold begins and ends; whole numbers, so folds cannot overlap."""
    if split_config.folds is None or split_config.fold is None:
        return 0, 0
    return split_config.fold * SPAN // split_config.folds, (
        split_config.fold + 1
    ) * SPAN // split_config.folds
