"""Callbacks of the training loop, and the step and epoch results they receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class StepResult:
    """A mini-batch has been learned from; its loss is NaN where it was skipped."""

    epoch: int
    batch: int
    step: int
    loss: float
    lr: float
    images: int


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """An epoch has been judged; `best` says no earlier one was better."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced: float
    lr: float
    best: bool


class Callback(Protocol):
    """Something that watches the loop: a journal, a progress bar, a keeper."""

    def on_step(self, done: StepResult) -> None:
        """Take note of a step."""

    def on_epoch(self, done: EpochResult) -> None:
        """Take note of an epoch."""
