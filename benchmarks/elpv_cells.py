"""ELPV solar cells: dataset, splits of the published task, and metrics."""

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
    """Solar cell: image path, probability of a defect, and kind (mono or poly)."""

    path: Path
    probability: str
    kind: str

    @property
    def label(self) -> str:
        """Return the class name: `defect` for a probability of at least 0.5."""
        return "defect" if float(self.probability) >= 0.5 else "sound"


@dataclass(frozen=True)
class Judged:
    """Predictions for the test cells, with true classes and run time.

    Args:
        truth: (N,) bool: whether each cell is defective.
        probs: (N,) predicted probabilities of a defect.
        seconds: Seconds from the CSV table to the evaluated run.
    """

    truth: np.ndarray
    probs: np.ndarray
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        """Return metrics for `defect` against `sound` at threshold 0.5."""
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
    """Return a run's predictions for the test split.

    With more than two classes, all classes whose names begin with `defect` are merged.
    """
    said = run.predictions("test")
    mine = [name.startswith("defect") for name in run.labels.names]
    probs = said.probs[:, mine].sum(1)
    return Judged(np.array(mine)[said.truth], probs, seconds)


def together(several: Sequence[Judged]) -> Judged:
    """Return the ensemble of several networks: mean probability of each cell."""
    probs = np.mean([one.probs for one in several], axis=0)
    return Judged(several[0].truth, probs, sum(one.seconds for one in several))


def cells() -> list[Cell]:
    """Return all cells of the installed package elpv-dataset."""
    found = importlib.util.find_spec("elpv_dataset")
    if found is None or found.origin is None:
        sys.exit("install elpv-dataset first: pip install --no-deps elpv-dataset")
    root = Path(found.origin).parent / "data"
    lines = (root / "labels.csv").read_text().splitlines()
    return [
        Cell(root / name, probs, kind) for name, probs, kind in map(str.split, lines)
    ]


def splits(every: list[Cell], count: int) -> Iterator[tuple[int, set[int]]]:
    """Yield (seed, indices of test cells): 25 %, stratified by probability and kind."""
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
    """Write a split as a CSV table; validation images are part of `train`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image_path", "label", "split"))
        for i, cell in enumerate(every):
            split = "test" if i in test else "train"
            writer.writerow((cell.path, called(cell), split))
