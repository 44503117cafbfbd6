"""What a network said about every image, as rows of a CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.files import damaged_file_errors, read_csv, write_csv
from striate.engine.evaluate import Outputs
from striate.metrics.classification import ClassificationMetrics, classification_metrics

_PREFIX = "p_"
WIDE = 1000  # classes from which a column each would be larger than the images
TOP = 10  # probabilities kept of so many classes


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities, truth and losses of a part, in its order.

    Args:
        paths: Where each image came from.
        truth: (N,) class numbers.
        probs: (N, classes).
        losses: (N,) cross-entropies in nats.
        labels: Class names by number.
    """

    paths: tuple[str, ...]
    truth: np.ndarray
    probs: np.ndarray
    losses: np.ndarray
    labels: ClassNames

    @classmethod
    def of(
        cls, paths: Sequence[str], outputs: Outputs, labels: ClassNames
    ) -> Predictions:
        """Take a network's outputs for the images at `paths`."""
        probs = outputs.probs
        return cls(
            paths=tuple(paths),
            truth=outputs.labels.numpy(),
            probs=(probs if len(labels) > WIDE else probs.double()).numpy(),
            losses=outputs.losses.double().numpy(),
            labels=labels,
        )

    @property
    def predicted(self) -> np.ndarray:
        """Return the (N,) most probable classes."""
        most: np.ndarray = self.probs.argmax(1)
        return most

    def score(self) -> ClassificationMetrics:
        """Return the figures of merit."""
        return classification_metrics(
            self.probs, self.truth, self.losses, self.labels.names
        )

    def most_wrong(self, count: int) -> list[int]:
        """Return the positions of the largest losses, largest first."""
        return [int(i) for i in np.argsort(-self.losses, kind="stable")[:count]]

    def save(self, path: Path) -> None:
        """Write path, label, prediction, probabilities and loss.

        Of more than `WIDE` classes the `TOP` most probable stand in one column, as
        JSON, in place of a column each.
        """
        names = self.labels.names
        wide = len(names) > WIDE
        written = partial(_top, names) if wide else _each
        rows = (
            [where, names[true], names[said], *written(probs), f"{loss:.7g}"]
            for where, true, said, probs, loss in zip(
                self.paths,
                self.truth,
                self.predicted,
                self.probs,
                self.losses,
                strict=True,
            )
        )
        each = ["top"] if wide else [_PREFIX + name for name in names]
        write_csv(path, ["path", "label", "pred", *each, "loss"], rows)

    @classmethod
    def read(cls, path: Path, labels: ClassNames) -> Predictions:
        """Read what `save` wrote; probabilities that it left out are 0.

        Raises:
            RunError: The file is missing or damaged.
        """
        rows = read_csv(path)
        with damaged_file_errors(path):
            return cls._of_rows(rows, labels)

    @classmethod
    def _of_rows(
        cls, rows: Sequence[dict[str, str]], labels: ClassNames
    ) -> Predictions:
        number = {name: i for i, name in enumerate(labels.names)}
        if len(labels) > WIDE:
            probs = np.zeros((len(rows), len(labels)), np.float32)
            for i, row in enumerate(rows):
                for name, p in json.loads(row["top"]).items():
                    probs[i, number[name]] = p
        else:
            columns = [_PREFIX + name for name in labels.names]
            probs = np.array([[float(row[name]) for name in columns] for row in rows])
        return cls(
            paths=tuple(row["path"] for row in rows),
            truth=np.array([number[row["label"]] for row in rows]),
            probs=probs,
            losses=np.array([float(row["loss"]) for row in rows]),
            labels=labels,
        )


def _each(probs: np.ndarray) -> list[str]:
    return [f"{p:.7g}" for p in probs]


def _top(names: Sequence[str], probs: np.ndarray) -> list[str]:
    best = np.argsort(-probs, kind="stable")[:TOP]
    return [json.dumps({names[i]: float(f"{probs[i]:.9g}") for i in best})]
