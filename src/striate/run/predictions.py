"""Predictions of a split, and their CSV file `predictions_<split>.csv`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.files import damaged_file_errors, read_csv, write_csv
from striate.engine.evaluate import Outputs
from striate.metrics.classification import ClassificationMetrics, classification_metrics
from striate.metrics.temperature import apply_temperature, log_losses

PREFIX = "p_"
MAX_PROBABILITY_COLUMNS = 1000  # with more classes, only the top k are saved
TOP_K = 10  # probabilities per image saved with more classes


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Predicted probabilities, true classes and losses of the images of a split."""

    paths: tuple[str, ...]  # path of each image
    truth: np.ndarray  # (N,) true class indices
    probs: np.ndarray  # (N, classes) predicted probabilities
    losses: np.ndarray  # (N,) cross-entropy losses
    labels: ClassNames  # class names in output order

    @classmethod
    def of(
        cls, paths: Sequence[str], outputs: Outputs, labels: ClassNames
    ) -> Predictions:
        """Create predictions from network outputs for the images at `paths`."""
        many = len(labels) > MAX_PROBABILITY_COLUMNS
        probs = outputs.probs if many else outputs.probs.double()
        return cls(
            paths=tuple(paths),
            truth=outputs.labels.numpy(),
            probs=probs.numpy(),
            losses=outputs.losses.double().numpy(),
            labels=labels,
        )

    @property
    def predicted(self) -> np.ndarray:
        """Return the (N,) predicted class indices (highest probability)."""
        most: np.ndarray = self.probs.argmax(1)
        return most

    @property
    def correct(self) -> np.ndarray:
        """Return whether each prediction is correct, (N,) bool."""
        correct: np.ndarray = self.predicted == self.truth
        return correct

    def true_label(self, i: int) -> str:
        """Return the true class of an image."""
        return self.labels[int(self.truth[i])]

    def predicted_label(self, i: int) -> str:
        """Return the predicted class of an image."""
        # Only this row, not `predicted` of all rows: `save` asks for each row.
        return self.labels[int(self.probs[i].argmax())]

    def temperature_scaled(self, temperature: float) -> Predictions:
        """Return the predictions with logits divided by `temperature`; 1: unchanged."""
        if temperature == 1.0:
            return self
        probs = apply_temperature(self.probs, temperature)
        losses = log_losses(probs, self.truth)
        return replace(self, probs=probs.astype(self.probs.dtype), losses=losses)

    def metrics(self) -> ClassificationMetrics:
        """Return accuracy, loss, calibration error and per-class metrics."""
        names = self.labels.names
        return classification_metrics(self.probs, self.truth, self.losses, names)

    def most_confused(self, count: int) -> list[tuple[str, str, int]]:
        """Return the most frequent errors as (true class, predicted class, count)."""
        return [
            (self.labels[true], self.labels[pred], images)
            for true, pred, images in self.metrics().confused_pairs[:count]
        ]

    def top_losses(self, count: int) -> list[dict[str, Any]]:
        """Return the images with the highest loss as dicts, the highest loss first."""
        return [
            {
                "image_path": self.paths[i],
                "true": self.true_label(i),
                "pred": self.predicted_label(i),
                "probability": float(self.probs[i].max()),
                "loss": float(self.losses[i]),
            }
            for i in self.highest_losses(count)
        ]

    def highest_losses(self, count: int) -> list[int]:
        """Return the indices of the `count` largest losses, largest first."""
        return [int(i) for i in np.argsort(-self.losses, kind="stable")[:count]]

    def save(self, path: Path) -> None:
        """Write a CSV: `image_path`, `true`, `pred`, probabilities and `loss`.

        There is one probability column per class. With one class per image, and more
        than `MAX_PROBABILITY_COLUMNS` classes, one column has the top `TOP_K` as JSON.
        """
        names = self.labels.names
        many = len(names) > MAX_PROBABILITY_COLUMNS and not self.labels.multi_label
        probs_cells = partial(_top_k, names) if many else _all_probs
        rows = (
            [
                path_,
                self.true_label(i),
                self.predicted_label(i),
                *probs_cells(self.probs[i]),
                f"{self.losses[i]:.7g}",
            ]
            for i, path_ in enumerate(self.paths)
        )
        columns = ["top"] if many else [PREFIX + name for name in names]
        write_csv(path, ["image_path", "true", "pred", *columns, "loss"], rows)

    @classmethod
    def read(cls, path: Path, labels: ClassNames) -> Predictions:
        """Read a CSV written by `save`; probabilities that were not saved are 0."""
        rows = read_csv(path)
        with damaged_file_errors(path):
            return cls._of_rows(rows, labels)

    @classmethod
    def _of_rows(
        cls, rows: Sequence[dict[str, str]], labels: ClassNames
    ) -> Predictions:
        number = {name: i for i, name in enumerate(labels.names)}
        old = bool(rows) and "image_path" not in rows[0]  # columns of earlier versions
        path, true = ("path", "label") if old else ("image_path", "true")
        if len(labels) > MAX_PROBABILITY_COLUMNS:
            probs = np.zeros((len(rows), len(labels)), np.float32)
            for i, row in enumerate(rows):
                for name, p in json.loads(row["top"]).items():
                    probs[i, number[name]] = p
        else:
            columns = [PREFIX + name for name in labels.names]
            probs = np.array([[float(row[name]) for name in columns] for row in rows])
        return cls(
            paths=tuple(row[path] for row in rows),
            truth=np.array([number[row[true]] for row in rows]),
            probs=probs,
            losses=np.array([float(row["loss"]) for row in rows]),
            labels=labels,
        )


def _all_probs(probs: np.ndarray) -> list[str]:
    return [f"{p:.7g}" for p in probs]


def _top_k(names: Sequence[str], probs: np.ndarray) -> list[str]:
    best = np.argsort(-probs, kind="stable")[:TOP_K]
    return [json.dumps({names[i]: float(f"{probs[i]:.9g}") for i in best})]
