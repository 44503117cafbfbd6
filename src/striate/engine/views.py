"""Test-time views: what a network says about a picture seen in more than one way."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from striate.core.registry import Registry

View = Callable[[nn.Module, Tensor], Tensor]
VIEWS: Registry[View] = Registry("test view")


@VIEWS.add("plain")
def plain(model: nn.Module, x: Tensor) -> Tensor:
    """Ask once."""
    out: Tensor = model(x)
    return out


@VIEWS.add("mirror")
def mirror(model: nn.Module, x: Tensor) -> Tensor:
    """Ask about a picture and its mirror image, and average the logits.

    Twice the time of an answer (Krizhevsky, Sutskever & Hinton 2012, section 4.1).

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> import torch
        >>> x = torch.rand(2, 1, 3, 4)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> bool(torch.allclose(mirror(model, x), mirror(model, x.flip(3))))
        True
    """
    out: Tensor = (model(x) + model(x.flip(3))) / 2
    return out
