"""Conversion of an operating point to a JSON-serializable dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from striate.metrics.selective import SelectiveCounts
from striate.metrics.threshold import ConfusionCounts
from striate.workflows.evaluate.result import Misclassified, OperatingPointResult
from striate.workflows.evaluate.selection import Selection, Threshold
from striate.workflows.evaluate.threshold_results import Calibration, GroupResult


def operating_point_dict(result: OperatingPointResult) -> dict[str, Any]:
    """Return an operating point as a JSON-serializable dict."""
    evaluation, overall = result.evaluation, result.evaluation.overall
    value, interval = evaluation.average_precision
    return {
        "class": result.target,
        "split": result.split,
        "request": asdict(result.request),
        "temperature": result.selection.temperature,
        "thresholds": [
            {**_threshold(threshold), "evaluated": _counts(counts)}
            for threshold, counts in evaluation.thresholds
        ],
        "roc_auc": _roc_auc(overall),
        "average_precision": {"value": value, "interval": interval},
        "calibration": {
            "before": _calibration(evaluation.uncalibrated),
            "after": _calibration(evaluation.calibrated),
            "log_loss_change": asdict(evaluation.log_loss_change),
        },
        "review_band": _band(result.selection, overall),
        "by": {name: list(map(_group, some)) for name, some in evaluation.by.items()},
        "misclassified": {
            "false_negatives": list(map(_misclassified, result.false_negatives)),
            "false_positives": list(map(_misclassified, result.false_positives)),
        },
        "caveats": [prose.text for prose in result.caveats],
    }


def _threshold(threshold: Threshold) -> dict[str, Any]:
    return {
        "threshold": threshold.key,
        "probability": threshold.probability,
        "uncalibrated": threshold.uncalibrated,
        "expected_recall": threshold.expected_recall,
        "validation": _counts(threshold.counts),
    }


def _counts(counts: ConfusionCounts) -> dict[str, Any]:
    shares = ("recall", "precision", "specificity")
    names = (*shares, *(f"{name}_interval" for name in shares))
    derived = {name: getattr(counts, name) for name in names}
    return {"count": counts.count, **asdict(counts), **derived}


def _roc_auc(group: GroupResult) -> Mapping[str, Any] | None:
    if group.roc_auc is None:
        return None
    return {"value": group.roc_auc[0], "interval": group.roc_auc[1]}


def _calibration(calibration: Calibration) -> dict[str, Any]:
    bins = [{**asdict(each), "interval": each.interval} for each in calibration.bins]
    return {**asdict(calibration), "bins": bins}


def _band(selection: Selection, overall: GroupResult) -> dict[str, Any] | None:
    if selection.band is None:
        return None
    return {
        "from": selection.band.low,
        "to": selection.band.high,
        "validation": _selective(selection.selective),
        "evaluated": _selective(overall.selective),
    }


def _selective(result: SelectiveCounts | None) -> dict[str, Any] | None:
    if result is None:
        return None
    return {
        "count": result.count,
        **asdict(result),
        "review_interval": result.abstention_rate_interval,
        "review": result.abstention_rate,
        "accuracy": result.accuracy,
        "accuracy_interval": result.accuracy_interval,
    }


def _group(group: GroupResult) -> dict[str, Any]:
    return {
        "value": group.value,
        **_counts(group.counts),
        "predicted_share": group.counts.predicted_positives / group.counts.count,
        "quartiles": group.quartiles,
        "roc_auc": _roc_auc(group),
        "review_band": _selective(group.selective),
    }


def _misclassified(image: Misclassified) -> dict[str, Any]:
    return {
        "image_path": image.image_path,
        "probability": image.prob,
        **dict(image.cells),
    }
