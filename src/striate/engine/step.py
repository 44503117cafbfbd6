"""One step of learning: forward, cost, back-propagation, update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.core.outputs import total_loss
from striate.engine.chance import draw_from
from striate.engine.nonfinite import (
    LOSS,
    Buffers,
    first_bad_gradient,
    first_bad_layer,
    gradients_are_finite,
    is_finite,
)
from striate.engine.quick import Quick
from striate.engine.way import Forward, Way

if TYPE_CHECKING:
    from collections.abc import Callable

    from striate.core.outputs import Loss

NOT_AGAIN = "and not when the same batch was run again"
LOWER_LR = "lower --lr; the last good weights are kept"
USUAL = Way()


def train_step(
    model: Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    optimizer: Optimizer,
    cost_of: Loss = F.cross_entropy,
) -> float:
    """Learn from one mini-batch and return its mean cost in nats.

    Args:
        model: Any network from (N, C, H, W) to (N, classes); auxiliary heads add
            their share of the cost, see `core.outputs`.
        x: A batch of inputs.
        y: Class numbers (N,), or shares of classes (N, classes) of mixed pictures.
        optimizer: Over the model's parameters.
        cost_of: What a batch's logits cost, see `engine.cost`.

    Raises:
        NonFiniteError: The cost or a gradient is NaN or infinite; the weights are as
            before.
    """
    cost = _cost(model, x, y, cost_of)
    value = cost.item()
    if not math.isfinite(value):
        raise NonFiniteError(f"the training loss became {value}", fix=LOWER_LR)
    optimizer.zero_grad()
    cost.backward()  # type: ignore[no-untyped-call]
    if not gradients_are_finite(optimizer):
        raise NonFiniteError("a gradient is not finite", fix=LOWER_LR)
    optimizer.step()
    return value


def _cost(
    model: Callable[[Tensor], Any], x: Tensor, y: Tensor, cost_of: Loss
) -> Tensor:
    return total_loss(cost_of, model(x), y)


class Learner:
    """Takes steps whose chance is a function, and leaves no trace of a failed one.

    Args:
        model: Any network.
        optimizer: Over its parameters.
        cost_of: As for `train_step`.
        seed: Of the run.
        rank: Of this process among several; each draws its own.
        way: How the network is run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        cost_of: Loss = F.cross_entropy,
        seed: int = 0,
        rank: int = 0,
        way: Way = USUAL,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.cost_of = cost_of
        self._of = (seed, "layers", rank)
        self._buffers = Buffers(model)
        self._forward = Forward(model, way)
        self._quick = Quick(model, wanted=not way.compiled)

    def __call__(self, x: Tensor, y: Tensor, step: int) -> float:
        """Learn from the batch of a step and return its mean cost in nats.

        Raises:
            NonFiniteError: As `train_step`; names the first bad layer and the bad
                pictures' positions. Weights, buffers and optimiser are as before.
        """
        self._buffers.keep()
        draw_from(x.device, *self._of, step)
        try:
            with self._quick.lent():
                return train_step(self._forward, x, y, self.optimizer, self.cost_of)
        except NonFiniteError as error:
            way = self._forward.way
            # Dropout is to draw what it drew.
            with self._quick.lent(), way.precisely(x.device):
                error.layer, error.rows = self._trace(x, y, step)
            seen = f"first in {error.layer}" if error.layer else NOT_AGAIN
            error.what = f"{error.what}, {seen}"
            self._buffers.put_back()
            self.model.zero_grad()
            raise

    def _trace(self, x: Tensor, y: Tensor, step: int) -> tuple[str, tuple[int, ...]]:
        """Run the batch again, with the same chance, and see where it goes wrong."""
        draw_from(x.device, *self._of, step)
        layer, rows = first_bad_layer(self.model, x)
        if layer:
            return layer, rows
        draw_from(x.device, *self._of, step)
        with torch.no_grad():
            if not is_finite(_cost(self.model, x, y, self.cost_of)):
                return LOSS, ()
        return first_bad_gradient(self.model, x), ()
