"""Predictions of images with several labels, and their CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.errors import SettingError
from striate.core.files import damaged_file_errors, read_csv
from striate.engine.evaluate import Outputs
from striate.metrics.multi_label import MultiLabelMetrics, multi_label_metrics
from striate.run.predictions import PREFIX, Predictions

HALF = 0.5  # threshold of each class, before thresholds are chosen on validation


@dataclass(frozen=True, kw_only=True)
class MultiLabelPredictions(Predictions):
    """Probability, threshold and decision for each class of the images of a split.

    `truth` is (N, classes), multi-hot; `losses` are binary cross-entropies.
    """

    decisions: np.ndarray  # (N, classes) bool: whether each class is predicted
    thresholds: np.ndarray  # (classes,) probability from which on a class is predicted

    @classmethod
    def of(
        cls, paths: Sequence[str], outputs: Outputs, labels: ClassNames
    ) -> MultiLabelPredictions:
        """Create predictions from network outputs, with threshold 0.5."""
        probs = outputs.probs.double().numpy()
        return cls(
            paths=tuple(paths),
            truth=outputs.labels.numpy(),
            probs=probs,
            losses=outputs.losses.double().numpy(),
            labels=labels,
            decisions=probs >= HALF,
            thresholds=np.full(len(labels), HALF),
        )

    @property
    def predicted(self) -> np.ndarray:
        """Return whether each class is predicted, (N, classes) bool."""
        return self.decisions

    @property
    def correct(self) -> np.ndarray:
        """Return whether all labels of each image are correct, (N,) bool."""
        exact: np.ndarray = (self.decisions == (self.truth > 0)).all(1)
        return exact

    def true_label(self, i: int) -> str:
        """Return the true classes of an image, separated by `;`."""
        return self.labels.decode(self.truth[i])

    def predicted_label(self, i: int) -> str:
        """Return the predicted classes of an image, separated by `;`."""
        return self.labels.decode(self.decisions[i])

    def with_classes(
        self, columns: Sequence[int], labels: ClassNames
    ) -> MultiLabelPredictions:
        """Return the predictions with the classes in another order."""
        return replace(
            self,
            truth=self.truth[:, columns],
            probs=self.probs[:, columns],
            decisions=self.decisions[:, columns],
            thresholds=self.thresholds[columns],
            labels=labels,
        )

    def metrics(self) -> MultiLabelMetrics:  # type: ignore[override]
        """Return mAP, F1, exact match, calibration error and per-class metrics."""
        return multi_label_metrics(
            self.probs,
            self.truth,
            self.decisions,
            self.losses,
            self.labels.names,
            self.thresholds,
        )

    def most_confused(self, count: int) -> list[tuple[str, str, int]]:
        """Raise an error: an image with several labels has no one wrong class.

        Raises:
            SettingError: Always.
        """
        what = "images with several labels are not confused with one other class"
        fix = "see false positives and negatives by class: run.evaluate().classes"
        raise SettingError(what, where="most_confused", fix=fix)

    @classmethod
    def read(
        cls, path: Path, labels: ClassNames, thresholds: np.ndarray | None = None
    ) -> MultiLabelPredictions:
        """Read a CSV written by `save`; `thresholds` are those of the run."""
        rows = read_csv(path)
        columns = [PREFIX + name for name in labels.names]
        with damaged_file_errors(path):
            probs = [[float(row[name]) for name in columns] for row in rows]
            shape = len(rows), len(columns)
            return cls(
                paths=tuple(row["image_path"] for row in rows),
                truth=labels.encode([row["true"] for row in rows]),
                probs=np.array(probs).reshape(shape),
                losses=np.array([float(row["loss"]) for row in rows]),
                labels=labels,
                decisions=labels.encode([row["pred"] for row in rows]) > 0,
                thresholds=np.full(len(labels), HALF)
                if thresholds is None
                else thresholds,
            )


def predictions_of(
    paths: Sequence[str], outputs: Outputs, labels: ClassNames
) -> Predictions:
    """Create predictions of one class per image, or of several labels."""
    kind = MultiLabelPredictions if labels.multi_label else Predictions
    return kind.of(paths, outputs, labels)
