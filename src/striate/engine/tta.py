"""Test-time views: what a network says about an image seen in more than one way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from striate.core.registry import Registry

TTA = Callable[[nn.Module, Tensor], Tensor]
TTA_MODES: Registry[TTA] = Registry("test view")


@TTA_MODES.add("plain")
def no_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Ask once."""
    out: Tensor = model(x)
    return out


@TTA_MODES.add("flip")
def flip_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Ask about an image and its mirror image, and average the logits.

    Twice the time of an answer (Krizhevsky, Sutskever & Hinton 2012, section 4.1).

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> x = torch.rand(2, 1, 3, 4)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> bool(torch.allclose(flip_tta(model, x), flip_tta(model, x.flip(3))))
        True
    """
    out: Tensor = (model(x) + model(x.flip(3))) / 2
    return out


@TTA_MODES.add("mirror_shift")
def flip_shift_tta(model: nn.Module, x: Tensor) -> Tensor:
    """Ask about an image as it is and a pixel up, down, left, right, all mirrored too.

    Ten times the time of an answer. What moves out is lost; the edge is repeated where
    something must move in. For networks that reduce small images early, so that a
    pixel counts: each answer has seen other samples
    (docs/notebook/accuracy-recipes.md).

    Shapes:
        (N, C, H, W) → (N, classes)

    Example:
        >>> x = torch.rand(2, 1, 3, 4)
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> flip_shift_tta(model, x).shape
        torch.Size([2, 5])
    """
    views = [x, *_shifted(x)]
    return torch.stack([flip_tta(model, view) for view in views]).mean(0)


def _shifted(x: Tensor) -> list[Tensor]:
    """Return images moved by a pixel in each of four directions."""
    height, width = x.shape[2:]
    wide = pad(x, (1, 1, 1, 1), mode="replicate")
    places = (0, 1), (2, 1), (1, 0), (1, 2)
    return [wide[:, :, i : i + height, j : j + width] for i, j in places]
