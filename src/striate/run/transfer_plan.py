"""Record of a transfer plan: probes, trials, and the proposed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from striate.core.files import damaged_file_errors, read_json
from striate.finetune.linear_probe import LinearProbe, ProbePoint

LOGISTIC, TRAINED, TUNED = "logistic", "trained", "tuned"
HEADS = (LOGISTIC, TRAINED, TUNED)
MIN_STEPS = 64  # of the optimizer; shorter trials cannot be compared


@dataclass(frozen=True, kw_only=True)
class TransferTrial:
    """Result of a candidate on images that it was not trained on.

    Args:
        head: `logistic` or `tuned`.
        cut: The last frozen layer.
        stages: The trained stages, from the cut point to the classifier.
        batch_norm: Mode behind the cut point; empty for a logistic head.
        lr: The classifier's largest learning rate; 0 for a logistic head.
        lr_decay: Factor on the learning rate from stage to stage.
        epochs: Of the trial.
        steps: Of the optimizer; 0 for a logistic head.
        train_images: Number of images that it was trained on.
        correct: For each evaluated image, whether the prediction is correct.
        losses: Their cross-entropies in nats, after temperature scaling.
        seconds: Duration of the trial, with features.
        full_seconds: Expected duration with all images and epochs.
    """

    head: str
    cut: str
    stages: tuple[str, ...]
    batch_norm: str
    lr: float
    lr_decay: float
    epochs: int
    steps: int
    train_images: int
    correct: tuple[bool, ...] = field(repr=False)
    losses: tuple[float, ...] = field(repr=False)
    seconds: float
    full_seconds: float

    @property
    def eval_images(self) -> int:
        """Return the number of images that it was evaluated on."""
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        """Return the share of correct predictions."""
        return sum(self.correct) / len(self.correct)

    @property
    def loss(self) -> float:
        """Return the mean loss."""
        return sum(self.losses) / len(self.losses)

    def is_worse_than(self, other: TransferTrial) -> bool:
        """Return whether its loss is larger by more than a standard error (paired)."""
        difference = np.subtract(self.losses, other.losses)
        return bool(difference.mean() > difference.std() / sqrt(len(difference)))


@dataclass(frozen=True, kw_only=True)
class TransferPlan:
    """The proposed candidate, its expected accuracy, and all candidates.

    Args:
        probes: A linear probe at every cut point, from the input up.
        trials: The candidates, the head alone first.
        best_index: Number of the proposed trial.
        accuracy: Expected on the validation split.
        low: Lower end of its 95 % interval, which covers the sampling error of the
            trial and of the validation split.
        high: Upper end.
        val_images: Number of validation images.
        images: Number of training images used by the plan.
        feature_seconds: Duration of the forward pass.
        seconds: Duration of the whole plan.
        cached: Images whose features were in the cache.
        skipped: Candidates that could not be tried, with the reason.
    """

    probes: tuple[LinearProbe, ...]
    trials: tuple[TransferTrial, ...]
    best_index: int
    accuracy: float
    low: float
    high: float
    val_images: int
    images: int
    feature_seconds: float
    seconds: float
    cached: int = 0
    skipped: tuple[str, ...] = ()

    @property
    def best(self) -> TransferTrial:
        """Return the proposed trial."""
        return self.trials[self.best_index]

    @property
    def tuned(self) -> TransferTrial | None:
        """Return the best tuned trial, proposed or not."""
        return best_tuned(self.trials)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TransferPlan:
        """Return the plan of an `as_dict`, also from JSON."""
        probes = [
            LinearProbe(
                **{**row, "points": tuple(ProbePoint(**p) for p in row["points"])}
            )
            for row in fields["probes"]
        ]
        tuples = ("stages", "correct", "losses")
        trials = [
            TransferTrial(**{**row, **{name: tuple(row[name]) for name in tuples}})
            for row in fields["trials"]
        ]
        skipped = tuple(fields["skipped"])
        lists = {"probes": tuple(probes), "trials": tuple(trials), "skipped": skipped}
        return cls(**{**fields, **lists})

    @classmethod
    def read(cls, path: Path) -> TransferPlan:
        """Read a `plan.json`.

        Raises:
            RunError: It is missing, damaged, or of another version.
        """
        fields = read_json(path)
        with damaged_file_errors(path):
            return cls.from_dict(fields)


def best_tuned(trials: Sequence[TransferTrial]) -> TransferTrial | None:
    """Return the tuned trial with most stages within a standard error of the best.

    Because with few images and epochs, a trial with more stages is held back.
    """
    tuned = [trial for trial in trials if trial.head == TUNED]
    best = min(tuned, key=lambda trial: trial.loss, default=None)
    good = [trial for trial in tuned if best and not trial.is_worse_than(best)]
    return max(good, key=lambda trial: (len(trial.stages), -trial.loss), default=None)
