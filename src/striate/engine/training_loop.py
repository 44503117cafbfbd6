"""Training loop: trains one epoch after another, with validation after each epoch.

For each mini-batch: forward, loss, backward, update. After each epoch the network is
evaluated on the validation split. Only the validation split decides which weights are
best and when to stop early.
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
from striate.core.hooks import evaluation_mode
from striate.engine.callbacks import Callback, EpochResult
from striate.engine.check_rank_weights import check_equal_weights
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.execution_config import ExecutionConfig
from striate.engine.loss import ClassBalance
from striate.engine.nonfinite import LOSS, first_bad_layer
from striate.engine.optim import set_lr
from striate.engine.recoverable_step import DEFAULT_EXECUTION, RecoverableStep
from striate.engine.schedule import Schedule
from striate.engine.task import SINGLE_LABEL, Task
from striate.engine.train_state import TrainState
from striate.engine.train_step import LOWER_LR
from striate.engine.tta import TTA, no_tta

Batch = tuple[Tensor, Tensor]
OnNonFinite = Callable[[NonFiniteError, TrainState], None]


class Epochs(Protocol):
    """Callable that returns the batches of an epoch, starting at any batch."""

    def __call__(self, epoch: int, start: int = 0) -> Iterable[Batch]:
        """Yield the (input, label) batches of an epoch, from batch `start` on."""
        ...

    def __len__(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of the training loop."""

    epochs: int  # maximum number of epochs
    lr: float  # largest learning rate of the schedule
    schedule: Schedule  # function from progress (0–1) to a factor of `lr`
    label_smoothing: float = 0.0  # share of the target spread over all classes
    # epochs without improvement before stopping; 0: no early stopping
    patience: int = 0
    # correction of the loss for class imbalance; None: no correction
    class_balance: ClassBalance | None = None
    task: Task = SINGLE_LABEL  # one class per image, or several labels
    # choose the best epoch by balanced accuracy, so that rare classes count as much as
    # common ones
    balanced: bool = False
    tta: TTA = no_tta  # test-time augmentation for validation
    seed: int = 0  # random seed of layers such as dropout
    micro_batches: int = 1  # number of micro-batches for gradient accumulation
    execution: ExecutionConfig = DEFAULT_EXECUTION


class StoppedError(Exception):
    """Error raised in the training loop after a stop request."""


def raise_error(error: NonFiniteError, state: TrainState) -> None:
    """Raise the error, so that NaN or infinity ends the run."""
    raise error


@dataclass(frozen=True, kw_only=True)
class FitSession:
    """Options of one call of `fit`: stop check, handling of NaN, and group of ranks."""

    # called before each batch; True ends the loop between two steps
    should_stop: Callable[[], bool] = lambda: False
    # called after a step with NaN or infinity, which is undone. It raises an error to
    # end the run, or returns to skip the batch.
    on_nonfinite: OnNonFinite = raise_error
    eval_model: nn.Module | None = None  # network to validate (EMA), if not the trained
    # the ranks of a distributed run; the batches are then this rank's share
    group: RankGroup = ONE_PROCESS


def fit(
    model: nn.Module,  # any network from images to logits
    optimizer: Optimizer,  # optimizer of the model's parameters; the schedule sets `lr`
    train: Epochs,  # training batches
    val: Epochs,  # validation batches
    config: FitConfig,  # settings of the loop
    *,
    # Callbacks, called in this order after every step and epoch.
    callbacks: Sequence[Callback] = (),
    # Training state to start from, updated in place; default: a new state.
    state: TrainState | None = None,
    # Stop requests, handling of NaN, evaluated network, and ranks.
    session: FitSession = FitSession(),
) -> list[EpochResult]:
    """Train a network in place and return the results of all epochs.

    The callbacks are called in this order after every step and epoch. `state` is the
    training state to start from, updated in place.

    Raises:
        NonFiniteError: A loss or gradient is not finite; names epoch, step and layer.
        RankError: Another rank has died, hung or failed.
    """
    state = state or TrainState()
    total_steps = config.epochs * len(train)
    train_step = RecoverableStep(
        model,
        optimizer,
        config.task.loss(config.label_smoothing, config.class_balance),
        seed=config.seed,
        micro_batches=config.micro_batches,
        group=session.group,
        execution=config.execution,
        should_stop=session.should_stop,
    )
    stop_training, stop_validation = train_step.stop_requests(session.should_stop)
    with suppress(StoppedError):
        while not state.is_finished(config.epochs, config.patience):
            model.train()
            for x, y in _until(stop_training, train(state.epoch, state.batch)):
                progress = state.step / max(total_steps - 1, 1)
                lr = state.lr_scale * config.lr * config.schedule(progress)
                set_lr(optimizer, lr)
                try:
                    loss = train_step(x, y, state.step)
                except NonFiniteError as error:
                    error.where = f"epoch {state.epoch + 1}, step {state.batch + 1}"
                    session.on_nonfinite(error, state)
                    loss = math.nan
                step = state.record_step(loss, lr, train_step.images)
                for callback in callbacks:
                    callback.on_step_end(step)
            check_equal_weights(model, session.group)
            evaluated = model if session.eval_model is None else session.eval_model
            batches = _until(stop_validation, val(0))
            outputs = evaluate(evaluated, batches, config.tta, session.group)
            _check_finite(outputs, evaluated, val, state, session.group)
            epoch = state.record_epoch(
                outputs.loss,
                outputs.accuracy,
                outputs.balanced_accuracy,
                outputs.mean_ap,
                balanced=config.balanced,
            )
            for callback in callbacks:
                callback.on_epoch_end(epoch)
    return state.history


def _until(stop: Callable[[], bool], batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if stop():
            raise StoppedError
        yield batch


def _check_finite(
    outputs: Outputs, model: nn.Module, val: Epochs, state: TrainState, group: RankGroup
) -> None:
    """Raise an error that names bad layer and images if the loss is not finite."""
    if math.isfinite(outputs.loss):
        return
    with evaluation_mode(model, analysis=False):
        layers = (first_bad_layer(model, x)[0] for x, y in val(0) if len(y))
        layer = next(filter(None, layers), "")
    gathered = group.all_gather_object(layer, "the first bad layer")
    layer = next(filter(None, gathered), LOSS)
    what = f"the validation loss became {outputs.loss}, first in {layer}"
    where = f"epoch {state.epoch + 1}, after step {state.batch}"
    error = NonFiniteError(what, where=where, fix=LOWER_LR)
    error.split, error.layer = "val", layer
    error.rows = tuple((~outputs.losses.isfinite()).nonzero().flatten().tolist())
    raise error
