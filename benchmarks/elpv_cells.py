"""ELPV solar cells: the published task, its splits, and what stands in its table."""

from __future__ import annotations

import csv
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
)
from sklearn.model_selection import StratifiedShuffleSplit

from striate.run.run import Run

PUBLISHED = "paper (Deitsch et al. 2019): SVM 82.44 %, fine-tuned VGG-19 88.42 %"
LEAK = (
    "The package names no modules, so cells of one module can fall on both sides of a "
    "split, in the paper's splits as in these."
)


@dataclass(frozen=True)
class Cell:
    """A solar cell: its image, the probability of a defect, mono or poly."""

    path: Path
    probability: str
    kind: str

    @property
    def label(self) -> str:
        """Return the class: a defect from one half on."""
        return "defect" if float(self.probability) >= 0.5 else "sound"


@dataclass(frozen=True)
class Judged:
    """Test cells: which are defects, how likely each was said to be one, and cost.

    Args:
        truth: (N,) bool.
        probs: (N,) probabilities of a defect.
        seconds: From the table to the judged run.
    """

    truth: np.ndarray
    probs: np.ndarray
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return what it came to: defect against sound, at one half."""
        answer, probs = self.probs > 0.5, self.probs.clip(1e-7, 1 - 1e-7)
        return {
            "accuracy": float((answer == self.truth).mean()),
            "balanced": float(balanced_accuracy_score(self.truth, answer)),
            "f1": float(f1_score(self.truth, answer)),
            "auc": float(roc_auc_score(self.truth, probs)),
            "cost": float(log_loss(self.truth, probs)),
            "seconds": self.seconds,
        }


def judged(run: Run, seconds: float = 0.0) -> Judged:
    """Return a run's answers to its test split.

    Of more classes than two, those whose names begin with `defect` are one.
    """
    said = run.predictions("test")
    mine = [name.startswith("defect") for name in run.labels.names]
    probs = said.probs[:, mine].sum(1)
    return Judged(np.array(mine)[said.truth], probs, seconds)


def together(several: Sequence[Judged]) -> Judged:
    """Return the mean of several networks' answers to the same cells, one by one."""
    probs = np.mean([one.probs for one in several], axis=0)
    return Judged(several[0].truth, probs, sum(one.seconds for one in several))


def cells() -> list[Cell]:
    """Return all cells of the installed package."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        sys.exit("install elpv-dataset first: pip install --no-deps elpv-dataset")
    root = Path(found.origin).parent / "data"
    lines = (root / "labels.csv").read_text().splitlines()
    return [
        Cell(root / name, probs, kind) for name, probs, kind in map(str.split, lines)
    ]


def splits(every: list[Cell], count: int) -> Iterator[tuple[int, set[int]]]:
    """Yield (seed, test cells): a quarter, stratified by probability and kind."""
    strata = [f"{cell.probability} {cell.kind}" for cell in every]
    for seed in range(count):
        dealt = StratifiedShuffleSplit(1, test_size=0.25, random_state=seed)
        (_, test), *_ = dealt.split(strata, strata)
        yield seed, set(test.tolist())


def write_table(
    every: list[Cell],
    test: set[int],
    path: Path,
    called: Callable[[Cell], str] = attrgetter("label"),
) -> None:
    """Write a split as a table; validation is dealt from the training split."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image_path", "label", "split"))
        for i, cell in enumerate(every):
            split = "test" if i in test else "train"
            writer.writerow((cell.path, called(cell), split))
