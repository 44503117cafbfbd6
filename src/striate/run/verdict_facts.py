"""Facts about a finished run from which the verdict is derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np

from striate.core.files import read_csv
from striate.core.format import count_text
from striate.metrics.intervals import mean_recall_interval
from striate.run import layout as names
from striate.run.predictions import Predictions
from striate.run.run import Run
from striate.run.train_accuracy import CorrectCount
from striate.run.transfer_plan import LOGISTIC

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
MAX_SPLIT_ROWS = 200_000  # images of `split.csv` that are counted by class
Z99 = 2.5758293035489004  # two-sided 99 % point of the normal distribution


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Numbers of evaluated images of one class."""

    name: str
    images: int  # images of this class
    correct: int  # of these, images that were predicted correctly
    predicted: int  # images that were predicted as this class


@dataclass(frozen=True, kw_only=True)
class VerdictFacts:
    """Counts of correct predictions, and circumstances of the training."""

    split: str  # name of the evaluated split or of the other images
    classes: tuple[ClassCount, ...] = field(repr=False)  # the classes with images
    predicted_classes: tuple[str, ...] = field(default=(), repr=False)
    train: CorrectCount | None = None  # on training images
    # another split of the run for comparison, and its name
    reference: CorrectCount | None = None
    reference_split: str = ""
    # accuracy in cross-validation on the training split, for a logistic head
    cross_validated: float | None = None
    train_counts: Mapping[str, int] = field(default_factory=dict, repr=False)
    epochs: int = 1
    is_rising: bool = False  # whether the last epoch is clearly the best

    @property
    def evaluated(self) -> CorrectCount:
        """Return the number of correct predictions among the evaluated images."""
        correct = sum(c.correct for c in self.classes)
        return CorrectCount(correct, sum(c.images for c in self.classes))

    @property
    def accuracy_name(self) -> str:
        """Return `the test accuracy`, or `the accuracy on 'DATA'` for other images."""
        if self.split in SPLIT_WORDS:
            return f"the {SPLIT_WORDS[self.split]} accuracy"
        return f"the accuracy on '{self.split}'"

    @property
    def images_name(self) -> str:
        """Return `test images`, or the quoted name of other images: `'photos'`."""
        word = SPLIT_WORDS.get(self.split)
        return f"{word} images" if word else f"'{self.split}'"

    def images_text(self, count: int) -> str:
        """Return a number of evaluated images with a noun, such as `12 test images`."""
        if self.split in SPLIT_WORDS:
            return count_text(count, f"{SPLIT_WORDS[self.split]} image")
        return f"{count_text(count, 'image')} in '{self.split}'"

    @property
    def majority(self) -> ClassCount:
        """Return the most frequent class of the evaluated images."""
        return max(self.classes, key=lambda c: c.images)

    @property
    def majority_share(self) -> float:
        """Return the accuracy of always predicting the most frequent class."""
        return self.majority.images / self.evaluated.count

    @property
    def balanced_accuracy(self) -> float:
        """Return the mean recall over the classes with images."""
        return sum(c.correct / c.images for c in self.classes) / len(self.classes)

    @property
    def balanced_low(self) -> float:
        """Return the lower limit of the 99 % interval of the balanced accuracy."""
        correct = [c.correct for c in self.classes]
        counts = [c.images for c in self.classes]
        return mean_recall_interval(correct, counts, Z99)[0]


def verdict_facts(
    run: Run, split: str | None = None, predictions: Predictions | None = None
) -> VerdictFacts:
    """Return the facts of a run on a split (default: test, else val).

    With `predictions`, these are evaluated instead of the saved predictions of the run.
    `split` is then the name of their images.
    """
    if predictions is None:
        predictions = run.predictions(split or run.evaluated_split)
    return VerdictFacts(
        **run_facts(run, split),
        classes=_class_counts(predictions),
        predicted_classes=_predicted_classes(predictions),
        is_rising=is_rising(run.history, _scored(run, "val")),
    )


def run_facts(run: Run, split: str | None = None) -> dict[str, Any]:
    """Return the fields of `VerdictFacts` that do not depend on the predictions."""
    split = split or run.evaluated_split
    is_train = split == "train"
    reference_split = "" if is_train else _reference_split(run, split)
    train = CorrectCount.from_record(run.manifest.get("train_accuracy"))
    return {
        "split": split,
        "train": None if is_train else train,
        "reference": _scored(run, reference_split),
        "reference_split": reference_split,
        "cross_validated": _cross_validated(run),
        "train_counts": _train_counts(run),
        "epochs": run.manifest["epochs"],
    }


def _class_counts(predictions: Predictions) -> tuple[ClassCount, ...]:
    """Return the counts of each class that has images."""
    truth, predicted = predictions.truth, predictions.predicted
    size = len(predictions.labels)
    images = np.bincount(truth, minlength=size).tolist()
    correct = np.bincount(truth[truth == predicted], minlength=size).tolist()
    positives = np.bincount(predicted, minlength=size).tolist()
    return tuple(
        ClassCount(name=name, images=n, correct=k, predicted=p)
        for name, n, k, p in zip(
            predictions.labels.names, images, correct, positives, strict=True
        )
        if n
    )


def _predicted_classes(predictions: Predictions) -> tuple[str, ...]:
    return tuple(
        predictions.labels[i] for i in np.unique(predictions.predicted).tolist()
    )


def _reference_split(run: Run, split: str) -> str:
    """Return the split to compare with: val for test, test for val and other images.

    Empty if there is no second split.
    """
    reference = "val" if split == "test" else run.evaluated_split
    return "" if reference == split else reference


def _scored(run: Run, split: str) -> CorrectCount | None:
    """Return the accuracy of a split in `scores.json`; None if it has no such split."""
    is_scored = split and (run.path / names.SCORES).is_file()
    return CorrectCount.from_record(run.scores.get(split)) if is_scored else None


def _cross_validated(run: Run) -> float | None:
    """Return the accuracy in cross-validation of a logistic head, else None."""
    facts = run.manifest.get("transfer", {})
    path = run.path / names.PENALTIES
    if facts.get("head") != LOGISTIC or not path.is_file():
        return None
    rows = {float(r["penalty"]): float(r["accuracy"]) for r in read_csv(path)}
    return rows.get(facts["penalty"])


def _train_counts(run: Run) -> dict[str, int]:
    """Return the number of training images of each class; empty for huge data sets."""
    total = sum(run.manifest["data"].get("splits", {}).values())
    path = run.path / names.SPLIT
    if total > MAX_SPLIT_ROWS or not path.is_file():
        return {}
    rows = (row for row in read_csv(path) if row["split"] == "train")
    return run.labels.count(row["label"] for row in rows)


def is_rising(history: Sequence[Mapping[str, float]], val: CorrectCount | None) -> bool:
    """Return whether the last epoch is the best by more than the standard error.

    The last epoch is compared with the best of the first three quarters.
    """
    early = history[: len(history) * 3 // 4]
    if val is None or not early or not history[-1].get("best"):
        return False
    before = max(row["val_accuracy"] for row in early)
    p = history[-1]["val_accuracy"]
    return p - before > sqrt(max(p * (1 - p), 1 / (4 * val.count)) / val.count)
