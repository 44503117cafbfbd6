"""Gradient accumulation: forward and backward pass of a batch in micro-batches."""

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
    loss_fn: Loss = F.cross_entropy,
    micro_batches: int = 1,
    sum_gradients: bool = False,
) -> float:
    """Add the gradients of a batch to `.grad` and return the mean loss in nats.

    With `sum_gradients`, these are the gradients of the summed loss.
    """
    scale = float(len(x)) if sum_gradients else 1.0
    if micro_batches == 1:
        loss = batch_loss(model, x, y, loss_fn)
        scaled_backward(loss, scale)
        return loss.item()
    total = 0.0
    splits = (tensor.tensor_split(micro_batches) for tensor in (x, y))
    for images, labels in zip(*splits, strict=True):
        share = len(images) / len(x)
        loss = batch_loss(model, images, labels, loss_fn)
        scaled_backward(loss, share * scale)
        total += loss.item() * share
    return total


def batch_loss(
    model: Callable[[Tensor], Any], x: Tensor, y: Tensor, loss_fn: Loss
) -> Tensor:
    """Return the mean loss of a batch in nats, including auxiliary heads."""
    return total_loss(loss_fn, model(x), y)


def scaled_backward(loss: Tensor, scale: float = 1.0) -> None:
    """Run the backward pass of a loss multiplied by `scale`."""
    scaled = loss if scale == 1.0 else loss * scale
    scaled.backward()  # type: ignore[no-untyped-call]


def possible_micro_batches(images: int, micro_batches: int) -> int:
    """Return the number of micro-batches, reduced so that each has two or more images.

    Example:
        >>> [possible_micro_batches(images, 4) for images in (64, 5, 1)]
        [4, 2, 1]
    """
    return max(1, min(micro_batches, images // 2))
