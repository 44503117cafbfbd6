"""Group-sequential decision on a claim, from one difference per seed.

The results are looked at after fixed numbers of seeds only. Each look has its own
significance level, so that all looks together have a false positive rate of α.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, variance
from typing import Literal

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit

from striate.metrics.significance import paired_t_test

LOOKS = (3, 5, 10, 20)  # numbers of seeds after which the results are looked at
GRID = 1201  # points of the numerical integration
RANGE = 8.0  # the integration ends at this many standard deviations
GOALS = ("superior", "not_inferior")


class ClaimVerdict(StrEnum):
    """Decision on a claim."""

    HOLDS = "holds"
    DOES_NOT_HOLD = "does not hold"
    EQUIVALENT = "equivalent"
    UNDECIDED = "cannot be told yet"


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """Rule that decides a claim from one difference per seed.

    A positive difference supports the claim. `margin` is the smallest difference that
    matters, in the unit of the differences. With the goal `superior`, the claim is that
    the difference is positive; with `not_inferior`, that it is above −margin.

    Raises:
        ValueError: The goal is unknown, the margin is negative or infinite, the looks
            do not increase from 2, or alpha is not between 0 and 1.

    Example:
        >>> DecisionRule(goal="superior", margin=0.2).looks
        (3, 5, 10, 20)
    """

    goal: Literal["superior", "not_inferior"]
    margin: float
    looks: tuple[int, ...] = LOOKS
    alpha: float = 0.05  # two-sided level of all looks together

    def __post_init__(self) -> None:
        if self.goal not in GOALS:
            raise ValueError(f"the goal must be one of {GOALS}, got {self.goal!r}")
        if not 0 <= self.margin < math.inf:
            raise ValueError(
                f"the margin must be finite and not negative, got {self.margin}"
            )
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must be between 0 and 1, got {self.alpha}")
        looks = self.looks
        if not looks or looks[0] < 2 or any(a >= b for a, b in pairwise(looks)):
            raise ValueError(f"the looks must increase from 2, got {looks}")


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Decision at the last look that was reached.

    Args:
        verdict: The decision.
        n: Number of differences that were used.
        difference: Mean of these differences; NaN if there are none.
        interval: Repeated confidence interval of the mean; None if it is unknown.
        p_value: Two-sided p-value of a paired t-test at this look alone.
        final: Whether further looks could not change the decision.
    """

    verdict: ClaimVerdict
    n: int
    difference: float
    interval: tuple[float, float] | None
    p_value: float | None
    final: bool


@lru_cache(maxsize=64)
def obrien_fleming_levels(
    looks: tuple[int, ...] = LOOKS, alpha: float = 0.05
) -> tuple[float, ...]:
    """Return the two-sided significance level at each look (O'Brien–Fleming type).

    The spending function of Lan and DeMets (1983) gives the share of α/2 that each
    side may use until a look, 2 − 2Φ(z/√t) for the information fraction t. The bounds
    follow by recursive integration (Armitage, McPherson and Rowe 1969). Early looks
    have very small levels, and the last look keeps nearly all of α.

    Example:
        >>> [round(level, 5) for level in obrien_fleming_levels((1, 2, 3, 4))]
        [1e-05, 0.00305, 0.01832, 0.044]
    """
    times = np.array(looks, float) / looks[-1]
    spent = 4 * ndtr(-ndtri(1 - alpha / 4) / np.sqrt(times))  # both sides
    levels: list[float] = []
    grid = np.linspace(-RANGE, RANGE, GRID)  # values of the Brownian motion
    width = grid[1] - grid[0]
    density: np.ndarray | None = None
    for i, time in enumerate(times):
        share = spent[i] - (spent[i - 1] if i else 0.0)
        if density is None:
            bound = float(-ndtri(share / 2) * math.sqrt(time))
            density = np.exp(-(grid**2) / (2 * time)) / math.sqrt(2 * math.pi * time)
        else:
            step = math.sqrt(time - times[i - 1])
            bound = _boundary(grid, density, step, share)
            kernel = np.exp(-((grid[:, None] - grid[None]) ** 2) / (2 * step**2))
            kernel /= step * math.sqrt(2 * math.pi)
            density = kernel @ density * width
        levels.append(float(2 * ndtr(-bound / math.sqrt(time))))
        # Paths beyond the boundary have stopped; a cell at the boundary counts in part.
        density = density * np.clip((bound - np.abs(grid)) / width + 0.5, 0, 1)
    return tuple(levels)


def _boundary(
    grid: np.ndarray, density: np.ndarray, step: float, share: float
) -> float:
    """Return the boundary that a path crosses with probability `share` in a step."""
    width = grid[1] - grid[0]
    low, high = 0.0, RANGE
    for _ in range(60):
        middle = (low + high) / 2
        above = ndtr((grid - middle) / step) + ndtr((-middle - grid) / step)
        crossing = float((density * above).sum() * width)
        low, high = (middle, high) if crossing > share else (low, middle)
    return (low + high) / 2


def repeated_interval(
    differences: Sequence[float], level: float
) -> tuple[float, float] | None:
    """Return Student's interval of the mean with confidence 1 − level.

    With the levels of `obrien_fleming_levels`, it is the repeated confidence interval
    of Jennison and Turnbull (2000, chapter 9), with t-quantiles for the unknown
    variance (their section 11.4). It is None for fewer than two differences.

    Differences that are all equal leave the deviation unknown, and a few differences
    can be equal by chance. Without an effect, n differences have the same sign with
    probability 2·½ⁿ at most (sign test). The interval has width zero if this is at most
    the level, else it is None.

    Example:
        >>> low, high = repeated_interval([1.0, 2.0, 3.0], 0.05)
        >>> round(low, 2), round(high, 2)
        (-0.48, 4.48)
        >>> repeated_interval([1.0] * 5, 0.05), repeated_interval([1.0] * 6, 0.05)
        (None, (1.0, 1.0))
    """
    count = len(differences)
    if count < 2:
        return None
    mean, error = fmean(differences), math.sqrt(variance(differences) / count)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return (mean, mean) if 2 * 0.5**count <= level else None
    half = float(-stdtrit(count - 1, level / 2)) * error
    return mean - half, mean + half


def decide(differences: Sequence[float], rule: DecisionRule) -> Decision:
    """Return the decision at the first look that decides, else at the last one.

    Differences after a decision do not change it. With the goal `superior`, an interval
    within ±margin means equivalent; one below the margin, does not hold; one above 0,
    holds. With `not_inferior`, one above −margin means holds, and one below it, does
    not hold.

    Example:
        >>> rule = DecisionRule(goal="superior", margin=0.2)
        >>> decide([0.50, 0.51, 0.49, 0.50, 0.52], rule).verdict
        <ClaimVerdict.HOLDS: 'holds'>
        >>> decide([0.5, 0.6], rule).verdict
        <ClaimVerdict.UNDECIDED: 'cannot be told yet'>
    """
    levels = obrien_fleming_levels(rule.looks, rule.alpha)
    reached = [
        (n, level)
        for n, level in zip(rule.looks, levels, strict=True)
        if n <= len(differences)
    ]
    for n, level in reached:
        interval = repeated_interval(differences[:n], level)
        verdict = _verdict(interval, rule)
        if verdict is not ClaimVerdict.UNDECIDED:
            return _decision(verdict, differences[:n], interval, final=True)
    if not reached:
        interval = repeated_interval(differences, levels[0])
        decision = _decision(ClaimVerdict.UNDECIDED, differences, interval, final=False)
    else:
        n = reached[-1][0]
        final = n == rule.looks[-1]
        decision = _decision(
            ClaimVerdict.UNDECIDED, differences[:n], interval, final=final
        )
    return decision


def _verdict(interval: tuple[float, float] | None, rule: DecisionRule) -> ClaimVerdict:
    if interval is None:
        return ClaimVerdict.UNDECIDED
    low, high = interval
    margin = rule.margin
    if rule.goal == "not_inferior":
        if low > -margin:
            return ClaimVerdict.HOLDS
        return ClaimVerdict.DOES_NOT_HOLD if high < -margin else ClaimVerdict.UNDECIDED
    if -margin < low and high < margin:
        return ClaimVerdict.EQUIVALENT
    if high < margin:
        return ClaimVerdict.DOES_NOT_HOLD
    return ClaimVerdict.HOLDS if low > 0 else ClaimVerdict.UNDECIDED


def _decision(
    verdict: ClaimVerdict,
    differences: Sequence[float],
    interval: tuple[float, float] | None,
    *,
    final: bool,
) -> Decision:
    n = len(differences)
    return Decision(
        verdict=verdict,
        n=n,
        difference=fmean(differences) if n else math.nan,
        interval=interval,
        p_value=paired_t_test(differences).p_value if n > 1 else None,
        final=final,
    )
