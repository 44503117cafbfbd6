"""Figures of merit from labels and predictions; every accuracy with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fares: precision, recall and F1 as shares, support as a count."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a set of predictions is worth.

    Args:
        count: Pictures judged.
        accuracy: Share that is right.
        interval: Wilson's 95 % interval of the accuracy.
        balanced_accuracy: Mean recall over the classes that occur.
        loss: Mean cross-entropy in nats, without label smoothing.
        calibration_error: Expected calibration error over 15 bins.
        confusion: counts[true][predicted].
        classes: One score a class.
    """

    count: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    loss: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[ClassScore, ...]


def wilson(right: int, count: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927).

    Unlike the textbook p ± z·√(p(1−p)/n) it stays within 0–1 and holds its promise
    near 100 %, where classifiers live.

    Example:
        >>> low, high = wilson(99, 100)
        >>> round(low, 4), round(high, 4)
        (0.9455, 0.9982)
    """
    if count == 0:
        return 0.0, 1.0
    share = right / count
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Count pictures by (true, predicted) class.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    flat = np.bincount(truth * size + predicted, minlength=size * size)
    return flat.reshape(size, size)


def score(
    probabilities: np.ndarray,
    truth: np.ndarray,
    losses: np.ndarray,
    names: Sequence[str],
) -> Score:
    """Judge predictions.

    Args:
        probabilities: (N, classes), rows summing to 1.
        truth: (N,) class numbers.
        losses: (N,) cross-entropies in nats.
        names: Class names by number.
    """
    predicted = probabilities.argmax(1)
    counts = confusion_matrix(truth, predicted, len(names))
    right = int(counts.trace())
    classes = class_scores(counts, names)
    present = [c.recall for c in classes if c.support]
    return Score(
        count=len(truth),
        accuracy=right / len(truth),
        interval=wilson(right, len(truth)),
        balanced_accuracy=sum(present) / len(present),
        loss=float(losses.mean()),
        calibration_error=calibration_error(probabilities, predicted == truth),
        confusion=tuple(tuple(row) for row in counts.tolist()),
        classes=classes,
    )


def class_scores(counts: np.ndarray, names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class; 0 where undefined."""
    right = counts.diagonal()
    support, claimed = counts.sum(1), counts.sum(0)
    precision = right / np.maximum(claimed, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + claimed, 1)
    return tuple(
        ClassScore(
            name=name,
            precision=float(precision[i]),
            recall=float(recall[i]),
            f1=float(f1[i]),
            support=int(support[i]),
        )
        for i, name in enumerate(names)
    )


def calibration_error(
    probabilities: np.ndarray, right: np.ndarray, bins: int = 15
) -> float:
    """Return the expected calibration error (Guo et al. 2017): Σ share·|acc − conf|.

    Example:
        >>> calibration_error(np.array([[0.8, 0.2]] * 5), np.array([1, 1, 1, 1, 0]))
        0.0
    """
    confidence = probabilities.max(1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    number = np.maximum(np.bincount(place, minlength=bins), 1)
    accuracy = np.bincount(place, right, minlength=bins) / number
    mean = np.bincount(place, confidence, minlength=bins) / number
    share = np.bincount(place, minlength=bins) / len(right)
    return round(float(share @ np.abs(accuracy - mean)), 12)
