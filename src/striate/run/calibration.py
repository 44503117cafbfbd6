"""Temperature scaling of a run's probabilities, fitted on the validation split."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from striate.core.class_names import ClassNames
from striate.core.files import damaged_file_errors, read_json, write_json
from striate.core.format import count_text
from striate.metrics.calibration import top_label_ece
from striate.metrics.temperature import (
    PRIOR_SD,
    cross_validated_log_losses,
    fit_temperature_map,
)
from striate.report.format import percent
from striate.run import layout as names
from striate.run.multi_label_calibration import LabelCalibration, fit_label_calibration
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.predictions import Predictions

MIN_VALIDATION_IMAGES = 20  # with fewer validation images, no temperature is fitted


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling:
    """Temperature of a run, with its effect on the validation split.

    The file `calibration.json` has these fields. Without scaling, `temperature` is 1.
    """

    temperature: float = 1.0  # divisor of the logits
    used: bool = False  # whether probabilities are scaled
    reason: str = ""  # reason why they are not scaled
    split: str = "val"  # split on which the temperature was fitted
    images: int = 0  # number of images of this split
    ece_before: float | None = None  # top-label ECE without scaling
    ece_after: float | None = None
    log_loss_before: float | None = None  # mean cross-entropy without scaling
    log_loss_after: float | None = None
    # mean cross-entropy of images that were not used to fit the temperature
    log_loss_cross_validated: float | None = None

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf):
            raise ValueError(f"temperature must be above 0, got {self.temperature}")

    @property
    def sentence(self) -> str:
        """Return one sentence: the temperature and its effect, or why it is unused."""
        if not self.used:
            return f"Probabilities are not adjusted: {self.reason}."
        text = (
            f"Probabilities are temperature-scaled (T = {self.temperature:.3g}, fitted "
            f"on {count_text(self.images, 'validation image')})"
        )
        if self.ece_before is None or self.ece_after is None:
            return f"{text}."
        ece = f"{percent(self.ece_before)} before, {percent(self.ece_after)} after"
        return f"{text}. ECE on the same images: {ece}."


Calibration = TemperatureScaling | LabelCalibration


def fit_scaling(
    validation: Predictions | None, prior_sd: float = PRIOR_SD
) -> TemperatureScaling:
    """Fit the temperature on unscaled validation predictions, and test if it helps.

    The temperature is used if the cross-validated log loss is below that without
    scaling. `prior_sd` is the standard deviation of the log-normal prior of the
    temperature.
    """
    if validation is None:
        return TemperatureScaling(reason="the run has no validation split")
    count, before = len(validation.paths), float(validation.losses.mean())
    ece = _ece(validation)
    unscaled = TemperatureScaling(
        images=count,
        ece_before=ece,
        ece_after=ece,
        log_loss_before=before,
        log_loss_after=before,
    )
    if count < MIN_VALIDATION_IMAGES:
        reason = f"validation has {count_text(count, 'image')}, too few to fit a "
        reason += f"temperature (minimum: {MIN_VALIDATION_IMAGES})"
        return replace(unscaled, reason=reason)
    probs, truth = validation.probs, validation.truth
    temperature = fit_temperature_map(probs, truth, prior_sd)
    losses = cross_validated_log_losses(probs, truth, prior_sd)
    cross_validated = float(losses.mean())
    if not cross_validated < before:
        reason = (
            f"a temperature of {temperature:.3g} does not improve the cross-validated "
            f"log loss on validation ({before:.4f} without it, {cross_validated:.4f} "
            "with it)"
        )
        return replace(
            unscaled, reason=reason, log_loss_cross_validated=cross_validated
        )
    scaled = validation.temperature_scaled(temperature)
    return TemperatureScaling(
        temperature=temperature,
        used=True,
        images=count,
        ece_before=ece,
        ece_after=_ece(scaled),
        log_loss_before=before,
        log_loss_after=float(scaled.losses.mean()),
        log_loss_cross_validated=cross_validated,
    )


def _ece(predictions: Predictions) -> float:
    correct = predictions.predicted == predictions.truth
    return top_label_ece(predictions.probs, correct)


def save_evaluation(
    folder: Path, unscaled: Mapping[str, Predictions], prior_sd: float = PRIOR_SD
) -> None:
    """Fit the temperature, and write calibration, predictions and scores of a run.

    Args:
        folder: The run folder.
        unscaled: Predictions by split, before temperature scaling.
        prior_sd: Standard deviation of the logarithm of the temperature in the prior.
    """
    validation = unscaled.get("val")
    scaling: Calibration
    if isinstance(validation, MultiLabelPredictions):
        scaling = fit_label_calibration(validation)
        write_json(folder / names.CALIBRATION, scaling.as_dict())
    else:
        scaling = fit_scaling(validation, prior_sd)
        write_json(folder / names.CALIBRATION, asdict(scaling))
    scores = {}
    for split, raw in unscaled.items():
        predictions = calibrated(raw, scaling)
        predictions.save(folder / names.predictions_file(split))
        scores[split] = asdict(predictions.metrics())
    write_json(folder / names.SCORES, scores)


def calibrated(predictions: Predictions, scaling: Calibration | None) -> Predictions:
    """Return predictions with calibrated probabilities, and decisions by them."""
    if isinstance(predictions, MultiLabelPredictions):
        if isinstance(scaling, LabelCalibration):
            return scaling.apply(predictions)
    elif isinstance(scaling, TemperatureScaling) and scaling.used:
        return predictions.temperature_scaled(scaling.temperature)
    return predictions


def label_calibration(
    scaling: Calibration | None, labels: ClassNames
) -> LabelCalibration | None:
    """Return scaling and thresholds of several labels per image; else None."""
    if not labels.multi_label:
        return None
    if isinstance(scaling, LabelCalibration):
        return scaling
    return LabelCalibration.default(labels.names)


def read_predictions(
    path: Path, labels: ClassNames, calibration: LabelCalibration | None
) -> Predictions:
    """Read a predictions file of one class per image, or of several labels."""
    if calibration is None:
        return Predictions.read(path, labels)
    return MultiLabelPredictions.read(path, labels, calibration.thresholds)


def read_scaling(folder: Path) -> Calibration | None:
    """Return the calibration of a run; None if the run has no such file.

    Raises:
        RunError: The file is damaged.
    """
    path = folder / names.CALIBRATION
    if not path.is_file():
        return None
    values = read_json(path)
    with damaged_file_errors(path):
        if "classes" in values:
            return LabelCalibration.from_dict(values)
        known = TemperatureScaling.__dataclass_fields__
        return TemperatureScaling(**{k: v for k, v in values.items() if k in known})
