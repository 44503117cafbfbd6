"""Bootstrap interval of a mean, and the probability that one arm is better."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

RESAMPLES = 4_000


def bca_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float] | None:
    """Return the 95 % BCa bootstrap interval of the mean (Efron 1987).

    It is None for fewer than three values, and for values that are all equal.

    Example:
        >>> low, high = bca_interval([0.1, 0.2, 0.3, 0.4, 0.2])
        >>> round(low, 2), round(high, 2)
        (0.16, 0.32)
    """
    from scipy.stats import bootstrap

    if len(values) < 3 or max(values) - min(values) <= 1e-12:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for very few values the interval is NaN
        rng = np.random.default_rng(seed)
        result = bootstrap(
            (np.asarray(values, float),),
            np.mean,
            n_resamples=RESAMPLES,
            method="BCa",
            random_state=rng,
        )
    low, high = map(float, result.confidence_interval)
    return (low, high) if np.isfinite([low, high]).all() else None


def probability_of_superiority(differences: Sequence[float]) -> float:
    """Return the share of positive differences; zero counts half.

    Example:
        >>> probability_of_superiority([0.1, 0.2, -0.1, 0.0])
        0.625
    """
    signs = np.sign(np.asarray(differences, float))
    return float(np.mean((signs + 1) / 2))
