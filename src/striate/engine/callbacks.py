"""Callbacks of the training loop, and the step and epoch results they receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a training step; its loss is NaN if the batch was skipped."""

    epoch: int
    batch: int
    step: int
    loss: float
    lr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Result of an epoch; `best` is true if no earlier epoch was better."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    lr: float
    best: bool


class Callback(Protocol):
    """A callback of the loop: CSV logger, progress bar, checkpointer, EMA."""

    def on_step_end(self, step: StepResult, /) -> None:
        """Run after each training step."""

    def on_epoch_end(self, epoch: EpochResult, /) -> None:
        """Run after each epoch, when it has been validated."""
