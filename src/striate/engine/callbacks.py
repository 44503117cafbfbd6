"""Callbacks of the training loop, and the results that callbacks receive."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of a training step; `loss` is NaN if the batch was skipped."""

    epoch: int  # counted from 1
    batch: int
    step: int
    loss: float
    lr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Result of an epoch; `best` is true if the epoch is the best so far."""

    epoch: int  # counted from 1
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    lr: float
    best: bool
    val_map: float | None = None  # mAP, for several labels per image


class Callback:
    """Callback of the training loop, such as a CSV logger; the default does nothing."""

    def on_step_end(self, step: StepResult, /) -> None:
        """Handle the result of a training step."""

    def on_epoch_end(self, epoch: EpochResult, /) -> None:
        """Handle the result of an epoch, after validation."""
