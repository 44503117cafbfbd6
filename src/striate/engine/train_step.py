"""One training step: forward, loss, backward, update."""

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
    loss_fn: Loss = F.cross_entropy,
    micro_batches: int = 1,
) -> float:
    """Train on one mini-batch and return the mean loss in nats.

    The model maps (N, C, H, W) to (N, classes); the losses of auxiliary heads are
    added. Targets are class indices (N,), or class probabilities (N, classes) of mixed
    images.

    Raises:
        NonFiniteError: The loss or a gradient is not finite; the weights are
            unchanged.
    """
    optimizer.zero_grad()
    loss = accumulate_gradients(model, x, y, loss_fn, micro_batches)
    if not math.isfinite(loss):
        optimizer.zero_grad()  # else its gradients would be reported, not the loss
        raise NonFiniteError(f"the training loss became {loss}", fix=LOWER_LR)
    optimizer_step(optimizer)
    return loss


def optimizer_step(optimizer: Optimizer) -> None:
    """Update the weights; raise an error if a gradient is not finite."""
    if not gradients_are_finite(optimizer):
        raise NonFiniteError("a gradient became NaN or infinite", fix=LOWER_LR)
    optimizer.step()
