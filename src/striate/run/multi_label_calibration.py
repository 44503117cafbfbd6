"""Calibration and thresholds of each class, fitted on the validation split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.format import count_text
from striate.engine.task import MULTI_LABEL
from striate.metrics.multi_label import best_f1_thresholds, mean_label_ece
from striate.metrics.platt import (
    PlattParams,
    binary_log_losses,
    cross_validated_platt_losses,
    fit_platt,
)
from striate.report.format import percent
from striate.run.multi_label_predictions import HALF, MultiLabelPredictions

MIN_IMAGES = 20  # with fewer validation images, no calibration is fitted


@dataclass(frozen=True, kw_only=True)
class ClassDecision:
    """Platt scaling and threshold of one class; the threshold has the highest F1."""

    slope: float = 1.0  # factor of the logit
    intercept: float = 0.0  # added to the scaled logit
    threshold: float = HALF  # calibrated probability from which on it is predicted
    positives: int = 0  # validation images with the class


@dataclass(frozen=True, kw_only=True)
class LabelCalibration:
    """Platt scaling and thresholds of a run with several labels per image.

    The file `calibration.json` has these fields. Without scaling, slopes are 1 and
    intercepts 0; thresholds are always chosen.
    """

    classes: Mapping[str, ClassDecision] = field(default_factory=dict)
    used: bool = False  # whether probabilities are scaled
    reason: str = ""  # reason why they are not scaled
    split: str = "val"  # split on which scaling and thresholds were fitted
    images: int = 0  # number of images of this split
    ece_before: float | None = None  # mean ECE of the classes without scaling
    ece_after: float | None = None
    log_loss_before: float | None = None  # mean binary cross-entropy without scaling
    log_loss_after: float | None = None
    # mean binary cross-entropy of images that were not used to fit the scaling
    log_loss_cross_validated: float | None = None

    @classmethod
    def default(cls, names: Sequence[str]) -> LabelCalibration:
        """Return no scaling, and threshold 0.5 of each class."""
        reason = "there is no calibration.json"
        return cls(classes=dict.fromkeys(names, ClassDecision()), reason=reason)

    @property
    def temperature(self) -> float:
        """Return the divisor of all logits, which is always 1."""
        return 1.0

    @property
    def sentence(self) -> str:
        """Return sentences on the scaling and its effect, and on the thresholds."""
        images = count_text(self.images, "validation image")
        thresholds = f"The threshold of each class has the highest F1 on {images}."
        if not self.images:
            thresholds = f"The threshold of each class is {HALF:g}."
        if not self.used:
            return f"Probabilities are not scaled: {self.reason}. {thresholds}"
        text = f"Probabilities are calibrated by Platt scaling of each class ({images})"
        if self.ece_before is None or self.ece_after is None:
            return f"{text}. {thresholds}"
        ece = f"{percent(self.ece_before)} before and {percent(self.ece_after)} after"
        return f"{text}. The mean ECE on validation is {ece} scaling. {thresholds}"

    @property
    def params(self) -> PlattParams:
        """Return slope and intercept of each class."""
        values = self.classes.values()
        slopes = np.array([c.slope for c in values])
        return PlattParams(slopes, np.array([c.intercept for c in values]))

    @property
    def thresholds(self) -> np.ndarray:
        """Return the threshold of each class, (classes,)."""
        return np.array([c.threshold for c in self.classes.values()])

    def scale(self, probs: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, (N, classes)."""
        return self.params.apply(probs) if self.used else probs

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the calibrated probabilities of logits, (N, classes), on the CPU."""
        probs = MULTI_LABEL.probs(logits.detach()).cpu().numpy()
        return torch.from_numpy(self.scale(probs))

    def apply(self, predictions: MultiLabelPredictions) -> MultiLabelPredictions:
        """Return predictions with calibrated probabilities, and decisions by them."""
        probs = self.scale(predictions.probs)
        losses = predictions.losses
        if self.used:
            losses = binary_log_losses(probs, predictions.truth)
        return replace(
            predictions,
            probs=probs,
            losses=losses,
            decisions=probs >= self.thresholds,
            thresholds=self.thresholds,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content of `calibration.json`."""
        return {"method": "platt", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LabelCalibration:
        """Read the content of `calibration.json`."""
        known = {k: v for k, v in values.items() if k in cls.__dataclass_fields__}
        classes = {k: ClassDecision(**v) for k, v in values["classes"].items()}
        return cls(**{**known, "classes": classes})


def fit_label_calibration(
    validation: MultiLabelPredictions, split: str = "val"
) -> LabelCalibration:
    """Fit Platt scaling and thresholds on unscaled validation predictions.

    The scaling is used if the cross-validated log loss is below that without scaling.
    """
    probs, truth = validation.probs, validation.truth
    count, before = len(probs), float(validation.losses.mean())
    ece = mean_label_ece(probs, truth)
    params = PlattParams(np.ones(probs.shape[1]), np.zeros(probs.shape[1]))
    result = LabelCalibration(
        split=split,
        images=count,
        ece_before=ece,
        ece_after=ece,
        log_loss_before=before,
        log_loss_after=before,
    )
    if count < MIN_IMAGES:
        reason = f"validation has {count_text(count, 'image')}, too few to fit a "
        result = replace(result, reason=f"{reason}scaling (minimum: {MIN_IMAGES})")
    else:
        after = float(cross_validated_platt_losses(probs, truth).mean())
        result = replace(result, log_loss_cross_validated=after)
        if after < before:
            params = fit_platt(probs, truth)
            probs = params.apply(probs)
            result = replace(
                result,
                used=True,
                ece_after=mean_label_ece(probs, truth),
                log_loss_after=float(binary_log_losses(probs, truth).mean()),
            )
        else:
            reason = "scaling does not improve the cross-validated log loss on "
            texts = f"({before:.4f} without scaling, {after:.4f} with scaling)"
            result = replace(result, reason=f"{reason}validation {texts}")
    thresholds = best_f1_thresholds(probs, truth).tolist()
    positives = (truth > 0).sum(0).tolist()
    rows = zip(
        validation.labels.names,
        params.slopes.tolist(),
        params.intercepts.tolist(),
        thresholds,
        positives,
        strict=True,
    )
    classes = {
        name: ClassDecision(slope=a, intercept=b, threshold=t, positives=n)
        for name, a, b, t, n in rows
    }
    return replace(result, classes=classes)
