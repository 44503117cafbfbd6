"""The algorithm of the notes, on one screen.

Choose hyper-parameters, initialize; then: take a mini-batch, run it forward, softmax,
cost, back-propagate, update; repeat. After each epoch the validation split is judged,
and nothing but it decides which weights are best and when to stop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.core.hooks import untouched
from striate.engine.distributed.gradients import Exchange
from striate.engine.distributed.group import RankGroup
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.execution import ExecutionConfig
from striate.engine.loss import ClassCost, softmax_cost
from striate.engine.nonfinite import LOSS, first_bad_layer
from striate.engine.optim import set_rate
from striate.engine.schedule import Schedule
from striate.engine.step import LOWER_LR
from striate.engine.stepper import USUAL, Stepper
from striate.engine.train_state import EpochDone, Observer, StepDone, TrainState
from striate.engine.tta import View, plain

Batch = tuple[Tensor, Tensor]
Blown = Callable[[NonFiniteError, TrainState], None]


class Epochs(Protocol):
    """Batches that can be gone through once an epoch, from any of them on."""

    def __call__(self, epoch: int, start: int = 0) -> Iterable[Batch]:
        """Yield the (input, label) batches of an epoch, the first `start` left out."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How long and how fast to learn.

    Args:
        epochs: Times through the training split, at most.
        lr: The schedule's largest learning rate.
        schedule: Progress (0–1) to a factor of `lr`.
        label_smoothing: Share of the target spread over all classes.
        patience: Epochs without improvement before stopping; 0 never stops early.
        classes: Makes up in the cost for uneven classes.
        balanced: Judge epochs by the balanced accuracy, so that weights which forget
            a rare class are not the best.
        view: How an image is shown when the network is judged.
        seed: What layers draw, dropout's above all, is a function of it and the step.
        pieces: Runs through the network a step, of as many fewer images each.
        way: How the network is run.
    """

    epochs: int
    lr: float
    schedule: Schedule
    label_smoothing: float = 0.0
    patience: int = 0
    classes: ClassCost | None = None
    balanced: bool = False
    view: View = plain
    seed: int = 0
    pieces: int = 1
    way: ExecutionConfig = USUAL


class StoppedError(Exception):
    """Someone asked the loop to stop."""


def stop_there(error: NonFiniteError, at: TrainState) -> None:
    """Let numbers that are none end the run; to return instead skips the batch."""
    raise error


def fit(
    model: nn.Module,
    optimizer: Optimizer,
    train: Epochs,
    val: Epochs,
    plan: FitConfig,
    observers: Sequence[Observer] = (),
    stop: Callable[[], bool] = lambda: False,
    at: TrainState | None = None,
    blown: Blown = stop_there,
    judged: nn.Module | None = None,
    ranks: RankGroup | None = None,
) -> list[EpochDone]:
    """Train a network in place and return its history.

    Args:
        model: Any network from images to logits.
        optimizer: Over its parameters; the plan sets its rate.
        train: Batches to learn from.
        val: Batches to judge by.
        plan: Duration and rates.
        observers: Told of every step and epoch, in this order.
        stop: Asked before each batch; True ends the loop at once, between steps.
        at: Where to begin; kept up to date, so that it says how far the run is.
        blown: Told of a step that blew up and changed nothing; raises or returns.
        judged: The network that is judged, where it is another: an average of this.
        ranks: The processes that learn this together; `train` and `val` then give
            this one's share of each batch.

    Raises:
        NonFiniteError: A loss or gradient blew up; names epoch, step and layer.
        RankError: Another process has died, hung or failed.
    """
    at = at or TrainState()
    ranks = ranks if ranks and ranks.world > 1 else None
    total = plan.epochs * len(train)
    cost_of = softmax_cost(plan.label_smoothing, plan.classes)
    exchange = Exchange(ranks, model, optimizer, stop) if ranks else None
    rank = ranks.place.rank if ranks else 0
    how = rank, plan.pieces, exchange, plan.way
    learn = Stepper(model, optimizer, cost_of, plan.seed, *how)
    asked, ask = (exchange.stopped, exchange.agree) if exchange else (stop, stop)
    with suppress(StoppedError):
        while not at.finished(plan.epochs, plan.patience):
            model.train()
            for x, y in _until(asked, train(at.epoch, at.batch)):
                rate = at.brake * plan.lr * plan.schedule(at.step / max(total - 1, 1))
                set_rate(optimizer, rate)
                try:
                    loss = learn(x, y, at.step)
                except NonFiniteError as error:
                    error.where = f"epoch {at.epoch + 1}, step {at.batch + 1}"
                    blown(error, at)
                    loss = math.nan
                done = StepDone(at.epoch, at.batch, at.step, loss, rate, learn.images)
                at.step_done(loss, rate, learn.images)
                for observer in observers:
                    observer.on_step(done)
            if exchange:
                exchange.check_equal()
            found = _judge(judged or model, val, ask, at, plan.view, ranks)
            figures = found.loss, found.accuracy, found.balanced_accuracy
            ended = at.epoch_done(*figures, by_balanced=plan.balanced)
            for observer in observers:
                observer.on_epoch(ended)
    return at.history


def _until(stop: Callable[[], bool], batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop():
            raise StoppedError
        yield batch


def _judge(
    model: nn.Module,
    val: Epochs,
    stop: Callable[[], bool],
    at: TrainState,
    view: View,
    ranks: RankGroup | None,
) -> Outputs:
    judged = evaluate(model, _until(stop, val(0)), view, ranks)
    if math.isfinite(judged.loss):
        return judged
    with untouched(model):
        layers = (first_bad_layer(model, x)[0] for x, y in val(0) if len(y))
        layer = next(filter(None, layers), "")
    if ranks:
        found = ranks.words(layer, "where numbers went wrong")
        layer = next(filter(None, found), "")
    layer = layer or LOSS
    what = f"the validation loss became {judged.loss}, first in {layer}"
    where = f"epoch {at.epoch + 1}, after step {at.batch}"
    error = NonFiniteError(what, where=where, fix=LOWER_LR)
    error.split, error.layer = "val", layer
    error.rows = tuple((~judged.losses.isfinite()).nonzero().flatten().tolist())
    raise error
