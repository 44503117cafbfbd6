"""Learning-rate finder (LR range test): measures the loss while the rate increases.

Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.optim import set_lr
from striate.engine.recoverable_step import RecoverableStep
from striate.engine.rng import preserve_rng_state

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss

STEPS = 100
MIN_LR, MAX_LR = 1e-5, 10.0
SMOOTHING = 0.9  # of the loss, from step to step
DIVERGED = 1.5  # times the first loss: the test ends
# Of the rate where the loss was lowest: see docs/notebook/accuracy-recipes.md.
SHARE = 1 / 4

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class LRPoint:
    """Learning rate and smoothed loss at one step of the LR range test."""

    lr: float
    loss: float


def lr_range_test(
    model: nn.Module,  # the network before training
    # Creates the optimizer for the parameters of the copy.
    make_optimizer: Callable[[nn.Module], Optimizer],
    batches: Batches,  # returns the batches of an epoch, given the epoch number
    loss_fn: Loss,  # loss function of the run
    *,
    seed: int = 0,  # random seed of the run
    # Maximum number of steps; the test ends early at 1.5 times the first loss.
    steps: int = STEPS,
    micro_batches: int = 1,  # number of micro-batches, see `train_step`
) -> list[LRPoint]:
    """Train a copy of a network while the learning rate increases from 10⁻⁵ to 10.

    The copy is discarded; the model and the RNG state do not change. The test ends
    early at 1.5 times the first loss.
    """
    trial = copy.deepcopy(model).train()
    optimizer = make_optimizer(trial)
    endless = chain.from_iterable(map(batches, count()))
    points: list[LRPoint] = []
    mean = weight = 0.0
    with preserve_rng_state():
        train_step = RecoverableStep(
            trial, optimizer, loss_fn, seed=seed, micro_batches=micro_batches
        )
        for step, (x, y) in enumerate(islice(endless, steps)):
            lr = MIN_LR * (MAX_LR / MIN_LR) ** (step / (steps - 1))
            set_lr(optimizer, lr)
            try:
                loss = train_step(x, y, step)
            except NonFiniteError:
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            weight = SMOOTHING * weight + (1 - SMOOTHING)
            points.append(LRPoint(lr=lr, loss=mean / weight))
            if points[-1].loss > DIVERGED * points[0].loss:
                break
    return points


def suggest_lr(points: list[LRPoint]) -> float | None:
    """Return a suggested learning rate: a quarter of the rate with the lowest loss.

    Return None if the loss never fell by 1 %.

    Example:
        >>> losses = {0.001: 2.3, 0.01: 2.0, 0.1: 1.5, 1.0: 3.0}
        >>> suggest_lr([LRPoint(lr=lr, loss=loss) for lr, loss in losses.items()])
        0.025
    """
    if not points:
        return None
    lowest = min(points, key=lambda point: point.loss)
    improved = lowest.loss < 0.99 * points[0].loss
    return float(f"{SHARE * lowest.lr:.2g}") if improved else None
