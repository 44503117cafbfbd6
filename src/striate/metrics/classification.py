"""Classification metrics: accuracy, recall, precision, F1, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from striate.core.notebook import NotebookResult
from striate.metrics.calibration import top_label_ece
from striate.metrics.intervals import Interval, mean_recall_interval, wilson_interval

ConfusedPairs = tuple[tuple[int, int, int], ...]
MAX_MATRIX_CLASSES = 200  # classes up to which the whole confusion matrix is kept


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Precision, recall and F1 of one class, with 95 % Wilson intervals.

    `support` is the number of images of the class. `predicted` is the number of images
    predicted as the class. A ratio with denominator 0 is 0, with interval (0, 1).
    """

    name: str
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    support: int
    predicted: int


@dataclass(frozen=True, kw_only=True)
class ClassificationMetrics(NotebookResult):
    """All classification metrics of a set of predictions."""

    count: int
    accuracy: float  # share of correct predictions
    interval: Interval  # 95 % Wilson interval of the accuracy
    balanced_accuracy: float  # mean recall over the classes with images
    balanced_interval: Interval  # 95 % interval of the balanced accuracy
    loss: float  # mean cross-entropy in nats, without label smoothing
    ece: float  # expected calibration error of the predicted class over 15 bins
    # confusion matrix, counts[true][predicted]; empty for more than
    # `MAX_MATRIX_CLASSES` classes, where most counts would be zero
    confusion: tuple[tuple[int, ...], ...]
    # (true, predicted, images) of errors, most frequent first
    confused_pairs: ConfusedPairs
    classes: tuple[ClassMetrics, ...]  # metrics of each class


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Return the confusion matrix, (size, size): image counts by [true, predicted].

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    flat = np.bincount(truth * size + predicted, minlength=size * size)
    return flat.reshape(size, size)


def classification_metrics(
    probs: np.ndarray, truth: np.ndarray, losses: np.ndarray, names: Sequence[str]
) -> ClassificationMetrics:
    """Compute all classification metrics of a set of predictions.

    `probs` is (N, classes); `truth` and `losses` (in nats) are (N,).
    """
    predicted = probs.argmax(1)
    hits = predicted == truth
    correct, count, size = int(hits.sum()), len(truth), len(names)
    classes = per_class_metrics(truth, predicted, names)
    present = [c for c in classes if c.support]
    is_small = size <= MAX_MATRIX_CLASSES
    matrix = confusion_matrix(truth, predicted, size).tolist() if is_small else []
    return ClassificationMetrics(
        count=count,
        accuracy=correct / count,
        interval=wilson_interval(correct, count),
        balanced_accuracy=sum(c.recall for c in present) / len(present),
        balanced_interval=mean_recall_interval(
            [round(c.recall * c.support) for c in present], [c.support for c in present]
        ),
        loss=float(losses.mean()),
        ece=top_label_ece(probs, hits),
        confusion=tuple(tuple(row) for row in matrix),
        confused_pairs=confused_pairs(truth, predicted),
        classes=classes,
    )


def per_class_metrics(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    """Return precision, recall and F1 of each class; undefined ratios are 0."""
    size = len(names)
    tp = np.bincount(truth[truth == predicted], minlength=size)
    support = np.bincount(truth, minlength=size)
    positives = np.bincount(predicted, minlength=size)
    precision = tp / np.maximum(positives, 1)
    recall = tp / np.maximum(support, 1)
    f1 = 2 * tp / np.maximum(support + positives, 1)
    return tuple(
        ClassMetrics(
            name=name,
            precision=float(precision[i]),
            precision_interval=wilson_interval(int(tp[i]), int(positives[i])),
            recall=float(recall[i]),
            recall_interval=wilson_interval(int(tp[i]), int(support[i])),
            f1=float(f1[i]),
            support=int(support[i]),
            predicted=int(positives[i]),
        )
        for i, name in enumerate(names)
    )


def confused_pairs(truth: np.ndarray, predicted: np.ndarray) -> ConfusedPairs:
    """Return (true class, predicted class, count) of errors, most frequent first.

    Example:
        >>> confused_pairs(np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0]))
        ((0, 1, 2), (2, 0, 1))
    """
    wrong = truth != predicted
    errors = np.stack([truth[wrong], predicted[wrong]], 1)
    pairs, counts = np.unique(errors, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return tuple((*map(int, pairs[i]), int(counts[i])) for i in order)  # type: ignore[misc]
