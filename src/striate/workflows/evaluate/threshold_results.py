"""Results of the thresholds and the review band on the evaluated split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from striate.metrics.calibration import (
    CalibrationBin,
    brier_score,
    calibration_curve,
    ece,
    expected_ece,
    top_label_ece,
)
from striate.metrics.intervals import wilson_interval
from striate.metrics.roc import auc_interval
from striate.metrics.selective import SelectiveCounts
from striate.metrics.significance import MeanDifference, paired_t_test
from striate.metrics.threshold import ConfusionCounts, confusion_counts
from striate.workflows.evaluate.one_vs_rest import OneVsRest
from striate.workflows.evaluate.selection import Selection, Threshold

Interval = tuple[float, float]
MAX_VALUES = 20  # values of a column with a row each; rarer ones share one
OTHERS, EMPTY = "(all others)", "(none)"


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """Results on the images with the same value in a CSV column."""

    value: str  # the value in the column
    counts: ConfusionCounts  # confusion counts at the threshold for the target recall
    selective: SelectiveCounts | None  # result of the review band; None without a band
    # ROC-AUC and its interval; None if only one class is present.
    roc_auc: tuple[float, Interval] | None
    # Lower quartile, median and upper quartile of the probabilities.
    quartiles: tuple[float, float, float]
    probs: np.ndarray = field(repr=False)  # probabilities of the class, ascending


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration of the probabilities, before or after temperature scaling."""

    log_loss: float  # mean cross-entropy
    ece: float  # expected calibration error of the class, over bins of equal size
    expected_ece: float  # ECE that perfectly calibrated probabilities would show here
    top_label_ece: float  # ECE of the predicted class (Guo et al. 2017)
    brier_score: float  # mean squared error of the probability of the class
    # Bins of the reliability diagram.
    bins: tuple[CalibrationBin, ...] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All results on the evaluated split."""

    # Each chosen threshold with its confusion counts.
    thresholds: tuple[tuple[Threshold, ConfusionCounts], ...]
    overall: GroupResult  # all images as one group
    # Average precision, with an approximate interval.
    average_precision: tuple[float, Interval]
    uncalibrated: Calibration  # calibration before temperature scaling
    calibrated: Calibration  # calibration after temperature scaling
    # Log loss after minus before temperature scaling, per image.
    log_loss_change: MeanDifference
    by: Mapping[str, tuple[GroupResult, ...]]  # results by CSV column and value


def evaluate_selection(
    data: OneVsRest,  # the evaluated split
    # Temperature, thresholds and review band, chosen on validation.
    selection: Selection,
    columns: Mapping[str, Sequence[str]],  # values of each CSV column, one per image
) -> Evaluation:
    """Evaluate the thresholds and the review band that were chosen on validation."""
    before, after = data.log_losses
    precision = float(average_precision_score(data.positive, data.probs))
    return Evaluation(
        thresholds=tuple(
            (each, confusion_counts(data.probs, data.positive, each.probability))
            for each in selection.thresholds
        ),
        overall=_group("all", np.arange(data.count), data, selection),
        average_precision=(precision, _as_share_interval(precision, data.positives)),
        uncalibrated=_calibration(
            data, data.uncalibrated, data.all_uncalibrated, before
        ),
        calibrated=_calibration(data, data.probs, data.all_probs, after),
        log_loss_change=paired_t_test((after - before).tolist()),
        by={
            name: tuple(_groups(cells, data, selection))
            for name, cells in columns.items()
        },
    )


def _as_share_interval(value: float, count: int) -> Interval:
    """Return the Wilson interval of a value, treated as a share of `count` images."""
    return wilson_interval(value * count, count)


def _calibration(
    data: OneVsRest, probs: np.ndarray, all_probs: np.ndarray, log_losses: np.ndarray
) -> Calibration:
    bins = calibration_curve(probs, data.positive)
    return Calibration(
        log_loss=float(log_losses.mean()),
        ece=ece(bins),
        expected_ece=expected_ece(probs),
        top_label_ece=top_label_ece(all_probs, all_probs.argmax(1) == data.truth),
        brier_score=brier_score(probs, data.positive),
        bins=bins,
    )


def _groups(
    cells: Sequence[str], data: OneVsRest, selection: Selection
) -> Iterator[GroupResult]:
    array = np.array(cells, object)
    frequent = [value for value, _ in Counter(cells).most_common(MAX_VALUES)]
    for value in sorted(frequent, key=_sort_key):
        yield _group(value or EMPTY, np.flatnonzero(array == value), data, selection)
    rest = [i for i, value in enumerate(cells) if value not in frequent]
    if rest:
        yield _group(OTHERS, np.array(rest), data, selection)


def _sort_key(value: str) -> tuple[bool, float, str]:
    """Return a sort key for column values: numbers by value first, then other text."""
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _group(
    value: str, index: np.ndarray, data: OneVsRest, selection: Selection
) -> GroupResult:
    probs, positive = data.probs[index], data.positive[index]
    low, median, high = np.quantile(probs, (0.25, 0.5, 0.75)).tolist()
    return GroupResult(
        value=value,
        counts=confusion_counts(probs, positive, selection.threshold.probability),
        selective=selection.band.counts(probs, positive) if selection.band else None,
        roc_auc=_roc_auc(probs, positive),
        quartiles=(low, median, high),
        probs=np.sort(probs),
    )


def _roc_auc(probs: np.ndarray, positive: np.ndarray) -> tuple[float, Interval] | None:
    positives = int(positive.sum())
    if positives in (0, len(positive)):
        return None
    auc = float(roc_auc_score(positive, probs))
    return auc, auc_interval(auc, positives, len(positive) - positives)
