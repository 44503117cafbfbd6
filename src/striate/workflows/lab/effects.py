"""Effects of comparisons: advantages in favor of a claim, for one seed."""

from __future__ import annotations

import math
from collections.abc import Callable

from striate.workflows.lab.card import ArmResults


def error_reduction(
    metric: str, arm: str, baseline: str
) -> Callable[[ArmResults], float]:
    """Return an effect: error of the baseline minus error of the arm, in points.

    Example:
        >>> effect = error_reduction("test_error", "new", "old")
        >>> round(effect({"new": {"test_error": 0.1}, "old": {"test_error": 0.12}}), 3)
        2.0
    """

    def effect(results: ArmResults) -> float:
        return 100 * float(results[baseline][metric] - results[arm][metric])

    return effect


def log_ratio(metric: str, arm: str, baseline: str) -> Callable[[ArmResults], float]:
    """Return an effect: natural logarithm of the baseline's number over the arm's.

    It is NaN if one of the two numbers is missing.

    Example:
        >>> effect = log_ratio("steps", "relu", "tanh")
        >>> round(math.exp(effect({"relu": {"steps": 10}, "tanh": {"steps": 60}})), 6)
        6.0
    """

    def effect(results: ArmResults) -> float:
        first, second = results[baseline].get(metric), results[arm].get(metric)
        if not first or not second:
            return math.nan
        return math.log(first / second)

    return effect
