"""What the judged split shows of what validation chose, in all and by value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from striate.metrics.calibration import (
    CalibrationBin,
    brier_score,
    calibration_curve,
    ece,
    expected_ece,
    top_label_ece,
)
from striate.metrics.intervals import wilson_interval
from striate.metrics.roc import auc_interval, precision_recall_curve, roc_auc
from striate.metrics.selective import SelectiveCounts
from striate.metrics.significance import MeanDifference, paired_t_test
from striate.metrics.threshold import ConfusionCounts, confusion_counts
from striate.workflows.evaluate.one_vs_rest import Seen
from striate.workflows.evaluate.selection import Choice, Point

Interval = tuple[float, float]
VALUES = 20  # of a column, told one by one; the rarer ones together
REST, NONE = "(all others)", "(none)"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Some of the judged images: what came of them.

    Args:
        value: What they share.
        counts: At the threshold that was asked for.
        sorted: By the unsure band; None where there is none.
        auc: ROC area and interval; None where only one kind is there.
        quarters: Lower quartile, median, upper quartile of the class's probability.
        probs: Their probabilities, rising.
    """

    value: str
    counts: ConfusionCounts
    sorted: SelectiveCounts | None
    auc: tuple[float, Interval] | None
    quarters: tuple[float, float, float]
    probs: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How far probabilities agree with shares, before or after temperature scaling.

    Args:
        cost: Mean cross-entropy in nats.
        gap: Calibration error of the class, over bins of equal number.
        by_chance: What it would be if the probabilities were perfect.
        answers: Calibration error of the answers, whatever they are (Guo et al.).
        brier: Mean square of the class's probability minus truth.
        bins: What it rests on.
    """

    cost: float
    gap: float
    by_chance: float
    answers: float
    brier: float
    bins: tuple[CalibrationBin, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """All that the judged split shows.

    Args:
        points: What each threshold of the choice comes to.
        whole: All images as one group.
        average_precision: With an approximate interval.
        before: Calibration of the network's own probabilities.
        after: And after temperature scaling.
        cooler: Cost after minus before, image by image.
        by: Groups by column and value.
    """

    points: tuple[tuple[Point, ConfusionCounts], ...]
    whole: Group
    average_precision: tuple[float, Interval]
    before: Calibration
    after: Calibration
    cooler: MeanDifference
    by: Mapping[str, tuple[Group, ...]]


def judge(view: Seen, choice: Choice, columns: Mapping[str, Sequence[str]]) -> Judged:
    """Judge what was chosen.

    Args:
        view: The judged split.
        choice: What validation chose.
        columns: Values of each column, one an image.
    """
    before, after = view.costs
    precise = precision_recall_curve(view.probs, view.positive).average_precision
    return Judged(
        points=tuple(
            (point, confusion_counts(view.probs, view.positive, point.threshold))
            for point in choice.points
        ),
        whole=_group("all", np.arange(view.count), view, choice),
        average_precision=(precise, _like_a_share(precise, view.positives)),
        before=_calibration(view, view.plain, view.all_plain, before),
        after=_calibration(view, view.probs, view.all_probs, after),
        cooler=paired_t_test((after - before).tolist()),
        by={
            name: tuple(_groups(cells, view, choice)) for name, cells in columns.items()
        },
    )


def _like_a_share(value: float, count: int) -> Interval:
    """Return Wilson's interval as if the value were a share of so many images."""
    return wilson_interval(value * count, count)


def _calibration(
    view: Seen, probs: np.ndarray, every: np.ndarray, costs: np.ndarray
) -> Calibration:
    bins = calibration_curve(probs, view.positive)
    return Calibration(
        cost=float(costs.mean()),
        gap=ece(bins),
        by_chance=expected_ece(probs),
        answers=top_label_ece(every, every.argmax(1) == view.truth),
        brier=brier_score(probs, view.positive),
        bins=bins,
    )


def _groups(cells: Sequence[str], view: Seen, choice: Choice) -> Iterator[Group]:
    every = np.array(cells, object)
    often = Counter(cells).most_common()
    told = [value for value, _ in often[:VALUES]]
    for value in sorted(told, key=_order):
        yield _group(value or NONE, np.flatnonzero(every == value), view, choice)
    rest = [i for i, value in enumerate(cells) if value not in told]
    if rest:
        yield _group(REST, np.array(rest), view, choice)


def _order(value: str) -> tuple[bool, float, str]:
    """Put numbers first, by size, then words."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _group(value: str, index: np.ndarray, view: Seen, choice: Choice) -> Group:
    probs, positive = view.probs[index], view.positive[index]
    low, middle, high = np.quantile(probs, (0.25, 0.5, 0.75)).tolist()
    return Group(
        value=value,
        counts=confusion_counts(probs, positive, choice.aimed.threshold),
        sorted=choice.band.counts(probs, positive) if choice.band else None,
        auc=_auc(probs, positive),
        quarters=(low, middle, high),
        probs=np.sort(probs),
    )


def _auc(probs: np.ndarray, positive: np.ndarray) -> tuple[float, Interval] | None:
    many = int(positive.sum())
    if many in (0, len(positive)):
        return None
    area = roc_auc(probs, positive)
    return area, auc_interval(area, many, len(positive) - many)
