"""How far a run is, and what it tells those who watch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class StepDone:
    """A mini-batch has been learned from; its loss is NaN where it was skipped."""

    epoch: int
    batch: int
    step: int
    loss: float
    lr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch has been judged; `best` says no earlier one was better."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced: float
    lr: float
    best: bool


class Observer(Protocol):
    """Something that watches the loop: a journal, a progress bar, a keeper."""

    def on_step(self, done: StepDone) -> None:
        """Take note of a step."""

    def on_epoch(self, done: EpochDone) -> None:
        """Take note of an epoch."""


@dataclass(kw_only=True)
class TrainState:
    """All that the loop must know to go on, apart from weights and optimizer.

    Args:
        epoch: The one being gone through, from 0.
        batch: The next in it; the number of batches where validation is due.
        step: The next of the run.
        losses: Summed over the images learned from in this epoch.
        images: How many those are.
        lr: Of the last step.
        brake: Factor on every rate; below 1 where a run that blew up goes on slower.
        skipped: Batches skipped in a row.
        history: The epochs judged.

    Example:
        >>> at = TrainState()
        >>> at.step_done(loss=2.0, lr=0.1, images=3)
        >>> at.step_done(loss=math.nan, lr=0.1, images=3)
        >>> at.batch, at.losses, at.images, at.skipped
        (2, 6.0, 3, 1)
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    losses: float = 0.0
    images: int = 0
    lr: float = 0.0
    brake: float = 1.0
    skipped: int = 0
    history: list[EpochDone] = field(default_factory=list)

    def step_done(self, loss: float, lr: float, images: int) -> None:
        """Move on by a batch; a loss of NaN is of one that was skipped."""
        self.batch, self.step, self.lr = self.batch + 1, self.step + 1, lr
        if math.isnan(loss):
            self.skipped += 1
        else:
            self.losses, self.skipped = self.losses + loss * images, 0
            self.images += images

    def epoch_done(
        self,
        val_loss: float,
        val_accuracy: float,
        val_balanced: float,
        by_balanced: bool = False,
    ) -> EpochDone:
        """Move on to the next epoch; return what this one came to.

        Args:
            val_loss: Of the validation split.
            val_accuracy: Likewise.
            val_balanced: Likewise, the mean over its classes.
            by_balanced: This decides which epoch is best, and not the plain accuracy.
        """
        merit = "val_balanced" if by_balanced else "val_accuracy"
        done = EpochDone(
            epoch=self.epoch,
            train_loss=self.losses / max(self.images, 1),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            val_balanced=val_balanced,
            lr=self.lr,
            best=False,
        )
        done = replace(done, best=_is_best(done, merit, self.history))
        self.history.append(done)
        self.epoch, self.batch, self.losses, self.images = self.epoch + 1, 0, 0.0, 0
        return done

    def finished(self, epochs: int, patience: int) -> bool:
        """Say whether every epoch is done, or patience is at its end."""
        return self.epoch >= epochs or 0 < patience <= _waited(self.history)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainState:
        """Read what `as_dict` wrote.

        Example:
            >>> at = TrainState(epoch=2, losses=0.1 + 0.2)
            >>> TrainState.from_dict(at.as_dict()) == at
            True
        """
        history = [EpochDone(**done) for done in fields["history"]]
        return cls(**{**fields, "history": history})


def _is_best(done: EpochDone, merit: str, history: Sequence[EpochDone]) -> bool:
    # Small validation splits tie often; the lower loss then decides.
    mine, *others = ((getattr(one, merit), -one.val_loss) for one in (done, *history))
    return all(mine > other for other in others)


def _waited(history: Sequence[EpochDone]) -> int:
    best = max((i for i, done in enumerate(history) if done.best), default=0)
    return max(len(history) - 1 - best, 0)
