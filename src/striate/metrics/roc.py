"""Confidence interval of the area under a ROC curve."""

from __future__ import annotations

import math

from scipy.optimize import bisect

from striate.metrics.intervals import Z95, Interval


def auc_interval(auc: float, positives: int, negatives: int) -> Interval:
    """Return the 95 % interval of a ROC AUC (Newcombe 2006, method 5).

    It contains the areas θ with |θ − AUC| ≤ z·√V(θ), where V is Hanley and McNeil's
    variance with the mean of both counts. The width is above 0 even for an AUC of 1.

    Example:
        >>> low, high = auc_interval(1.0, 20, 30)
        >>> round(low, 3), high
        (0.916, 1.0)
    """

    def excess(area: float) -> float:
        return abs(area - auc) - Z95 * _deviation(area, positives, negatives)

    def limit(end: float) -> float:
        # V is 0 at 0 and 1, so an AUC of 0 or 1 itself is a root, but not the limit.
        near = auc + 1e-9 * (end - auc)
        return end if excess(near) >= 0 else float(bisect(excess, near, end))

    return limit(0.0), limit(1.0)


def _deviation(area: float, positives: int, negatives: int) -> float:
    even = (positives + negatives) / 2 - 1
    within = 1 + even * ((1 - area) / (2 - area) + area / (1 + area))
    return math.sqrt(area * (1 - area) * within / (positives * negatives))
