"""What a network with auxiliary heads returns while it trains, and its loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]


class HeadOutputs(NamedTuple):
    """Logits of the last head, and of those on the way.

    Args:
        logits: What the network answers.
        auxiliary: The same from heads lower down, earliest first.
        weight: Their share in the loss.
    """

    logits: Tensor
    auxiliary: tuple[Tensor, ...]
    weight: float


def total_loss(loss: Loss, output: Tensor | HeadOutputs, target: Tensor) -> Tensor:
    """Return the loss of any network's training output.

    A plain tensor gives `loss(output, target)`; heads on the way add their weighted
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
