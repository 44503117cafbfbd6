"""Auxiliary heads: output of a network with auxiliary heads, and its total loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from striate.core.logits import main_output

if TYPE_CHECKING:
    from torch import Tensor

    Loss = Callable[[Tensor, Tensor], Tensor]


class HeadOutputs(NamedTuple):
    """Logits of the main head and of the auxiliary heads."""

    logits: Tensor  # logits of the main head
    # logits of the auxiliary heads, from the input to the output
    auxiliary: tuple[Tensor, ...]
    weight: float  # factor that each auxiliary loss is multiplied by


def total_loss(loss: Loss, output: object, target: Tensor) -> Tensor:
    """Return the loss of a network output, including the losses of auxiliary heads.

    For a plain tensor this is `loss(output, target)`. The weighted losses of auxiliary
    heads are added, as in GoogLeNet (Szegedy et al. 2014, section 5). Of another
    container, such as a tuple (logits, …), only the logits count.

    Example:
        >>> import torch
        >>> pair = HeadOutputs(torch.tensor(1.0), (torch.tensor(2.0),), 0.5)
        >>> total_loss(torch.sub, pair, torch.tensor(0.0))
        tensor(2.)
    """
    if not isinstance(output, HeadOutputs):
        return loss(main_output(output), target)
    total = loss(output.logits, target)
    for logits in output.auxiliary:
        total = total + output.weight * loss(logits, target)
    return total
