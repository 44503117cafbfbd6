"""Charts of an operating point, such as calibration and precision-recall curves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import precision_recall_curve

from striate.core.findings import Curve, Series
from striate.core.format import count_text
from striate.metrics.calibration import CalibrationBin
from striate.metrics.selective import selective_accuracy_curve
from striate.report.format import percent
from striate.workflows.evaluate.result import OperatingPointResult
from striate.workflows.evaluate.threshold_results import GroupResult

MAX_LINES = 6  # values of a column that one chart can tell apart


def calibration_chart(result: OperatingPointResult) -> Curve:
    """Return the reliability diagram, also before temperature scaling if it is used."""
    evaluation, target = result.evaluation, result.target
    scaled = "temperature-scaled" if result.is_scaled else "not scaled"
    before = [_bins("not scaled", evaluation.uncalibrated.bins)]
    return Curve(
        "Reliability diagram",
        x_label=f"predicted probability of {target}",
        y_label=f"observed frequency of {target}",
        series=(
            *(before if result.is_scaled else []),
            _bins(scaled, evaluation.calibrated.bins, band=True),
            Series("perfect", (0.0, 1.0), (0.0, 1.0)),
        ),
        percent_y=True,
        note=f"{result.split}: {count_text(result.data.count, 'image')} in "
        "bins of equal size. "
        "Shaded: 95 % Wilson interval.",
    )


def _bins(name: str, bins: Sequence[CalibrationBin], band: bool = False) -> Series:
    return Series(
        name,
        tuple(each.mean_prob for each in bins),
        tuple(each.frequency for each in bins),
        low=tuple(each.interval[0] for each in bins) if band else None,
        high=tuple(each.interval[1] for each in bins) if band else None,
    )


def precision_recall_chart(result: OperatingPointResult) -> Curve:
    """Return the precision-recall curve, with the chosen threshold marked."""
    data = result.data
    precision, recall, _ = precision_recall_curve(data.positive, data.probs)
    threshold = result.selection.threshold
    counts = next(n for each, n in result.evaluation.thresholds if each is threshold)
    label = f"P({result.target}) ≥ {percent(threshold.probability)}"
    return Curve(
        "Precision and recall",
        x_label="recall",
        y_label="precision",
        series=(
            Series(
                "all thresholds",
                tuple(recall[-2::-1].tolist()),  # without scikit-learn's end (0, 1)
                tuple(precision[-2::-1].tolist()),
            ),
            Series("chosen threshold", (counts.recall,), (counts.precision,)),
        ),
        percent_y=True,
        mark=(counts.recall, label),
        note=f"{result.split}: {count_text(counts.count, 'image')}, "
        f"{counts.positives:,} of them {result.target}. The threshold was chosen on "
        "validation.",
    )


def review_chart(result: OperatingPointResult) -> Curve:
    """Return a chart of accuracy against the share of manually reviewed images."""
    data, count = result.data, result.data.count
    reaches, accuracies = selective_accuracy_curve(data.probs, data.positive)
    reviewed = np.searchsorted(np.sort(np.abs(data.probs - 0.5)), reaches) / count
    selective = result.evaluation.overall.selective
    return Curve(
        "Accuracy and manual review",
        x_label="share sent to manual review",
        y_label="accuracy of automatic decisions",
        series=(
            Series(
                f"on {result.split}",
                tuple(reviewed[::-1].tolist()),
                tuple(accuracies[::-1].tolist()),
            ),
        ),
        percent_y=True,
        mark=(selective.abstention_rate, "chosen band") if selective else None,
        note=f"{count_text(count, 'image')}; the band was chosen on "
        "validation. On the right few images remain, and the curve is mostly noise.",
    )


def distribution_chart(
    result: OperatingPointResult, column: str, groups: Sequence[GroupResult]
) -> Curve:
    """Return a chart of probability distributions, one curve per CSV column value."""
    series = []
    for group in groups[:MAX_LINES]:
        shares = np.arange(len(group.probs) + 1) / len(group.probs)
        x, y = (0.0, *group.probs.tolist(), 1.0), (*shares.tolist(), 1.0)
        series.append(Series(f"{column} {group.value}", x, y))
    return Curve(
        f"Cumulative distribution by {column}",
        x_label=f"predicted probability of {result.target}",
        y_label="share of images up to this probability",
        series=tuple(series),
        percent_y=True,
        mark=(result.selection.threshold.probability, "threshold"),
    )
