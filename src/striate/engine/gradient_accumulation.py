"""Gradient accumulation: forward and backward of a batch in micro-batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from striate.core.aux_heads import total_loss

if TYPE_CHECKING:
    from collections.abc import Callable

    from striate.core.aux_heads import Loss


def accumulate_gradients(
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
        cost = batch_loss(model, x, y, cost_of)
        scaled_backward(cost, scale)
        return cost.item()
    total = 0.0
    pairs = zip(x.tensor_split(pieces), y.tensor_split(pieces), strict=True)
    for some, theirs in pairs:
        share = len(some) / len(x)
        cost = batch_loss(model, some, theirs, cost_of)
        scaled_backward(cost, share * scale)
        total += cost.item() * share
    return total


def batch_loss(
    model: Callable[[Tensor], Any], x: Tensor, y: Tensor, cost_of: Loss
) -> Tensor:
    """Return the mean cost in nats of what the network says of a batch."""
    return total_loss(cost_of, model(x), y)


def scaled_backward(cost: Tensor, scale: float = 1.0) -> None:
    """Add a cost's gradients, so many times, to the parameters'."""
    scaled = cost if scale == 1.0 else cost * scale
    scaled.backward()  # type: ignore[no-untyped-call]


def possible_micro_batches(images: int, pieces: int) -> int:
    """Return in how many pieces a batch can be learned from, two images in each.

    Example:
        >>> [possible_micro_batches(images, 4) for images in (64, 5, 1)]
        [4, 2, 1]
    """
    return max(1, min(pieces, images // 2))
