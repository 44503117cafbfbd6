"""One step of learning: forward, cost, back-propagation, update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.engine.gradient_accumulation import accumulate_gradients
from striate.engine.nonfinite import gradients_are_finite

if TYPE_CHECKING:
    from collections.abc import Callable

    from striate.core.aux_heads import Loss

LOWER_LR = "lower --lr; the last good weights are kept"


def train_step(
    model: Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    optimizer: Optimizer,
    cost_of: Loss = F.cross_entropy,
    pieces: int = 1,
) -> float:
    """Learn from one mini-batch and return its mean cost in nats.

    Args:
        model: Any network from (N, C, H, W) to (N, classes); auxiliary heads add
            their share of the cost, see `core.outputs`.
        x: A batch of inputs.
        y: Class numbers (N,), or shares of classes (N, classes) of mixed images.
        optimizer: Over the model's parameters.
        cost_of: What a batch's logits cost, see `engine.cost`.
        pieces: So many runs of fewer images, whose gradients add up to the batch's.

    Raises:
        NonFiniteError: The cost or a gradient is NaN or infinite; the weights are as
            before.
    """
    optimizer.zero_grad()
    value = accumulate_gradients(model, x, y, cost_of, pieces)
    if not math.isfinite(value):
        optimizer.zero_grad()  # its gradients would be blamed for the cost
        raise NonFiniteError(f"the training loss became {value}", fix=LOWER_LR)
    optimizer_step(optimizer)
    return value


def optimizer_step(optimizer: Optimizer) -> None:
    """Let the optimizer step, if every gradient is finite.

    Raises:
        NonFiniteError: One is not; the weights are as before.
    """
    if not gradients_are_finite(optimizer):
        raise NonFiniteError("a gradient is not finite", fix=LOWER_LR)
    optimizer.step()
