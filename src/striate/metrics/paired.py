"""Paired comparison of two models on the same images, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import bisect

from striate.metrics.intervals import Z95, Interval
from striate.metrics.significance import mcnemar, paired_t_test


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """Numbers of images that both, one or neither of two models predict correctly.

    Example:
        >>> pair = PairedCounts(both=90, gained=7, lost=1, neither=2)
        >>> pair.count, pair.difference, round(pair.p_value, 4)
        (100, 0.06, 0.0703)
    """

    both: int  # images that both models predict correctly
    gained: int  # images that only the second model predicts correctly
    lost: int  # images that only the first model predicts correctly
    neither: int  # images that both models predict wrongly

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> PairedCounts:
        """Return the counts for two (N,) bool arrays of correct predictions."""
        return cls(
            both=int((first & second).sum()),
            gained=int((~first & second).sum()),
            lost=int((first & ~second).sum()),
            neither=int((~first & ~second).sum()),
        )

    def __add__(self, other: PairedCounts) -> PairedCounts:
        return PairedCounts(
            both=self.both + other.both,
            gained=self.gained + other.gained,
            lost=self.lost + other.lost,
            neither=self.neither + other.neither,
        )

    @property
    def count(self) -> int:
        """Return the number of images."""
        return self.both + self.gained + self.lost + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """Return the accuracies of the first and of the second model."""
        correct = self.both + self.lost, self.both + self.gained
        return correct[0] / self.count, correct[1] / self.count

    @property
    def difference(self) -> float:
        """Return the accuracy of the second model minus that of the first."""
        return (self.gained - self.lost) / self.count

    @property
    def interval(self) -> Interval:
        """Return Tango's 95 % score interval of the difference in accuracy."""
        return tango_interval(self.gained, self.lost, self.count)

    @property
    def p_value(self) -> float:
        """Return the exact two-sided p-value of McNemar's test."""
        return mcnemar(self.gained, self.lost)


def tango_interval(gained: float, lost: float, count: float) -> Interval:
    """Return Tango's score interval of a paired difference of proportions (Tango 1998).

    It contains the differences δ that a score test would not reject:
    |gained − lost − nδ| ≤ z·√(n(2q + δ(1 − δ))), where q is the most likely share of
    lost images if the true difference is δ. Unlike the textbook interval d ± z·s, it
    stays within −1 and 1, is not empty if no prediction changed, and is right for few
    images.

    Example:
        >>> low, high = tango_interval(1, 7, 21)
        >>> round(low, 3), round(high, 3)
        (-0.517, -0.026)
    """
    if count == 0:
        return -1.0, 1.0
    middle = (gained - lost) / count

    def excess(delta: float) -> float:
        return abs(_score(gained, lost, count, delta)) - Z95

    def limit(end: float) -> float:
        return end if excess(end) <= 0 else float(bisect(excess, middle, end))

    return limit(-1.0), limit(1.0)


def _score(gained: float, lost: float, count: float, delta: float) -> float:
    """Return Tango's score statistic (Tango 1998, formula 9, q in closed form)."""
    b = (2 * count - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    q = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
    spread = count * (2 * q + delta * (1 - delta))
    far = gained - lost - count * delta
    if spread <= 0:  # the likeliest table leaves no room for chance
        return 0.0 if abs(far) < 1e-9 * count else math.copysign(math.inf, far)
    return far / math.sqrt(spread)


def mean_difference(values: np.ndarray) -> tuple[float, Interval | None]:
    """Return the mean of (N,) paired differences and its 95 % t-interval."""
    if len(values) < 2:
        return float(values.mean()), None
    effect = paired_t_test(values.tolist())
    return effect.difference, effect.interval


def balanced_accuracy_difference(
    classes: Sequence[PairedCounts],  # the paired counts of each class with images
) -> tuple[float, Interval]:
    """Return the difference in balanced accuracy, with a 95 % interval.

    Balanced accuracy weighs an image of a rare class more than one of a frequent class.
    It varies like an accuracy over fewer images: their effective number replaces the
    count in Tango's interval, as in Korn and Graubard (1998) for weighted samples. For
    classes of equal size this is nearly the interval of the accuracy. Every class has
    at least one image.

    Example:
        >>> pair = PairedCounts(both=40, gained=6, lost=1, neither=3)
        >>> difference, (low, high) = balanced_accuracy_difference([pair, pair])
        >>> round(difference, 3), round(low, 3), round(high, 3)
        (0.1, 0.031, 0.182)
    """
    size = len(classes)
    gained = sum(c.gained / c.count for c in classes) / size
    lost = sum(c.lost / c.count for c in classes) / size
    count = _effective_count(classes, gained, lost)
    return gained - lost, tango_interval(gained * count, lost * count, count)


def _effective_count(
    classes: Sequence[PairedCounts], gained: float, lost: float
) -> float:
    """Return the effective number of images for a difference in balanced accuracy.

    If predictions changed equally often in all K classes of n images, the number would
    be K²/Σ(1/n). The number is lower if predictions of rare classes change more often.
    """
    count = len(classes) ** 2 / sum(1 / c.count for c in classes)
    flips = ((c.gained + c.lost) / c.count - c.difference**2 for c in classes)
    varied = sum(f / c.count for f, c in zip(flips, classes, strict=True))
    if varied <= 0:
        return count
    spread = gained + lost - (gained - lost) ** 2
    return min(count, spread * len(classes) ** 2 / varied)
