"""What a network said about every picture, as rows of a CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from striate.core.errors import RunError, UnknownNameError
from striate.core.files import read_csv, write_csv
from striate.core.spec import Labels
from striate.engine.evaluate import Outputs
from striate.engine.metrics import Score, score

_PREFIX = "p_"


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
        return cls(
            paths=tuple(paths),
            truth=outputs.labels.numpy(),
            probabilities=outputs.probabilities.double().numpy(),
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
        """Write path, label, prediction, probabilities and loss."""
        names = self.labels.names
        columns = ["path", "label", "pred", *(_PREFIX + n for n in names), "loss"]
        rows = (
            [
                where,
                names[true],
                names[said],
                *(f"{p:.7g}" for p in odds),
                f"{loss:.7g}",
            ]
            for where, true, said, odds, loss in zip(
                self.paths,
                self.truth,
                self.predicted,
                self.probabilities,
                self.losses,
                strict=True,
            )
        )
        write_csv(path, columns, rows)

    @classmethod
    def read(cls, path: Path, labels: Labels) -> Predictions:
        """Read what `save` wrote.

        Raises:
            RunError: The file is missing or damaged.
        """
        rows = read_csv(path)
        try:
            return cls._of_rows(rows, labels)
        except (KeyError, TypeError, ValueError, UnknownNameError) as error:
            what = f"{path.name} is damaged: {error}"
            fix = "restore it from a copy, or train again"
            raise RunError(what, where=path, fix=fix) from error

    @classmethod
    def _of_rows(cls, rows: Sequence[dict[str, str]], labels: Labels) -> Predictions:
        odds = [[float(row[_PREFIX + name]) for name in labels.names] for row in rows]
        return cls(
            paths=tuple(row["path"] for row in rows),
            truth=np.array([labels.index(row["label"]) for row in rows]),
            probabilities=np.array(odds),
            losses=np.array([float(row["loss"]) for row in rows]),
            labels=labels,
        )
