"""Confidence intervals of proportions, their difference, and balanced accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

Interval = tuple[float, float]
Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution


def wilson_interval(successes: float, count: int, z: float = Z95) -> Interval:
    """Return the Wilson score interval of a proportion; default: 95 % confidence.

    Unlike the textbook interval p ± z·√(p(1−p)/n), it stays within 0–1 and has the
    right coverage for proportions near 100 % (Wilson 1927).

    Example:
        >>> low, high = wilson_interval(99, 100)
        >>> round(low, 4), round(high, 4)
        (0.9455, 0.9982)
    """
    if count == 0:
        return 0.0, 1.0
    share = successes / count
    center = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)


def newcombe_interval(first: tuple[int, int], second: tuple[int, int]) -> Interval:
    """Return the 95 % interval of the difference of two independent proportions.

    Each proportion is (successes, count); the difference is first minus second. This is
    Newcombe's hybrid score method (Newcombe 1998, method 10): distances to the Wilson
    limits are added like standard deviations. The example is Newcombe's first.

    Example:
        >>> low, high = newcombe_interval((56, 70), (48, 80))
        >>> round(low, 4), round(high, 4)
        (0.0524, 0.3339)
    """
    (low1, high1), (low2, high2) = wilson_interval(*first), wilson_interval(*second)
    share1, share2 = (k / n if n else 0.5 for k, n in (first, second))
    difference = share1 - share2
    below = math.hypot(share1 - low1, high2 - share2)
    above = math.hypot(high1 - share1, share2 - low2)
    return difference - below, difference + above


def mean_recall_interval(
    correct: Sequence[int], counts: Sequence[int], z: float = Z95
) -> Interval:
    """Return the interval of the mean recall over classes (balanced accuracy).

    The default `z` gives a 95 % interval.

    Two intervals are computed, and each limit is the farther of both. The sum of the
    unbiased variances is right for many classes, but zero if every recall is 0 or 1.
    Distances to the Wilson limits, added like standard deviations (Zou & Donner 2008),
    are never zero, but too short for many classes with few images. Every class has at
    least one image.

    Example:
        >>> low, high = mean_recall_interval([10, 90], [10, 100])
        >>> round(low, 3), round(high, 3)
        (0.806, 0.98)
    """
    size = len(counts)
    pairs = list(zip(correct, counts, strict=True))
    recalls = [k / n for k, n in pairs]
    mean = sum(recalls) / size
    # One image says nothing about its class's variance; this is the most it can be.
    variances = [
        recall * (1 - recall) / (n - 1) if n > 1 else mean * (1 - mean)
        for recall, (_, n) in zip(recalls, pairs, strict=True)
    ]
    normal = z * math.sqrt(math.fsum(variances))
    wilson = (wilson_interval(k, n, z) for k, n in pairs)
    limits = list(zip(recalls, wilson, strict=True))
    below = math.sqrt(math.fsum((recall - low) ** 2 for recall, (low, _) in limits))
    above = math.sqrt(math.fsum((high - recall) ** 2 for recall, (_, high) in limits))
    low, high = mean - max(below, normal) / size, mean + max(above, normal) / size
    return max(0.0, low), min(1.0, high)
