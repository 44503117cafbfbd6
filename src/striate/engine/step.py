"""One step of learning: forward, cost, back-propagation, update."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from striate.core.aux_heads import total_loss
from striate.core.errors import NonFiniteError
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
    value = back_propagate(model, x, y, cost_of, pieces)
    if not math.isfinite(value):
        optimizer.zero_grad()  # its gradients would be blamed for the cost
        raise NonFiniteError(f"the training loss became {value}", fix=LOWER_LR)
    update(optimizer)
    return value


def back_propagate(
    model: Callable[[Tensor], Any],
    x: Tensor,
    y: Tensor,
    cost_of: Loss = F.cross_entropy,
    pieces: int = 1,
    summed: bool = False,
) -> float:
    """Add a batch's gradients to the parameters' and return its mean cost in nats.

    Args:
        model: As for `train_step`.
        x: A batch of inputs.
        y: Its targets.
        cost_of: The mean cost of a batch's logits.
        pieces: So many runs of fewer images, one after the other.
        summed: Gradients of the sum over the images, not of the mean.
    """
    scale = float(len(x)) if summed else 1.0
    if pieces == 1:
        cost = cost_of_batch(model, x, y, cost_of)
        backward(cost, scale)
        return cost.item()
    total = 0.0
    pairs = zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True)
    for some, theirs in pairs:
        share = len(some) / len(x)
        cost = cost_of_batch(model, some, theirs, cost_of)
        backward(cost, share * scale)
        total += cost.item() * share
    return total


def cost_of_batch(
    model: Callable[[Tensor], Any], x: Tensor, y: Tensor, cost_of: Loss
) -> Tensor:
    """Return the mean cost in nats of what the network says of a batch."""
    return total_loss(cost_of, model(x), y)


def backward(cost: Tensor, scale: float = 1.0) -> None:
    """Add a cost's gradients, so many times, to the parameters'."""
    scaled = cost if scale == 1.0 else cost * scale
    scaled.backward()  # type: ignore[no-untyped-call]


def update(optimizer: Optimizer) -> None:
    """Let the optimizer step, if every gradient is finite.

    Raises:
        NonFiniteError: One is not; the weights are as before.
    """
    if not gradients_are_finite(optimizer):
        raise NonFiniteError("a gradient is not finite", fix=LOWER_LR)
    optimizer.step()


def possible_pieces(images: int, pieces: int) -> int:
    """Return in how many pieces a batch can be learned from, two images in each.

    Example:
        >>> possible_pieces(64, 4), possible_pieces(5, 4), possible_pieces(1, 4)
        (4, 2, 1)
    """
    return max(1, min(pieces, images // 2))
