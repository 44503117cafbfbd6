"""Of what is said to hold at 70 %, how much holds? Probabilities against shares."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.metrics.classification import wilson

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Images of like probability: what was said on average, and how often it held.

    Args:
        said: Mean probability.
        count: Images.
        held: Of these, such that are of the class.
    """

    said: float
    count: int
    held: int

    @property
    def share(self) -> float:
        """Return the share that holds."""
        return self.held / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return Wilson's 95 % interval of the share."""
        return wilson(self.held, self.count)


def reliability(
    probs: np.ndarray, positive: np.ndarray, bins: int = BINS
) -> tuple[Bin, ...]:
    """Put images in bins of about equal number, by the probability of one class.

    Equal numbers rather than equal widths: every bin has an interval of use. Equal
    probabilities share a bin, so there may be fewer of them.

    Args:
        probs: (N,) probabilities of the class.
        positive: (N,) whether the image is of it.
        bins: How many.

    Example:
        >>> found = reliability(np.array([0.1, 0.1, 0.9, 0.9]), np.eye(4)[3] > 0, 2)
        >>> [(round(one.said, 2), one.share) for one in found]
        [(0.1, 0.0), (0.9, 0.5)]
    """
    place = _places(probs, bins)
    count = np.bincount(place, minlength=bins)
    said = np.bincount(place, probs, minlength=bins)
    held = np.bincount(place, positive, minlength=bins)
    return tuple(
        Bin(said=float(said[i] / count[i]), count=int(count[i]), held=int(held[i]))
        for i in np.flatnonzero(count)
    )


def _places(probs: np.ndarray, bins: int) -> np.ndarray:
    edges = np.percentile(probs, np.linspace(0, 1, bins + 1) * 100)
    place: np.ndarray = np.searchsorted(edges[1:-1], probs)
    return place


def gap(found: tuple[Bin, ...]) -> float:
    """Return the calibration error of one class: Σ share·|held − said| over bins.

    Example:
        >>> gap((Bin(said=0.5, count=4, held=3),))
        0.25
    """
    total = sum(one.count for one in found)
    return sum(one.count * abs(one.share - one.said) for one in found) / total


def gap_by_chance(probs: np.ndarray, bins: int = BINS) -> float:
    """Return the error that perfect probabilities would show on so few images.

    An absolute value never averages to zero. In a bin of probabilities p the number
    that holds deviates by √(2/π · Σ p(1 − p)) on average.

    Example:
        >>> round(gap_by_chance(np.full(400, 0.5), bins=1), 3)
        0.02
    """
    place = _places(probs, bins)
    variances = np.bincount(place, probs * (1 - probs), minlength=bins)
    return float(np.sqrt(2 / math.pi * variances).sum() / len(probs))


def brier(probs: np.ndarray, positive: np.ndarray) -> float:
    """Return the mean square of probability minus truth (Brier 1950).

    Example:
        >>> brier(np.array([0.5, 1.0]), np.array([True, True]))
        0.125
    """
    return float(np.square(probs - positive).mean())
