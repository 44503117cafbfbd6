"""Choice of thresholds and review band on the validation split."""

from __future__ import annotations

import math
from dataclasses import dataclass

from striate.core.errors import DataError, SettingError
from striate.core.format import count_text
from striate.metrics.selective import (
    AbstainBand,
    SelectiveCounts,
    narrowest_abstain_band,
)
from striate.metrics.significance import order_statistic_interval
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
from striate.workflows.evaluate.one_vs_rest import OneVsRest, one_vs_rest

HALF, TARGET, GUARANTEED = "half", "target", "guaranteed"


@dataclass(frozen=True, kw_only=True)
class OperatingPointRequest:
    """Request for an operating point: the class, target recall and target accuracy.

    Raises:
        SettingError: A target is out of range, or a column is named twice.

    Example:
        >>> OperatingPointRequest(target="defect", recall=0.9).selective_accuracy
        0.98
    """

    target: str  # the positive class
    recall: float = 0.95  # target recall of this class
    # target accuracy of the predictions outside the review band
    selective_accuracy: float = 0.98
    # CSV columns; results are also computed for each value of each column
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_share("recall", self.recall, 0.0)
        # Guessing between two classes is correct half of the time.
        _check_share("selective_accuracy", self.selective_accuracy, 0.5)
        twice = [name for name in self.by if self.by.count(name) > 1]
        if twice:
            what = f"column '{twice[0]}' is named twice"
            raise SettingError(what, where="--by", fix="give each column only once")


def _check_share(name: str, value: float, low: float) -> None:
    if not low < value <= 1:
        what = f"{name} must be above {low:g} and at most 1, got {value:g}"
        where = f"--{name.replace('_', '-')}"
        raise SettingError(what, where=where, fix="give a fraction, such as 0.95")


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A decision threshold, with its result on the validation split."""

    # `half`, `target` (reaches the recall on validation) or `guaranteed` (reaches it on
    # new images with 95 % confidence)
    key: str
    name: str  # displayed name
    probability: float  # threshold of the temperature-scaled probability of the class
    # threshold before temperature scaling; None without scaling or for over two classes
    uncalibrated: float | None
    counts: ConfusionCounts  # confusion counts on validation
    # 95 % range of the recall on new images; None for `half`
    expected_recall: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Thresholds and review band chosen on validation, and the run's temperature."""

    temperature: float  # divisor of the logits
    thresholds: tuple[Threshold, ...]  # decision thresholds; the first is 0.5
    # probabilities sent to manual review; None if no band reaches the target
    band: AbstainBand | None
    selective: SelectiveCounts | None  # result of the band on validation
    count: int  # number of validation images
    positives: int  # number of validation images of the class
    errors: int  # number of wrong predictions on validation, of any class

    @property
    def threshold(self) -> Threshold:
        """Return the threshold that reaches the target recall on validation."""
        return next(each for each in self.thresholds if each.key == TARGET)


def select_operating_point(
    predictions: Predictions,
    class_index: int,
    request: OperatingPointRequest,
    temperature: float,
) -> Selection:
    """Choose thresholds and review band on the validation split.

    `predictions` are scaled with `temperature`, the temperature of the run.

    Raises:
        DataError: The validation split has images of one class only.
    """
    data = one_vs_rest("validation", predictions, class_index, temperature)
    check_both_classes(data, request.target)
    band = narrowest_abstain_band(data.probs, data.positive, request.selective_accuracy)
    return Selection(
        temperature=temperature,
        thresholds=_thresholds(data, request, temperature),
        band=band,
        selective=band.counts(data.probs, data.positive) if band else None,
        count=data.count,
        positives=data.positives,
        errors=int((predictions.predicted != predictions.truth).sum()),
    )


def check_both_classes(data: OneVsRest, target: str) -> None:
    """Check that a split has images of the requested class and of other classes."""
    if 0 < data.positives < data.count:
        return
    has = f"only '{target}'" if data.positives else f"no '{target}'"
    what = (
        f"the {data.split} split ({count_text(data.count, 'image')}) has {has} images"
    )
    fix = "split again (another --seed, a larger fraction), or add images"
    raise DataError(what, fix=fix)


def _thresholds(
    data: OneVsRest, request: OperatingPointRequest, temperature: float
) -> tuple[Threshold, ...]:
    recall, positives = request.recall, data.positives
    goal = f"for {percent(recall, 0 if recall * 100 % 1 < 1e-9 else 1)} recall"
    target = required_tp(recall, positives)
    guaranteed = guaranteed_tp(recall, positives)
    thresholds = [
        _threshold(HALF, "0.5 (default)", None, data, temperature),
        _threshold(TARGET, goal, target, data, temperature),
    ]
    if guaranteed is not None:
        name = f"{goal}, {percent(CONFIDENCE, 0)} confidence"
        thresholds.append(_threshold(GUARANTEED, name, guaranteed, data, temperature))
    return tuple(thresholds)


def _threshold(
    key: str, name: str, rank: int | None, data: OneVsRest, temperature: float
) -> Threshold:
    """Return the highest threshold with `rank` true positives; 0.5 without `rank`."""
    probability = threshold_at(data.probs, data.positive, rank) if rank else 0.5
    binary = data.all_probs.shape[1] == 2 and temperature != 1
    interval = order_statistic_interval(rank, data.positives) if rank else None
    return Threshold(
        key=key,
        name=name,
        probability=probability,
        uncalibrated=uncalibrate(probability, temperature) if binary else None,
        counts=confusion_counts(data.probs, data.positive, probability),
        expected_recall=interval,
    )


def uncalibrate(prob: float, temperature: float) -> float:
    """Undo temperature scaling of a probability, for a network with two classes.

    Example:
        >>> round(uncalibrate(2 / 3, 2.0), 3)
        0.8
    """
    if prob in (0.0, 1.0):
        return prob
    return 1 / (1 + math.exp(-temperature * math.log(prob / (1 - prob))))
