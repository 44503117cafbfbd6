"""Figures of merit from labels and predictions; every accuracy with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
SQUARE = 200  # classes up to which the whole confusion matrix is kept


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """How one class fares, in shares; support counts its images, claimed the answers.

    Both intervals are Wilson's at 95 %; a share of no images is 0, and its interval
    says that nothing is known.
    """

    name: str
    precision: float
    precision_interval: tuple[float, float]
    recall: float
    recall_interval: tuple[float, float]
    f1: float
    support: int
    claimed: int


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a set of predictions is worth.

    Args:
        count: Images judged.
        accuracy: Share that is right.
        interval: Wilson's 95 % interval of the accuracy.
        balanced_accuracy: Mean recall over the classes that occur.
        balanced_interval: Its 95 % interval.
        loss: Mean cross-entropy in nats, without label smoothing.
        calibration_error: Expected calibration error over 15 bins.
        confusion: counts[true][predicted]; empty beyond `SQUARE` classes, where it
            would be mostly zeros and larger than all images.
        confusions: (true, predicted, images) of wrong answers, most frequent first.
        classes: One score a class.
    """

    count: int
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    balanced_interval: tuple[float, float]
    loss: float
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...]
    confusions: tuple[tuple[int, int, int], ...]
    classes: tuple[ClassScore, ...]


def wilson(right: float, count: int, z: float = Z95) -> tuple[float, float]:
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
    center = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, size: int) -> np.ndarray:
    """Count images by (true, predicted) class.

    Example:
        >>> confusion_matrix(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    flat = np.bincount(truth * size + predicted, minlength=size * size)
    return flat.reshape(size, size)


def score(
    probs: np.ndarray,
    truth: np.ndarray,
    losses: np.ndarray,
    names: Sequence[str],
) -> Score:
    """Judge predictions.

    Args:
        probs: (N, classes), rows summing to 1.
        truth: (N,) class numbers.
        losses: (N,) cross-entropies in nats.
        names: Class names by number.
    """
    predicted = probs.argmax(1)
    hits = predicted == truth
    right, count, size = int(hits.sum()), len(truth), len(names)
    classes = class_scores(truth, predicted, names)
    present = [c for c in classes if c.support]
    square = confusion_matrix(truth, predicted, size).tolist() if size <= SQUARE else []
    return Score(
        count=count,
        accuracy=right / count,
        interval=wilson(right, count),
        balanced_accuracy=sum(c.recall for c in present) / len(present),
        balanced_interval=mean_interval(
            [round(c.recall * c.support) for c in present],
            [c.support for c in present],
        ),
        loss=float(losses.mean()),
        calibration_error=calibration_error(probs, hits),
        confusion=tuple(tuple(row) for row in square),
        confusions=confusions(truth, predicted),
        classes=classes,
    )


def class_scores(
    truth: np.ndarray, predicted: np.ndarray, names: Sequence[str]
) -> tuple[ClassScore, ...]:
    """Return precision, recall and F1 of each class; 0 where undefined."""
    size = len(names)
    right = np.bincount(truth[truth == predicted], minlength=size)
    support = np.bincount(truth, minlength=size)
    claimed = np.bincount(predicted, minlength=size)
    precision = right / np.maximum(claimed, 1)
    recall = right / np.maximum(support, 1)
    f1 = 2 * right / np.maximum(support + claimed, 1)
    return tuple(
        ClassScore(
            name=name,
            precision=float(precision[i]),
            precision_interval=wilson(int(right[i]), int(claimed[i])),
            recall=float(recall[i]),
            recall_interval=wilson(int(right[i]), int(support[i])),
            f1=float(f1[i]),
            support=int(support[i]),
            claimed=int(claimed[i]),
        )
        for i, name in enumerate(names)
    )


def confusions(
    truth: np.ndarray, predicted: np.ndarray
) -> tuple[tuple[int, int, int], ...]:
    """Count the wrong answers by (true, predicted), the most frequent first.

    Example:
        >>> confusions(np.array([0, 0, 1, 2]), np.array([1, 1, 1, 0]))
        ((0, 1, 2), (2, 0, 1))
    """
    wrong = truth != predicted
    pairs, counts = np.unique(
        np.stack([truth[wrong], predicted[wrong]], 1), axis=0, return_counts=True
    )
    order = np.argsort(-counts, kind="stable")
    return tuple((*map(int, pairs[i]), int(counts[i])) for i in order)  # type: ignore[misc]


def mean_interval(rights: Sequence[int], counts: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of independent shares, right of count.

    The wider, on each side, of two. The variances of the shares added up, each
    unbiased, are true for many classes but vanish where every share is 0 or 1. The
    distances to Wilson's limits added up like deviations (Zou & Donner 2008) do not,
    but fall short for many classes of few images.

    Args:
        rights: Images answered rightly, a number a class.
        counts: Images of each class, at least one.

    Example:
        >>> low, high = mean_interval([10, 90], [10, 100])
        >>> round(low, 3), round(high, 3)
        (0.806, 0.98)
    """
    size = len(counts)
    shares = [right / count for right, count in zip(rights, counts, strict=True)]
    mean = sum(shares) / size
    # One image tells nothing of its class's variance; this is the most it can be.
    variances = [
        share * (1 - share) / (count - 1) if count > 1 else mean * (1 - mean)
        for share, count in zip(shares, counts, strict=True)
    ]
    plain = Z95 * math.sqrt(math.fsum(variances))
    limits = [wilson(right, count) for right, count in zip(rights, counts, strict=True)]
    pairs = list(zip(shares, limits, strict=True))
    below = math.sqrt(math.fsum((share - low) ** 2 for share, (low, _) in pairs))
    above = math.sqrt(math.fsum((high - share) ** 2 for share, (_, high) in pairs))
    low, high = mean - max(below, plain) / size, mean + max(above, plain) / size
    return max(0.0, low), min(1.0, high)


def calibration_error(probs: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017): Σ share·|acc − conf|.

    Example:
        >>> calibration_error(np.array([[0.8, 0.2]] * 5), np.array([1, 1, 1, 1, 0]))
        0.0
    """
    confidence = probs.max(1)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    number = np.maximum(np.bincount(place, minlength=bins), 1)
    accuracy = np.bincount(place, right, minlength=bins) / number
    mean = np.bincount(place, confidence, minlength=bins) / number
    share = np.bincount(place, minlength=bins) / len(right)
    return round(float(share @ np.abs(accuracy - mean)), 12)
