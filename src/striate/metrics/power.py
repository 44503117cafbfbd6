"""Forecast of a study: deviation between seeds, and the number of seeds to decide."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from striate.metrics.sequential import (
    ClaimVerdict,
    DecisionRule,
    decide,
    obrien_fleming_levels,
)

SIMULATIONS = 2_000
MAX_SEEDS = 200


def run_deviation(error: float, test_images: int) -> float:
    """Return the expected standard deviation of a test error between seeds.

    Networks with different seeds disagree on about as many test images as they are
    wrong on, so the variance is about half of that of a new test sample:
    √(error / (2 · test_images)). Errors are fractions.

    Example:
        >>> round(run_deviation(0.1, 10_000), 5)
        0.00224
    """
    return math.sqrt(error / (2 * test_images))


def paired_deviation(error: float, test_images: int) -> float:
    """Return the expected deviation of the difference of two test errors.

    Example:
        >>> round(paired_deviation(0.1, 10_000), 5)
        0.00316
    """
    return math.sqrt(2) * run_deviation(error, test_images)


def decision_rate(
    effect: float, deviation: float, rule: DecisionRule, seeds: int
) -> float:
    """Return the probability that a study with at most `seeds` seeds decides.

    The probability is that of the verdict `holds`, or, for an effect within the margin,
    of any verdict. It is simulated with a fixed random seed. Without deviation, all
    differences are equal, and `decide` gives the answer.

    Example:
        >>> rule = DecisionRule(goal="superior", margin=0.2)
        >>> decision_rate(1.0, 0.1, rule, 10)
        1.0
    """
    if seeds > rule.looks[-1]:  # a longer study has one more look
        rule = replace(rule, looks=(*rule.looks, seeds))
    if deviation <= 0:
        decision = decide([effect] * seeds, rule)
        return float(decision.verdict is not ClaimVerdict.UNDECIDED)
    looks = tuple(look for look in rule.looks if look <= seeds)
    levels = obrien_fleming_levels(rule.looks, rule.alpha)[: len(looks)]
    rng = np.random.default_rng(0)
    samples = effect + deviation * rng.standard_normal((SIMULATIONS, seeds))
    decided = np.zeros(SIMULATIONS, bool)
    for n, level in zip(looks, levels, strict=True):
        mean = samples[:, :n].mean(1)
        half = -stdtrit(n - 1, level / 2) * samples[:, :n].std(1, ddof=1) / math.sqrt(n)
        decided |= _decides(mean - half, mean + half, effect, rule)
    return float(decided.mean())


def _decides(
    low: np.ndarray, high: np.ndarray, effect: float, rule: DecisionRule
) -> np.ndarray:
    """Return whether intervals give the verdict that is true for this effect."""
    margin = rule.margin
    decided: np.ndarray
    if rule.goal == "not_inferior":
        decided = low > -margin if effect > -margin else high < -margin
    elif effect >= margin:
        decided = low > 0
    else:
        equivalent = (low > -margin) & (high < margin)
        decided = equivalent | (low > 0) | (high < margin)
    return decided


def seeds_needed(
    effect: float, deviation: float, rule: DecisionRule, power: float = 0.8
) -> int | None:
    """Return the number of seeds with a decision in `power` of the studies.

    It is one of the looks of the rule, or a larger number if these are too few; it is
    None if more than 200 seeds are needed, or if the effect is not a number.

    Example:
        >>> rule = DecisionRule(goal="superior", margin=0.2)
        >>> seeds_needed(0.4, 0.13, rule), seeds_needed(0.0, 5.0, rule)
        (10, None)
    """
    if not (math.isfinite(effect) and math.isfinite(deviation)):
        return None
    more = range(rule.looks[-1] + 5, MAX_SEEDS + 1, 5)
    counts: tuple[int, ...] = (*rule.looks, *more)
    if decision_rate(effect, deviation, rule, MAX_SEEDS) < power:
        return None
    rates = ((n, decision_rate(effect, deviation, rule, n)) for n in counts)
    return next((n for n, rate in rates if rate >= power), None)
