"""Data classes of a transfer plan: linear probes, trials, and the proposed trial."""

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
MIN_TRIAL_STEPS = 64  # optimizer steps; shorter trials cannot be compared


@dataclass(frozen=True, kw_only=True)
class TransferTrial:
    """Settings and result of one trial (a candidate head and cut point)."""

    head: str  # `logistic` or `tuned`
    cut: str  # the last frozen layer
    stages: tuple[str, ...]  # the trained stages, from the cut point to the classifier
    batch_norm: str  # batch norm mode after the cut point; empty for a logistic head
    lr: float  # maximum learning rate of the classifier; 0 for a logistic head
    layer_decay: float  # learning-rate factor from each stage to the stage before it
    epochs: int
    steps: int  # number of optimizer steps; 0 for a logistic head
    train_images: int
    # for each evaluated image, whether the prediction is correct
    correct: tuple[bool, ...] = field(repr=False)
    # cross-entropy of each evaluated image, after temperature scaling
    losses: tuple[float, ...] = field(repr=False)
    seconds: float  # duration of the trial, including feature extraction
    full_seconds: float  # expected duration with all images and epochs

    @property
    def eval_images(self) -> int:
        """Return the number of evaluated images."""
        return len(self.correct)

    @property
    def accuracy(self) -> float:
        """Return the accuracy on the evaluated images."""
        return sum(self.correct) / len(self.correct)

    @property
    def loss(self) -> float:
        """Return the mean loss on the evaluated images."""
        return sum(self.losses) / len(self.losses)

    def is_worse_than(self, other: TransferTrial) -> bool:
        """Return whether the loss exceeds `other.loss` by over one standard error."""
        difference = np.subtract(self.losses, other.losses)
        return bool(difference.mean() > difference.std() / sqrt(len(difference)))


@dataclass(frozen=True, kw_only=True)
class TransferPlan:
    """Result of a transfer plan: probes, trials, proposed trial, expected accuracy."""

    # a linear probe at every cut point, from the input to the output
    probes: tuple[LinearProbe, ...]
    trials: tuple[TransferTrial, ...]  # all trials; the first is the logistic head
    best_index: int
    accuracy: float  # expected accuracy on the validation split
    # lower limit of the 95 % interval of `accuracy`, which includes the sampling error
    # of the trial and of the validation split
    low: float
    high: float  # upper limit of that interval
    val_images: int
    images: int  # number of training images used by the plan
    feature_seconds: float  # duration of feature extraction
    seconds: float  # duration of the whole plan
    cached: int = 0  # number of images whose features were in the cache
    skipped: tuple[str, ...] = ()  # candidates that could not be tried, with the reason

    @property
    def best(self) -> TransferTrial:
        """Return the proposed trial."""
        return self.trials[self.best_index]

    @property
    def tuned(self) -> TransferTrial | None:
        """Return the best fine-tuned trial, even if another trial is proposed."""
        return best_tuned(self.trials)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as a dict of JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TransferPlan:
        """Create a plan from a dict that was made by `as_dict` or read from JSON."""
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
        """Read a plan from a `plan.json` file."""
        fields = read_json(path)
        with damaged_file_errors(path):
            return cls.from_dict(fields)


def best_tuned(trials: Sequence[TransferTrial]) -> TransferTrial | None:
    """Return the trial with the most fine-tuned stages, of those near the lowest loss.

    Only tuned trials count. Short trials with few images underestimate the accuracy of
    many trained stages, so more stages are preferred at equal loss.
    """
    tuned = [trial for trial in trials if trial.head == TUNED]
    best = min(tuned, key=lambda trial: trial.loss, default=None)
    good = [trial for trial in tuned if best and not trial.is_worse_than(best)]
    return max(good, key=lambda trial: (len(trial.stages), -trial.loss), default=None)
