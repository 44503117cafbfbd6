"""Could it be chance? Exact and classical tests on plain numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

# Half of what importing scipy.stats costs; these are the distributions it calls.
from scipy.special import bdtr, bdtrc, betaincinv, stdtr, stdtrit


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A mean difference over repetitions, with its 95 % interval.

    `interval` and `p` are None where the repetitions do not differ at all: figures
    counted in images can agree by accident, and no deviation is then known.
    """

    difference: float
    interval: tuple[float, float] | None
    p: float | None


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947).

    Of two networks on the same images, only those count that exactly one of them
    gets right. Were they equally good, each such image would fall to either with
    probability ½: P = 2·P(B ≤ min), B binomial with gained + lost tosses, at most 1.

    Args:
        gained: Images that only the second gets right.
        lost: Images that only the first gets right.

    Example:
        >>> mcnemar(9, 1), mcnemar(4, 4), mcnemar(0, 0)
        (0.021484375, 1.0, 1.0)
    """
    return min(1.0, 2 * no_loss(max(gained, lost), min(gained, lost)))


def no_loss(lost: int, won: int) -> float:
    """Return how likely at least so many losses are, were losing and winning equal.

    McNemar's test, exact and one-sided: where only losses are a question.

    Example:
        >>> no_loss(5, 0), no_loss(0, 0)
        (0.03125, 1.0)
    """
    return float(bdtr(won, lost + won, 0.5))


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values corrected for their number (Holm 1979).

    The smallest is multiplied by their count k, the next by k − 1, and so on, none
    falling below the one before: the chance of a single false alarm among all stays
    at the level of one test, whatever the dependence between them.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for done, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - done) * values[i]))
        corrected[i] = largest
    return tuple(corrected)


def paired_t(differences: Sequence[float], overlap: float = 0.0) -> Effect:
    """Return Student's test of a mean difference between paired repetitions.

    Repetitions that deal the same images anew share most of their training
    images, so that they agree more than independent ones would. The variance of
    their mean is then s²·(1/n + overlap), overlap being test over training images
    (Nadeau and Bengio 2003); without it the test would see too much.

    Args:
        differences: Second minus first, one a repetition; at least two.
        overlap: 0 where all repetitions were judged on one fixed test split.

    Example:
        >>> effect = paired_t([0.01, 0.02, 0.03])
        >>> round(effect.difference, 6), round(effect.p, 4)
        (0.02, 0.0742)
    """
    count = len(differences)
    error = math.sqrt(variance(differences) * (1 / count + overlap))
    return _effect(fmean(differences), error, count - 1)


def welch(
    first: Sequence[float], second: Sequence[float], overlap: float = 0.0
) -> Effect:
    """Return Welch's test (1947) between two unpaired sets of repetitions.

    Args:
        first: One figure a repetition; at least two.
        second: Likewise.
        overlap: As in `paired_t`.

    Example:
        >>> effect = welch([0.90, 0.91, 0.92], [0.94, 0.95, 0.96])
        >>> round(effect.difference, 6), round(effect.p, 4)
        (0.04, 0.008)
    """
    groups = (first, second)
    errors = [variance(group) * (1 / len(group) + overlap) for group in groups]
    difference = fmean(second) - fmean(first)
    total = sum(errors)
    if not _apart(total, difference):
        return Effect(difference=difference, interval=None, p=None)
    parts = [e * e / (len(g) - 1) for e, g in zip(errors, groups, strict=True)]
    return _effect(difference, math.sqrt(total), total * total / sum(parts))


def _apart(squared: float, difference: float) -> bool:
    """Tell a deviation from the rounding of floats."""
    return squared > (1e-12 * max(1.0, abs(difference))) ** 2


def _effect(difference: float, error: float, freedom: float) -> Effect:
    if not _apart(error * error, difference):
        return Effect(difference=difference, interval=None, p=None)
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    interval = (difference - half, difference + half)
    return Effect(difference=difference, interval=interval, p=p)


def at_least(rank: int, count: int, share: float) -> float:
    """Return how likely `count` tosses of a share bring at least `rank`.

    Example:
        >>> round(at_least(59, 59, 0.95), 4)
        0.0485
    """
    return float(bdtrc(rank - 1, count, share))


def coverage(rank: int, count: int) -> tuple[float, float]:
    """Return the 95 % range of the share of new values above the rank-th highest.

    That share is Beta(rank, count + 1 − rank) for any continuous distribution (Wilks
    1941), so the range holds whatever the values are.

    Example:
        >>> low, high = coverage(95, 100)
        >>> round(low, 3), round(high, 3)
        (0.887, 0.978)
    """
    ends = (float(betaincinv(rank, count + 1 - rank, p)) for p in (0.025, 0.975))
    low, high = ends
    return low, high
