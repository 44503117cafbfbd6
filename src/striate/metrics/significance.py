"""Significance tests: McNemar, sign, Fisher, Holm correction, paired and Welch's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

import numpy as np

# Half of what importing scipy.stats costs; these are the distributions it calls.
from scipy.special import bdtr, bdtrc, betaincinv, gammaln, stdtr, stdtrit


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """Mean difference over repeated runs, with 95 % interval and p-value.

    `interval` and `p_value` are None if all repetitions have the same difference:
    accuracies can agree by accident, and the standard deviation is then unknown.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float | None


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (McNemar 1947).

    Two models are compared on the same images. Only the images that exactly one model
    predicts correctly count. If both models are equally good, each of these images is
    gained or lost with probability ½. The p-value is 2·P(B ≤ min(gained, lost)), at
    most 1, for a binomial B with gained + lost trials. Gained are those of the second
    model.

    Example:
        >>> mcnemar(9, 1), mcnemar(4, 4), mcnemar(0, 0)
        (0.021484375, 1.0, 1.0)
    """
    return min(1.0, 2 * sign_test(max(gained, lost), min(gained, lost)))


def sign_test(lost: int, won: int) -> float:
    """Return the one-sided p-value of the sign test on `lost` and `won` pairs.

    This is the exact one-sided McNemar test: are lost pairs more likely than won pairs?

    Example:
        >>> sign_test(5, 0), sign_test(0, 0)
        (0.03125, 1.0)
    """
    return float(bdtr(won, lost + won, 0.5))


def fisher_exact(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Return the two-sided p-value of Fisher's exact test on two proportions.

    Each proportion is (successes, count). If both samples have the same success
    probability, the number of successes in the first one has a hypergeometric
    distribution. The p-value is the probability of all numbers that are at most as
    likely as the observed number.

    Example:
        >>> round(fisher_exact((8, 10), (1, 6)), 4), fisher_exact((3, 3), (5, 5))
        (0.035, 1.0)
    """
    (k1, n1), (k2, n2) = first, second
    total = k1 + k2
    k = np.arange(max(0, total - n2), min(n1, total) + 1)
    log_p = _log_choose(n1, k) + _log_choose(n2, total - k)
    log_p -= _log_choose(n1 + n2, np.array(total))
    # Equally likely numbers differ by rounding errors.
    tail = log_p <= log_p[k1 - k[0]] + 1e-7
    return min(1.0, float(np.exp(log_p[tail]).sum()))


def _log_choose(n: int, k: np.ndarray) -> np.ndarray:
    """Return the logarithm of the binomial coefficient "n choose k"."""
    logs: np.ndarray = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return logs


def holm_correction(values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values corrected for multiple tests (Holm 1979).

    The smallest of k p-values is multiplied by k, the next by k − 1, and so on, and no
    corrected value is below the previous one. The probability of any false positive
    then stays at the level of one test, even if the tests depend on each other.

    Example:
        >>> holm_correction([0.01, 0.04, 0.03])
        (0.03, 0.06, 0.06)
    """
    corrected = [0.0] * len(values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[i]))
        corrected[i] = largest
    return tuple(corrected)


def paired_t_test(differences: Sequence[float], overlap: float = 0.0) -> MeanDifference:
    """Return the result of a paired t-test on one difference per repetition.

    Repetitions that split the same images anew share most of their training images, so
    the repetitions agree more than independent ones. The variance of the mean is then
    s²·(1/n + overlap), where overlap is the number of test images divided by the number
    of training images (Nadeau and Bengio 2003). Without overlap, p-values would be too
    small. There must be at least two differences.

    Example:
        >>> effect = paired_t_test([0.01, 0.02, 0.03])
        >>> round(effect.difference, 6), round(effect.p_value, 4)
        (0.02, 0.0742)
    """
    count = len(differences)
    error = math.sqrt(variance(differences) * (1 / count + overlap))
    return _effect(fmean(differences), error, count - 1)


def welch_t_test(
    first: Sequence[float], second: Sequence[float], overlap: float = 0.0
) -> MeanDifference:
    """Return the result of Welch's t-test on two unpaired sets of repetitions.

    Each set has at least two values. For `overlap` see `paired_t_test`.

    Example:
        >>> effect = welch_t_test([0.90, 0.91, 0.92], [0.94, 0.95, 0.96])
        >>> round(effect.difference, 6), round(effect.p_value, 4)
        (0.04, 0.008)
    """
    groups = (first, second)
    errors = [variance(group) * (1 / len(group) + overlap) for group in groups]
    difference = fmean(second) - fmean(first)
    total = sum(errors)
    if not _exceeds_rounding(total, difference):
        return MeanDifference(difference=difference, interval=None, p_value=None)
    parts = [e * e / (len(g) - 1) for e, g in zip(errors, groups, strict=True)]
    return _effect(difference, math.sqrt(total), total * total / sum(parts))


def _exceeds_rounding(squared: float, difference: float) -> bool:
    """Return whether a squared standard error is larger than its rounding error."""
    return squared > (1e-12 * max(1.0, abs(difference))) ** 2


def _effect(difference: float, error: float, freedom: float) -> MeanDifference:
    if not _exceeds_rounding(error * error, difference):
        return MeanDifference(difference=difference, interval=None, p_value=None)
    half = float(stdtrit(freedom, 0.975)) * error
    p_value = 2 * float(stdtr(freedom, -abs(difference) / error))
    interval = (difference - half, difference + half)
    return MeanDifference(difference=difference, interval=interval, p_value=p_value)


def binomial_tail(rank: int, count: int, share: float) -> float:
    """Return P(B ≥ rank) for a binomial B: `count` trials, success probability `share`.

    Example:
        >>> round(binomial_tail(59, 59, 0.95), 4)
        0.0485
    """
    return float(bdtrc(rank - 1, count, share))


def order_statistic_interval(rank: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of the share of new values above an order statistic.

    The order statistic is the `rank`-th highest of `count` values. For any continuous
    distribution of values, the share is distributed as Beta(rank, count + 1 − rank)
    (Wilks 1941).

    Example:
        >>> low, high = order_statistic_interval(95, 100)
        >>> round(low, 3), round(high, 3)
        (0.887, 0.978)
    """
    ends = (float(betaincinv(rank, count + 1 - rank, p)) for p in (0.025, 0.975))
    low, high = ends
    return low, high
