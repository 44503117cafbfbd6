"""A detection for programs: everything as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from striate.metrics.selective import AbstainBand, SelectiveCounts
from striate.metrics.threshold import ConfusionCounts
from striate.workflows.evaluate.evaluation import Calibration, Group
from striate.workflows.evaluate.result import Told, Wrong
from striate.workflows.evaluate.selection import Choice, Point


def record(told: Told) -> dict[str, Any]:
    """Return a detection as JSON values."""
    found, whole = told.judged, told.judged.whole
    value, interval = found.average_precision
    return {
        "class": told.target,
        "split": told.split,
        "asked": asdict(told.question),
        "temperature": told.choice.temperature,
        "thresholds": [
            {**_point(point), "judged": _counts(one)} for point, one in found.points
        ],
        "roc_auc": _area(whole),
        "average_precision": {"value": value, "interval": interval},
        "calibration": _calibrations(told),
        "band": _band(told.choice, whole),
        "by": {name: [_group(one) for one in some] for name, some in found.by.items()},
        "most_wrong": {
            "missed": [_wrong(one) for one in told.wrong[0]],
            "alarms": [_wrong(one) for one in told.wrong[1]],
        },
        "remarks": [prose.text for prose in told.remarks],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "threshold": point.key,
        "from": point.threshold,
        "network_says": point.plain,
        "recall_to_expect": point.promise,
        "validation": _counts(point.counts),
    }


def _counts(one: ConfusionCounts) -> dict[str, Any]:
    shares = ("recall", "precision", "specificity")
    figures = {name: getattr(one, name) for name in shares}
    wide = {f"{name}_interval": getattr(one, f"{name}_interval") for name in shares}
    return {"count": one.count, **asdict(one), **figures, **wide}


def _area(group: Group) -> Mapping[str, Any] | None:
    if group.auc is None:
        return None
    return {"value": group.auc[0], "interval": group.auc[1]}


def _calibrations(told: Told) -> dict[str, Any]:
    found = told.judged
    return {
        "before": _calibration(found.before),
        "after": _calibration(found.after),
        "cost_after_minus_before": asdict(found.cooler),
    }


def _calibration(one: Calibration) -> dict[str, Any]:
    bins = [{**asdict(each), "interval": each.interval} for each in one.bins]
    return {**asdict(one), "bins": bins}


def _band(choice: Choice, whole: Group) -> dict[str, Any] | None:
    if choice.band is None:
        return None
    return {
        **_ends(choice.band),
        "validation": _sorted(choice.sorted),
        "judged": _sorted(whole.sorted),
    }


def _ends(band: AbstainBand) -> dict[str, float]:
    return {"from": band.low, "to": band.high}


def _sorted(one: SelectiveCounts | None) -> dict[str, Any] | None:
    if one is None:
        return None
    wide = {"sent_interval": one.abstention_rate_interval, "sent": one.abstention_rate}
    right = {"accuracy": one.accuracy, "accuracy_interval": one.accuracy_interval}
    return {"count": one.count, **asdict(one), **wide, **right}


def _group(one: Group) -> dict[str, Any]:
    return {
        "value": one.value,
        **_counts(one.counts),
        "called": one.counts.predicted_positives / one.counts.count,
        "quartiles": one.quarters,
        "roc_auc": _area(one),
        "band": _sorted(one.sorted),
    }


def _wrong(one: Wrong) -> dict[str, Any]:
    return {"path": one.path, "probability": one.probs, **dict(one.cells)}
