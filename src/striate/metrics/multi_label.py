"""Metrics of images with several labels: mAP, F1, and precision and recall by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from striate.core.notebook import NotebookResult
from striate.metrics.average_precision import (
    average_precisions,
    map_interval,
    mean_average_precision,
)
from striate.metrics.calibration import calibration_curve, ece
from striate.metrics.intervals import Interval, wilson_interval


@dataclass(frozen=True, kw_only=True)
class LabelMetrics:
    """Metrics of one class of a multi-label network, with 95 % Wilson intervals.

    A ratio with denominator 0 is 0, with interval (0, 1).
    """

    name: str
    threshold: float  # probability from which on the class is predicted
    support: int  # images with the class
    predicted: int  # images that are predicted to have it
    tp: int  # true positives
    fp: int  # false positives
    fn: int  # false negatives
    precision: float
    precision_interval: Interval
    recall: float
    recall_interval: Interval
    f1: float
    average_precision: float | None  # None if no image has the class


@dataclass(frozen=True, kw_only=True)
class MultiLabelMetrics(NotebookResult):
    """All metrics of a set of predictions with several labels per image.

    `map` and the calibration use probabilities; all others use the class thresholds.
    """

    count: int
    map: float | None  # mean average precision over the classes with images
    map_interval: Interval  # 95 % bootstrap interval over images
    micro_f1: float  # F1 of all labels of all images together
    micro_precision: float
    micro_recall: float
    macro_f1: float  # mean F1 over the classes
    macro_precision: float
    macro_recall: float
    accuracy: float  # share of images with exactly the right labels (exact match)
    interval: Interval  # 95 % Wilson interval of the accuracy
    loss: float  # mean binary cross-entropy in nats, without label smoothing
    ece: float  # mean over the classes of the expected calibration error
    classes: tuple[LabelMetrics, ...]  # metrics of each class


def f1_score(tp: int, fp: int, fn: int) -> float:
    """Return the F1 score of counts; 0 without positives and predictions.

    Example:
        >>> f1_score(tp=3, fp=1, fn=2)
        0.6666666666666666
    """
    return 2 * tp / max(2 * tp + fp + fn, 1)


def multi_label_metrics(
    probs: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    losses: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray,
) -> MultiLabelMetrics:
    """Compute all metrics of predictions with several labels per image.

    `probs`, `truth` and `predicted` are (N, classes); `losses` (in nats) is (N,).
    """
    count = len(truth)
    classes = label_metrics(probs, truth, predicted, names, thresholds)
    tp, fp, fn = (sum(getattr(c, key) for c in classes) for key in ("tp", "fp", "fn"))
    exact = int((truth.astype(bool) == predicted.astype(bool)).all(1).sum())
    mean = mean_average_precision(truth, probs)

    def macro(name: str) -> float:
        return float(np.mean([getattr(c, name) for c in classes]))

    return MultiLabelMetrics(
        count=count,
        map=None if math.isnan(mean) else mean,
        map_interval=map_interval(truth, probs),
        micro_f1=f1_score(tp, fp, fn),
        micro_precision=tp / max(tp + fp, 1),
        micro_recall=tp / max(tp + fn, 1),
        macro_f1=macro("f1"),
        macro_precision=macro("precision"),
        macro_recall=macro("recall"),
        accuracy=exact / count,
        interval=wilson_interval(exact, count),
        loss=float(losses.mean()),
        ece=mean_label_ece(probs, truth),
        classes=classes,
    )


def label_metrics(
    probs: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    names: Sequence[str],
    thresholds: np.ndarray,
) -> tuple[LabelMetrics, ...]:
    """Return counts, precision, recall, F1 and average precision of each class."""
    actual, positive = truth.astype(bool), predicted.astype(bool)
    values = average_precisions(actual, probs)
    counts = zip(
        (actual & positive).sum(0).tolist(),
        (~actual & positive).sum(0).tolist(),
        (actual & ~positive).sum(0).tolist(),
        strict=True,
    )
    return tuple(
        LabelMetrics(
            name=names[i],
            threshold=float(thresholds[i]),
            support=tp + fn,
            predicted=tp + fp,
            tp=tp,
            fp=fp,
            fn=fn,
            precision=tp / max(tp + fp, 1),
            precision_interval=wilson_interval(tp, tp + fp),
            recall=tp / max(tp + fn, 1),
            recall_interval=wilson_interval(tp, tp + fn),
            f1=f1_score(tp, fp, fn),
            average_precision=None if np.isnan(values[i]) else float(values[i]),
        )
        for i, (tp, fp, fn) in enumerate(counts)
    )


def mean_label_ece(probs: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over the classes of the expected calibration error (ECE)."""
    columns = zip(probs.T, truth.T.astype(bool), strict=True)
    return float(np.mean([ece(calibration_curve(p, y)) for p, y in columns]))


def best_f1_thresholds(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the threshold with the highest F1 of each class, (classes,).

    It lies halfway between two probabilities. It is 0.5 for a class that all images
    have or that none has: then these images say nothing about it.

    Example:
        >>> probs = np.array([[0.9], [0.6], [0.2], [0.1]])
        >>> best_f1_thresholds(probs, np.array([[1], [1], [0], [0]]))
        array([0.4])
    """
    columns = zip(probs.T, truth.T.astype(bool), strict=True)
    return np.array([_best_f1_threshold(p, y) for p, y in columns])


def _best_f1_threshold(probs: np.ndarray, positive: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return 0.5
    levels, inverse = np.unique(probs, return_inverse=True)  # ascending
    tp = np.bincount(inverse, positive, minlength=len(levels))[::-1].cumsum()[::-1]
    size = np.bincount(inverse, minlength=len(levels))[::-1].cumsum()[::-1]
    f1 = 2 * tp / (size + positive.sum())
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))  # of equal ones the highest
    below = levels[best - 1] if best else 0.0
    return float((levels[best] + below) / 2)
