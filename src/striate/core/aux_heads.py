"""Auxiliary heads: the output of a network that has them, and the summed loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]


class HeadOutputs(NamedTuple):
    """Logits of the main head and of the auxiliary heads.

    Args:
        logits: Of the main head.
        auxiliary: Of the auxiliary heads, earliest first.
        weight: Factor on each auxiliary loss.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float


def total_loss(loss: Loss, output: Tensor | HeadOutputs, target: Tensor) -> Tensor:
    """Return the loss of a network's training output, auxiliary heads included.

    A plain tensor gives `loss(output, target)`; auxiliary heads add their weighted
    losses, as GoogLeNet's do (Szegedy et al. 2014, section 5).

    Example:
        >>> import torch
        >>> pair = HeadOutputs(torch.tensor(1.0), (torch.tensor(2.0),), 0.5)
        >>> total_loss(torch.sub, pair, torch.tensor(0.0))
        tensor(2.)
    """
    if not isinstance(output, HeadOutputs):
        return loss(output, target)
    total = loss(output.logits, target)
    for logits in output.auxiliary:
        total = total + output.weight * loss(logits, target)
    return total
