"""What the validation split chooses: temperature, thresholds, the unsure band."""

from __future__ import annotations

import math
from dataclasses import dataclass

from striate.core.errors import DataError
from striate.metrics.selective import (
    AbstainBand,
    SelectiveCounts,
    narrowest_abstain_band,
)
from striate.metrics.significance import order_statistic_interval
from striate.metrics.temperature import fit_temperature
from striate.metrics.threshold import (
    CONFIDENCE,
    ConfusionCounts,
    confusion_counts,
    guaranteed_tp,
    required_tp,
    threshold_at,
)
from striate.report.format import percent
from striate.run.predictions import Predictions
from striate.workflows.evaluate.one_vs_rest import Seen, seen
from striate.workflows.evaluate.request import OperatingPointRequest

AIMED, HALF, SAFE = "aimed", "half", "safe"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A threshold, and what it came to where it was chosen.

    Args:
        key: `half`, `aimed` (at the recall), `safe` (sure of it).
        name: What people call it.
        threshold: The least probability that is called, after temperature scaling.
        plain: The same before, of two classes; of more there is none.
        counts: On validation.
        promise: 95 % range of the recall on new images; None of what was not chosen.
    """

    key: str
    name: str
    threshold: float
    plain: float | None
    counts: ConfusionCounts
    promise: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """All that was chosen on validation.

    Args:
        temperature: Divides the logits.
        points: Thresholds, that of one half first.
        band: Probabilities that go to a person; None where no band is enough.
        sorted: What it came to on validation.
        count: Images of validation.
        positives: Of these, of the class.
    """

    temperature: float
    points: tuple[Point, ...]
    band: AbstainBand | None
    sorted: SelectiveCounts | None
    count: int
    positives: int

    @property
    def aimed(self) -> Point:
        """Return the threshold that was asked for."""
        return next(point for point in self.points if point.key == AIMED)


def choose(said: Predictions, number: int, question: OperatingPointRequest) -> Choice:
    """Choose everything on validation.

    Raises:
        DataError: It holds none of the class, or nothing else.
    """
    temperature = fit_temperature(said.probs, said.truth)
    view = seen("validation", said, number, temperature)
    check_both(view, question.target)
    band = narrowest_abstain_band(view.probs, view.positive, question.band)
    return Choice(
        temperature=temperature,
        points=_points(view, question, temperature),
        band=band,
        sorted=band.counts(view.probs, view.positive) if band else None,
        count=view.count,
        positives=view.positives,
    )


def check_both(view: Seen, target: str) -> None:
    """See that a part holds the class, and something else.

    Raises:
        DataError: It does not.
    """
    if 0 < view.positives < view.count:
        return
    has = f"nothing but '{target}'" if view.positives else f"no '{target}'"
    what = f"the {view.split} split has {has} among its {view.count:,} images"
    fix = "deal it anew (another --seed, a larger share), or give more images"
    raise DataError(what, fix=fix)


def _points(
    view: Seen, question: OperatingPointRequest, temperature: float
) -> tuple[Point, ...]:
    wish = percent(question.recall, 0 if question.recall * 100 % 1 < 1e-9 else 1)
    many = view.positives
    aimed, safe = (
        required_tp(question.recall, many),
        guaranteed_tp(question.recall, many),
    )
    made = [
        _point(HALF, "one half", 0.5, None, view, temperature),
        _ranked(AIMED, f"for {wish} recall", aimed, view, temperature),
    ]
    if safe is not None:
        name = f"sure of {wish} recall ({percent(CONFIDENCE, 0)})"
        made.append(_ranked(SAFE, name, safe, view, temperature))
    return tuple(made)


def _ranked(key: str, name: str, rank: int, view: Seen, temperature: float) -> Point:
    threshold = threshold_at(view.probs, view.positive, rank)
    return _point(key, name, threshold, rank, view, temperature)


def _point(
    key: str,
    name: str,
    threshold: float,
    rank: int | None,
    view: Seen,
    temperature: float,
) -> Point:
    two = view.all_probs.shape[1] == 2
    return Point(
        key=key,
        name=name,
        threshold=threshold,
        plain=untempered(threshold, temperature) if two else None,
        counts=confusion_counts(view.probs, view.positive, threshold),
        promise=order_statistic_interval(rank, view.positives) if rank else None,
    )


def untempered(probs: float, temperature: float) -> float:
    """Return what a network of two classes said, from its probability after scaling.

    Example:
        >>> round(untempered(2 / 3, 2.0), 3)
        0.8
    """
    if probs in (0.0, 1.0):
        return probs
    return 1 / (1 + math.exp(-temperature * math.log(probs / (1 - probs))))
