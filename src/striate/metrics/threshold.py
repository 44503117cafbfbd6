"""From which probability on is an image called by a class's name?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.metrics.classification import wilson
from striate.metrics.significance import at_least

SURE = 0.95  # of a recall that is promised, not only aimed at

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What comes of calling: of the class found and missed, of the rest called or not.

    Shares of no images are 0, and their intervals say that nothing is known.
    """

    found: int
    missed: int
    alarms: int
    passed: int

    @property
    def count(self) -> int:
        """Return all images."""
        return self.found + self.missed + self.alarms + self.passed

    @property
    def positives(self) -> int:
        """Return the images of the class."""
        return self.found + self.missed

    @property
    def negatives(self) -> int:
        """Return the images of the rest."""
        return self.alarms + self.passed

    @property
    def called(self) -> int:
        """Return the images that are called by the name."""
        return self.found + self.alarms

    @property
    def recall(self) -> float:
        """Return the share found, of the class."""
        return self.found / max(self.positives, 1)

    @property
    def recall_interval(self) -> Interval:
        """Return its Wilson interval at 95 %."""
        return wilson(self.found, self.positives)

    @property
    def precision(self) -> float:
        """Return the share of the class, of what is called so."""
        return self.found / max(self.called, 1)

    @property
    def precision_interval(self) -> Interval:
        """Return its Wilson interval at 95 %."""
        return wilson(self.found, self.called)

    @property
    def specificity(self) -> float:
        """Return the share left alone, of the rest."""
        return self.passed / max(self.negatives, 1)

    @property
    def specificity_interval(self) -> Interval:
        """Return its Wilson interval at 95 %."""
        return wilson(self.passed, self.negatives)


def counts(probs: np.ndarray, positive: np.ndarray, threshold: float) -> Counts:
    """Count what comes of calling every image from a probability on.

    Args:
        probs: (N,) probabilities of the class.
        positive: (N,) whether the image is of it.
        threshold: The least probability that is called.

    Example:
        >>> counts(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1], bool), 0.5)
        Counts(found=1, missed=1, alarms=1, passed=0)
    """
    called = probs >= threshold
    return Counts(
        found=int((called & positive).sum()),
        missed=int((~called & positive).sum()),
        alarms=int((called & ~positive).sum()),
        passed=int((~called & ~positive).sum()),
    )


def rank_for(recall: float, positives: int) -> int:
    """Return how many of the class must be found for this recall.

    Example:
        >>> rank_for(0.95, 100), rank_for(0.95, 10)
        (95, 10)
    """
    return max(1, math.ceil(recall * positives - 1e-9))


def sure_rank(recall: float, positives: int, sure: float = SURE) -> int | None:
    """Return how many must be found here to be sure of the recall elsewhere.

    What new images find above the k-th highest of n is Beta(k, n + 1 − k), whatever
    the probabilities' distribution (Wilks 1941): above `recall` with the probability
    that n tosses of it bring fewer than k. None where even all n do not do:
    95 % of 95 % takes 59.

    Example:
        >>> sure_rank(0.95, 58), sure_rank(0.95, 59), sure_rank(0.95, 200)
        (None, 59, 196)
    """
    for rank in range(rank_for(recall, positives), positives + 1):
        if at_least(rank, positives, recall) <= 1 - sure:
            return rank
    return None


def threshold_at(probs: np.ndarray, positive: np.ndarray, rank: int) -> float:
    """Return the highest probability from which on so many of the class are found.

    Example:
        >>> threshold_at(np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1], bool), 2)
        0.2
    """
    return float(np.sort(probs[positive])[-rank])
