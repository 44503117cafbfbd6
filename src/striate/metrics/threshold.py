"""Decision threshold of one class: confusion counts, and the threshold for a recall."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.metrics.intervals import Interval, wilson_interval
from striate.metrics.significance import binomial_tail

CONFIDENCE = 0.95  # of a guaranteed recall


@dataclass(frozen=True, kw_only=True)
class ConfusionCounts:
    """True and false positives and negatives of one class against all other classes.

    A ratio with denominator 0 is 0, and its interval is (0, 1).
    """

    tp: int
    fn: int
    fp: int
    tn: int

    @property
    def count(self) -> int:
        """Return the number of images."""
        return self.tp + self.fn + self.fp + self.tn

    @property
    def positives(self) -> int:
        """Return the number of images of the class."""
        return self.tp + self.fn

    @property
    def negatives(self) -> int:
        """Return the number of images of other classes."""
        return self.fp + self.tn

    @property
    def predicted_positives(self) -> int:
        """Return the number of images predicted as the class."""
        return self.tp + self.fp

    @property
    def recall(self) -> float:
        """Return the recall, TP / (TP + FN)."""
        return self.tp / max(self.positives, 1)

    @property
    def recall_interval(self) -> Interval:
        """Return the 95 % Wilson interval of the recall."""
        return wilson_interval(self.tp, self.positives)

    @property
    def precision(self) -> float:
        """Return the precision, TP / (TP + FP)."""
        return self.tp / max(self.predicted_positives, 1)

    @property
    def precision_interval(self) -> Interval:
        """Return the 95 % Wilson interval of the precision."""
        return wilson_interval(self.tp, self.predicted_positives)

    @property
    def specificity(self) -> float:
        """Return the specificity, TN / (TN + FP)."""
        return self.tn / max(self.negatives, 1)

    @property
    def specificity_interval(self) -> Interval:
        """Return the 95 % Wilson interval of the specificity."""
        return wilson_interval(self.tn, self.negatives)


def confusion_counts(
    probs: np.ndarray,  # (N,) probabilities of the class
    positive: np.ndarray,  # (N,) bool: whether each image belongs to the class
    threshold: float,  # the lowest probability that is predicted as the class
) -> ConfusionCounts:
    """Return the confusion counts if probabilities ≥ threshold are predicted positive.

    Example:
        >>> confusion_counts(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1], bool), 0.5)
        ConfusionCounts(tp=1, fn=1, fp=1, tn=0)
    """
    predicted = probs >= threshold
    return ConfusionCounts(
        tp=int((predicted & positive).sum()),
        fn=int((~predicted & positive).sum()),
        fp=int((predicted & ~positive).sum()),
        tn=int((~predicted & ~positive).sum()),
    )


def required_tp(recall: float, positives: int) -> int:
    """Return the number of true positives that is needed to reach a recall.

    Example:
        >>> required_tp(0.95, 100), required_tp(0.95, 10)
        (95, 10)
    """
    return max(1, math.ceil(recall * positives - 1e-9))


def guaranteed_tp(recall: float, positives: int) -> int | None:
    """Return the number of true positives that guarantees a recall on new images.

    With a threshold at the k-th highest of n probabilities, the recall on new images is
    distributed as Beta(k, n + 1 − k) (Wilks 1941). It exceeds `recall` with the
    probability of fewer than k successes in n trials of probability `recall`. Return
    None if n is too small: a recall of 95 % with 95 % confidence needs n ≥ 59.

    Example:
        >>> guaranteed_tp(0.95, 58), guaranteed_tp(0.95, 59), guaranteed_tp(0.95, 200)
        (None, 59, 196)
    """
    for rank in range(required_tp(recall, positives), positives + 1):
        if binomial_tail(rank, positives, recall) <= 1 - CONFIDENCE:
            return rank
    return None


def threshold_at(probs: np.ndarray, positive: np.ndarray, rank: int) -> float:
    """Return the highest threshold with at least `rank` true positives.

    Example:
        >>> threshold_at(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1], bool), 2)
        0.2
    """
    return float(np.sort(probs[positive])[-rank])
