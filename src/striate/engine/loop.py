"""The algorithm of the notes, on one screen.

Choose hyper-parameters, initialise; then: take a mini-batch, run it forward, softmax,
cost, back-propagate, update; repeat. After each epoch the validation part is judged,
and nothing but it decides which weights are best and when to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.cost import ClassCost
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.optim import set_rate
from striate.engine.schedule import Schedule
from striate.engine.step import LOWER_LR, train_step


class Epochs(Protocol):
    """Batches that can be gone through once an epoch."""

    def __call__(self, epoch: int) -> Iterable[tuple[Tensor, Tensor]]:
        """Yield (input, label) batches of an epoch."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast to learn.

    Args:
        epochs: Times through the training part, at most.
        lr: The schedule's largest learning rate.
        schedule: Progress (0–1) to a factor of `lr`.
        label_smoothing: Share of the target spread over all classes.
        patience: Epochs without improvement before stopping; 0 never stops early.
        classes: Makes up in the cost for uneven classes.
        balanced: Judge epochs by the balanced accuracy, so that weights which forget
            a rare class are not the best.
    """

    epochs: int
    lr: float
    schedule: Schedule
    label_smoothing: float = 0.0
    patience: int = 0
    classes: ClassCost | None = None
    balanced: bool = False


@dataclass(frozen=True, slots=True)
class StepDone:
    """A mini-batch has been learnt from."""

    epoch: int
    step: int
    loss: float
    lr: float
    pictures: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class EpochDone:
    """An epoch has been judged; `best` says no earlier one was better."""

    epoch: int
    train_loss: float
    val_loss: float
    val_accuracy: float
    val_balanced: float
    lr: float
    seconds: float
    best: bool


class Observer(Protocol):
    """Something that watches the loop: a journal, a progress bar, a keeper."""

    def on_step(self, done: StepDone) -> None:
        """Take note of a step."""

    def on_epoch(self, done: EpochDone) -> None:
        """Take note of an epoch."""


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    train: Epochs,
    val: Epochs,
    plan: Plan,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
) -> list[EpochDone]:
    """Train a network in place and return its history.

    Args:
        model: Any network from pictures to logits.
        optimizer: Over its parameters; the plan sets its rate.
        train: Batches to learn from.
        val: Batches to judge by.
        plan: Duration and rates.
        observers: Told of every step and epoch, in this order.
        stop: Asked before each step; True ends the loop at once, between steps.

    Raises:
        NonFiniteError: The loss blew up; names epoch and step.
    """
    history: list[EpochDone] = []
    total = plan.epochs * len(train)
    began = time.perf_counter()
    for epoch in range(plan.epochs):
        model.train()
        losses, pictures = 0.0, 0
        for i, (x, y) in enumerate(train(epoch)):
            if stop():
                return history
            step = epoch * len(train) + i
            rate = plan.lr * plan.schedule(step / max(total - 1, 1))
            set_rate(optimizer, rate)
            try:
                loss = train_step(
                    model, x, y, optimizer, plan.label_smoothing, plan.classes
                )
            except NonFiniteError as error:
                where = f"epoch {epoch + 1}, step {i + 1}"
                raise NonFiniteError(error.what, where=where, fix=error.fix) from error
            losses, pictures = losses + loss * len(y), pictures + len(y)
            seconds = time.perf_counter() - began
            done = StepDone(epoch, step, loss, rate, len(y), seconds)
            for observer in observers:
                observer.on_step(done)
        judged = _judge(model, val(0), f"epoch {epoch + 1}, after step {i + 1}")
        history.append(
            EpochDone(
                epoch=epoch,
                train_loss=losses / pictures,
                val_loss=judged.loss,
                val_accuracy=judged.accuracy,
                val_balanced=judged.balanced_accuracy,
                lr=rate,
                seconds=time.perf_counter() - began,
                best=_is_best(judged, history, plan.balanced),
            )
        )
        for observer in observers:
            observer.on_epoch(history[-1])
        if plan.patience and _waited(history) >= plan.patience:
            break
    return history


def _judge(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], where: str
) -> Outputs:
    judged = evaluate(model, batches)
    if not math.isfinite(judged.loss):
        what = f"the validation loss became {judged.loss}"
        raise NonFiniteError(what, where=where, fix=LOWER_LR)
    return judged


def _is_best(judged: Outputs, history: Sequence[EpochDone], balanced: bool) -> bool:
    # Small validation parts tie often; the lower loss then decides.
    accuracy = judged.balanced_accuracy if balanced else judged.accuracy
    merit = (accuracy, -judged.loss)
    return all(
        merit > (done.val_balanced if balanced else done.val_accuracy, -done.val_loss)
        for done in history
    )


def _waited(history: Sequence[EpochDone]) -> int:
    best = max(i for i, done in enumerate(history) if done.best)
    return len(history) - 1 - best
