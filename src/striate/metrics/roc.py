"""ROC AUC with confidence interval, precision–recall curve and average precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from striate.metrics.intervals import Z95

_HALVINGS = 60


def roc_auc(probs: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve (AUC) of one class.

    It is Mann and Whitney's statistic (Hanley and McNeil 1982): the share of pairs of
    a positive and a negative image in which the positive has the higher probability.
    Ties count half. Both positive and negative images are required.

    Example:
        >>> roc_auc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1], bool))
        0.875
    """
    _, index, counts = np.unique(probs, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[index]
    positives = int(positive.sum())
    above = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(above / (positives * (len(probs) - positives)))


def auc_interval(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    """Return the 95 % interval of a ROC AUC (Newcombe 2006, method 5).

    It contains the areas θ with |θ − AUC| ≤ z·√V(θ), where V is Hanley and McNeil's
    variance with the mean of both counts. The width is above 0 even for an AUC of 1.

    Example:
        >>> low, high = auc_interval(1.0, 20, 30)
        >>> round(low, 3), high
        (0.916, 1.0)
    """
    return (
        _farthest(auc, 0.0, positives, negatives),
        _farthest(auc, 1.0, positives, negatives),
    )


def _farthest(auc: float, end: float, positives: int, negatives: int) -> float:
    """Return, by bisection, the interval limit between `auc` and `end` (0 or 1)."""
    near, far = auc, end
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if abs(middle - auc) <= Z95 * _deviation(middle, positives, negatives):
            near = middle
        else:
            far = middle
    return end if abs(near - end) < 1e-12 else near


def _deviation(area: float, positives: int, negatives: int) -> float:
    even = (positives + negatives) / 2 - 1
    within = 1 + even * ((1 - area) / (2 - area) + area / (1 + area))
    return math.sqrt(area * (1 - area) * within / (positives * negatives))


@dataclass(frozen=True, kw_only=True)
class PrecisionRecallCurve:
    """Precision and recall at every distinct threshold, highest first."""

    thresholds: np.ndarray = field(repr=False)
    recall: np.ndarray = field(repr=False)
    precision: np.ndarray = field(repr=False)

    @property
    def average_precision(self) -> float:
        """Return the average precision: mean precision weighted by recall increase."""
        steps = np.diff(self.recall, prepend=0.0)
        return float(steps @ self.precision)


def precision_recall_curve(
    probs: np.ndarray, positive: np.ndarray
) -> PrecisionRecallCurve:
    """Return precision and recall of one class at every distinct threshold.

    Example:
        >>> probs, positive = np.array([0.9, 0.6, 0.2]), np.array([1, 0, 1], bool)
        >>> curve = precision_recall_curve(probs, positive)
        >>> curve.recall.tolist(), curve.precision.round(2).tolist()
        ([0.5, 0.5, 1.0], [1.0, 0.5, 0.67])
        >>> round(curve.average_precision, 3)
        0.833
    """
    order = np.argsort(-probs, kind="stable")
    falling = probs[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    hits = positive[order].cumsum()[last]
    return PrecisionRecallCurve(
        thresholds=falling[last],
        recall=hits / positive.sum(),
        precision=hits / (last + 1),
    )
