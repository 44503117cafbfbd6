"""One step of learning: forward, cost, back-propagation, update."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.errors import NonFiniteError
from striate.core.outputs import total_loss
from striate.engine.cost import ClassCost, softmax_cost

LOWER_LR = "lower --lr; the last good weights are kept"


def train_step(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: Optimizer,
    label_smoothing: float = 0.0,
    classes: ClassCost | None = None,
) -> float:
    """Learn from one mini-batch and return its mean cost in nats.

    Args:
        model: Any network from (N, C, H, W) to (N, classes); auxiliary heads add
            their share of the cost, see `core.outputs`.
        x: A batch of inputs.
        y: Class numbers (N,), or shares of classes (N, classes) of mixed pictures.
        optimizer: Over the model's parameters.
        label_smoothing: Share of the target spread over all classes (Szegedy 2015).
        classes: Makes up for uneven classes.

    Raises:
        NonFiniteError: The cost is NaN or infinite; the weights are as before.
    """
    cost_of = softmax_cost(label_smoothing, classes)
    cost = total_loss(cost_of, model(x), y)
    value = cost.item()
    if not math.isfinite(value):
        raise NonFiniteError(f"the training loss became {value}", fix=LOWER_LR)
    optimizer.zero_grad()
    cost.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return value
