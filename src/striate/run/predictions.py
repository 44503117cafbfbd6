"""What a network said about every picture, as rows of a CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from striate.core.files import damage_named, read_csv, write_csv
from striate.core.spec import Labels
from striate.engine.evaluate import Outputs
from striate.metrics.classification import Score, score

_PREFIX = "p_"
WIDE = 1000  # classes from which a column each would be larger than the pictures
TOP = 10  # probabilities kept of so many classes


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities, truth and losses of a part, in its order.

    Args:
        paths: Where each picture came from.
        truth: (N,) class numbers.
        probabilities: (N, classes).
        losses: (N,) cross-entropies in nats.
        labels: Class names by number.
    """

    paths: tuple[str, ...]
    truth: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray
    labels: Labels

    @classmethod
    def of(cls, paths: Sequence[str], outputs: Outputs, labels: Labels) -> Predictions:
        """Take a network's outputs for the pictures at `paths`."""
        odds = outputs.probabilities
        return cls(
            paths=tuple(paths),
            truth=outputs.labels.numpy(),
            probabilities=(odds if len(labels) > WIDE else odds.double()).numpy(),
            losses=outputs.losses.double().numpy(),
            labels=labels,
        )

    @property
    def predicted(self) -> np.ndarray:
        """Return the (N,) most probable classes."""
        most: np.ndarray = self.probabilities.argmax(1)
        return most

    def score(self) -> Score:
        """Return the figures of merit."""
        return score(self.probabilities, self.truth, self.losses, self.labels.names)

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
            [where, names[true], names[said], *written(odds), f"{loss:.7g}"]
            for where, true, said, odds, loss in zip(
                self.paths,
                self.truth,
                self.predicted,
                self.probabilities,
                self.losses,
                strict=True,
            )
        )
        each = ["top"] if wide else [_PREFIX + name for name in names]
        write_csv(path, ["path", "label", "pred", *each, "loss"], rows)

    @classmethod
    def read(cls, path: Path, labels: Labels) -> Predictions:
        """Read what `save` wrote; probabilities that it left out are 0.

        Raises:
            RunError: The file is missing or damaged.
        """
        rows = read_csv(path)
        with damage_named(path):
            return cls._of_rows(rows, labels)

    @classmethod
    def _of_rows(cls, rows: Sequence[dict[str, str]], labels: Labels) -> Predictions:
        number = {name: i for i, name in enumerate(labels.names)}
        if len(labels) > WIDE:
            odds = np.zeros((len(rows), len(labels)), np.float32)
            for i, row in enumerate(rows):
                for name, p in json.loads(row["top"]).items():
                    odds[i, number[name]] = p
        else:
            columns = [_PREFIX + name for name in labels.names]
            odds = np.array([[float(row[name]) for name in columns] for row in rows])
        return cls(
            paths=tuple(row["path"] for row in rows),
            truth=np.array([number[row["label"]] for row in rows]),
            probabilities=odds,
            losses=np.array([float(row["loss"]) for row in rows]),
            labels=labels,
        )


def _each(odds: np.ndarray) -> list[str]:
    return [f"{p:.7g}" for p in odds]


def _top(names: Sequence[str], odds: np.ndarray) -> list[str]:
    best = np.argsort(-odds, kind="stable")[:TOP]
    return [json.dumps({names[i]: float(f"{odds[i]:.9g}") for i in best})]
