"""Learning-rate range test: how the cost moves as the rate grows, on copies.

Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.optim import set_lr
from striate.engine.rng import preserve_rng_state
from striate.engine.stepper import Stepper

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss

STEPS = 100
MIN_LR, MAX_LR = 1e-5, 10.0
SMOOTHING = 0.9  # of the cost, from step to step
DIVERGED = 1.5  # times the first cost: there is nothing left to see
# Of the rate where the loss was lowest: see docs/notebook/accuracy-recipes.md.
SHARE = 1 / 4

Batches = Callable[[int], Iterable[tuple[Tensor, Tensor]]]


@dataclass(frozen=True, kw_only=True)
class LRPoint:
    """A step of the test: its rate, and the cost, smoothed over the steps before."""

    lr: float
    cost: float


def lr_range_test(
    model: nn.Module,
    make: Callable[[nn.Module], Optimizer],
    batches: Batches,
    cost_of: Loss,
    *,
    seed: int = 0,
    steps: int = STEPS,
    pieces: int = 1,
) -> list[LRPoint]:
    """Learn with rates from 10⁻⁵ to 10, each step's a little higher; say what came.

    Model, random states and batch norms are left as they are to the bit: a copy
    learns, and is thrown away.

    Args:
        model: As it is before it learns.
        make: Makes the optimizer of the run, over the copy.
        batches: Of an epoch, a function of its number.
        cost_of: What the run pays.
        seed: Of the run.
        steps: At most; it ends early where the cost is 1.5 times the first.
        pieces: Of each step, as the run takes it; see `train_step`.
    """
    learning = copy.deepcopy(model).train()
    optimizer = make(learning)
    tried: list[LRPoint] = []
    mean = weight = 0.0
    with preserve_rng_state():
        learn = Stepper(learning, optimizer, cost_of, seed, pieces=pieces)
        for step, (x, y) in enumerate(islice(_endless(batches), steps)):
            lr = MIN_LR * (MAX_LR / MIN_LR) ** (step / (steps - 1))
            set_lr(optimizer, lr)
            try:
                cost = learn(x, y, step)
            except NonFiniteError:
                break
            mean = SMOOTHING * mean + (1 - SMOOTHING) * cost
            weight = SMOOTHING * weight + (1 - SMOOTHING)
            tried.append(LRPoint(lr=lr, cost=mean / weight))
            if tried[-1].cost > DIVERGED * tried[0].cost:
                break
    return tried


def _endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    for epoch in count():
        yield from batches(epoch)


def suggest_lr(tried: list[LRPoint]) -> float | None:
    """Return the largest rate to learn with: a quarter of where the cost was least.

    None where the cost never fell by a hundredth: there is nothing to go by.

    Example:
        >>> costs = {0.001: 2.3, 0.01: 2.0, 0.1: 1.5, 1.0: 3.0}
        >>> suggest_lr([LRPoint(lr=lr, cost=cost) for lr, cost in costs.items()])
        0.025
    """
    if not tried:
        return None
    least = min(tried, key=lambda one: one.cost)
    fell = least.cost < 0.99 * tried[0].cost
    return float(f"{SHARE * least.lr:.2g}") if fell else None
