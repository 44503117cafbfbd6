"""The charts of a detection."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from striate.core.findings import Curve, Series
from striate.metrics.calibration import CalibrationBin
from striate.metrics.roc import precision_recall_curve
from striate.metrics.selective import selective_accuracy_curve
from striate.report.format import percent
from striate.workflows.evaluate.evaluation import Group
from striate.workflows.evaluate.result import Told

LINES = 6  # values of a column that one chart can tell apart


def calibration_chart(told: Told) -> Curve:
    """Return what was said against what held, before and after."""
    found = told.judged
    return Curve(
        title="Calibration",
        x_label=f"said probability of {told.target}",
        y_label=f"are {told.target}",
        series=(
            _bins("the network's own", found.before.bins),
            _bins("after scaling", found.after.bins, banded=True),
            Series(name="perfect", x=(0.0, 1.0), y=(0.0, 1.0)),
        ),
        percent_y=True,
        note=f"{told.split}: {told.view.count:,} images in bins of equal number; the "
        "band is Wilson's at 95 %.",
    )


def _bins(name: str, bins: Sequence[CalibrationBin], banded: bool = False) -> Series:
    return Series(
        name=name,
        x=tuple(one.mean_prob for one in bins),
        y=tuple(one.frequency for one in bins),
        low=tuple(one.interval[0] for one in bins) if banded else None,
        high=tuple(one.interval[1] for one in bins) if banded else None,
    )


def precision_chart(told: Told) -> Curve:
    """Return precision against recall, the chosen threshold marked."""
    line = precision_recall_curve(told.view.probs, told.view.positive)
    point, one = next(
        pair for pair in told.judged.points if pair[0] is told.choice.aimed
    )
    chosen = f"{told.target} from {percent(point.threshold)} on"
    return Curve(
        title="Precision and recall",
        x_label="recall",
        y_label="precision",
        series=(
            Series(
                name="every threshold",
                x=tuple(line.recall.tolist()),
                y=tuple(line.precision.tolist()),
            ),
            Series(name="the chosen one", x=(one.recall,), y=(one.precision,)),
        ),
        percent_y=True,
        mark=(one.recall, chosen),
        note=f"{told.split}: {one.count:,} images, {one.positives:,} {told.target}. "
        "The threshold is validation's.",
    )


def sureness_chart(told: Told) -> Curve:
    """Return how right the answers are that no person sees, by how many one does."""
    reaches, shares = selective_accuracy_curve(told.view.probs, told.view.positive)
    count = told.view.count
    falling = np.sort(np.abs(told.view.probs - 0.5))
    sent = np.searchsorted(falling, reaches) / count
    band = told.judged.whole.sorted
    return Curve(
        title="Answers left to a person",
        x_label="share that goes to a person",
        y_label="right among the rest",
        series=(
            Series(
                name=f"on {told.split}",
                x=tuple(sent[::-1].tolist()),
                y=tuple(shares[::-1].tolist()),
            ),
        ),
        percent_y=True,
        mark=(band.abstention_rate, "the band") if band else None,
        note=f"{count:,} images; the band is validation's. To the right few answers "
        "are left, and the line is noise.",
    )


def fall_chart(told: Told, column: str, groups: Sequence[Group]) -> Curve:
    """Return, for every value, the share of its images below each probability."""
    return Curve(
        title=f"Where they fall, by {column}",
        x_label=f"probability of {told.target}",
        y_label="images up to there",
        series=tuple(_fall(f"{column} {one.value}", one) for one in groups[:LINES]),
        percent_y=True,
        mark=(told.choice.aimed.threshold, "threshold"),
    )


def _fall(name: str, group: Group) -> Series:
    count = len(group.probs)
    shares = np.arange(1, count + 1) / count
    return Series(
        name=name,
        x=(0.0, *group.probs.tolist(), 1.0),
        y=(0.0, *shares.tolist(), 1.0),
    )
