"""Record of a transfer plan: what was tried, and what it proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from striate.core.files import damaged_file_errors, read_json
from striate.finetune.linear_probe import Probe, ProbePoint

LOGISTIC, TRAINED, TUNED = "logistic", "trained", "tuned"
HEADS = (LOGISTIC, TRAINED, TUNED)
STEPS = 64  # of the optimizer, or nothing has been learned that could be judged


@dataclass(frozen=True, kw_only=True)
class TransferTrial:
    """What a way came to on images that it did not learn from.

    Args:
        head: `logistic` or `tuned`.
        cut: Behind which layer.
        stages: That learn, from the cut to the head.
        batch_norm: Behind the cut; empty for a logistic head.
        lr: The head's largest rate; 0 for a logistic head.
        lr_decay: From stage to stage.
        epochs: Of the trial.
        steps: Of the optimizer; 0 for a logistic head.
        learned: Images learned from.
        right: Which of the others it got right.
        costs: Their cross-entropies in nats, at the best temperature.
        seconds: It took, features included.
        whole: Seconds that it is reckoned to take with all images and epochs.
    """

    head: str
    cut: str
    stages: tuple[str, ...]
    batch_norm: str
    lr: float
    lr_decay: float
    epochs: int
    steps: int
    learned: int
    right: tuple[bool, ...] = field(repr=False)
    costs: tuple[float, ...] = field(repr=False)
    seconds: float
    whole: float

    @property
    def judged(self) -> int:
        """Return how many images it was judged by."""
        return len(self.right)

    @property
    def accuracy(self) -> float:
        """Return the share of right answers."""
        return sum(self.right) / len(self.right)

    @property
    def cost(self) -> float:
        """Return the mean cost."""
        return sum(self.costs) / len(self.costs)

    def behind(self, other: TransferTrial) -> bool:
        """Say whether it costs more by over a standard error, image by image."""
        more = np.subtract(self.costs, other.costs)
        return bool(more.mean() > more.std() / sqrt(len(more)))


@dataclass(frozen=True, kw_only=True)
class TransferPlan:
    """What is to be done, what to expect of it, and what it was chosen among.

    Args:
        probes: A linear head at every cut, from the input up.
        trials: The head alone first.
        chosen: Number of the one proposed.
        accuracy: To be expected on the validation split.
        low: End of its 95 % interval, which knows how few images said so, and how
            few will judge.
        high: The other end.
        judging: Images of the validation split.
        images: Of the training split that the plan looked at.
        passing: Seconds of the one pass.
        seconds: Of the whole plan, the pass and the trials included.
        kept: Images whose averages were there from before.
        left_out: What could not be tried, and why.
    """

    probes: tuple[Probe, ...]
    trials: tuple[TransferTrial, ...]
    chosen: int
    accuracy: float
    low: float
    high: float
    judging: int
    images: int
    passing: float
    seconds: float
    kept: int = 0
    left_out: tuple[str, ...] = ()

    @property
    def best(self) -> TransferTrial:
        """Return the way that is proposed."""
        return self.trials[self.chosen]

    @property
    def tuned(self) -> TransferTrial | None:
        """Return the best of the tuned ones, proposed or not."""
        return best_tuned(self.trials)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TransferPlan:
        """Read what `as_dict` wrote, also from JSON."""
        probes = [
            Probe(**{**one, "points": tuple(ProbePoint(**p) for p in one["points"])})
            for one in fields["probes"]
        ]
        tuples = ("stages", "right", "costs")
        trials = [
            TransferTrial(**{**one, **{name: tuple(one[name]) for name in tuples}})
            for one in fields["trials"]
        ]
        out = tuple(fields["left_out"])
        read = {"probes": tuple(probes), "trials": tuple(trials), "left_out": out}
        return cls(**{**fields, **read})

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
    """Return the tuned one of which most learns, of those as good as the cheapest.

    As good, by a standard error: fewer images and epochs than there will be hold
    back what learns more.
    """
    tuned = [trial for trial in trials if trial.head == TUNED]
    least = min(tuned, key=lambda trial: trial.cost, default=None)
    good = [trial for trial in tuned if least and not trial.behind(least)]
    return max(good, key=lambda one: (len(one.stages), -one.cost), default=None)
