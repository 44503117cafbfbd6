"""Accuracy of a finished run on its training images, to detect overfitting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.seeds import permutation
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.evaluate import Outputs
from striate.metrics.average_precision import mean_average_precision
from striate.metrics.intervals import Interval, wilson_interval
from striate.run.calibration import Calibration, calibrated
from striate.run.multi_label_predictions import predictions_of
from striate.run.predictions import Predictions
from striate.run.run import Run

MAX_TRAIN_IMAGES = 2000  # the interval is then at most 4.4 points wide


@dataclass(frozen=True)
class CorrectCount:
    """Number of correct predictions among a number of evaluated images.

    Example:
        >>> CorrectCount(45, 60).accuracy
        0.75
    """

    correct: int
    count: int
    mean_ap: float | None = None  # mAP, for several labels per image

    @classmethod
    def of(cls, predicted: np.ndarray, truth: np.ndarray) -> Self:
        """Count the predictions that are equal to the true classes, both (N,)."""
        return cls(int((predicted == truth).sum()), len(truth))

    @classmethod
    def of_predictions(cls, predictions: Predictions) -> Self:
        """Count the correct predictions; for several labels, also measure the mAP."""
        mean_ap = None
        if predictions.labels.multi_label:
            value = mean_average_precision(predictions.truth, predictions.probs)
            mean_ap = None if math.isnan(value) else value
        return cls(int(predictions.correct.sum()), len(predictions.paths), mean_ap)

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> CorrectCount | None:
        """Return the counts of a JSON record with `accuracy` and `count`, if any."""
        if record is None:
            return None
        correct = round(record["accuracy"] * record["count"])
        return cls(correct, record["count"], record.get("map"))

    @property
    def as_tuple(self) -> tuple[int, int]:
        """Return the two numbers as a tuple, for a test of two proportions."""
        return self.correct, self.count

    @property
    def accuracy(self) -> float:
        """Return the accuracy."""
        return self.correct / self.count

    @property
    def interval(self) -> Interval:
        """Return the 95 % Wilson interval of the accuracy."""
        return wilson_interval(self.correct, self.count)

    def as_record(self) -> dict[str, Any]:
        """Return accuracy, interval and count as JSON values for `manifest.json`."""
        interval = list(self.interval)
        record = {"accuracy": self.accuracy, "interval": interval, "count": self.count}
        return record if self.mean_ap is None else {**record, "map": self.mean_ap}


def outputs_accuracy(
    outputs: Outputs, labels: ClassNames, scaling: Calibration | None
) -> CorrectCount:
    """Count the correct predictions among network outputs, before calibration."""
    if not labels.multi_label:
        predicted = outputs.logits.argmax(1).numpy()
        return CorrectCount.of(predicted, outputs.labels.numpy())
    predictions = predictions_of([""] * len(outputs.labels), outputs, labels)
    return CorrectCount.of_predictions(calibrated(predictions, scaling))


def training_sample(count: int, seed: int) -> list[int]:
    """Return sorted indices of at most `MAX_TRAIN_IMAGES` of `count` training images.

    Example:
        >>> training_sample(3, 0), len(training_sample(5000, 0))
        ([0, 1, 2], 2000)
    """
    sample = permutation(count, seed, "train accuracy")[:MAX_TRAIN_IMAGES]
    return sorted(sample.tolist())


def measure_train_accuracy(run: Run, group: RankGroup = ONE_PROCESS) -> CorrectCount:
    """Evaluate the best weights on training images, without augmentation.

    In a distributed run, all ranks must call this function.
    """
    subset = run.data.subset("train")
    if len(subset) > MAX_TRAIN_IMAGES:
        subset = subset.take(training_sample(len(subset), run.recipe.seed))
    predictions = run.predict_subset(subset, group)
    return CorrectCount.of_predictions(predictions)
