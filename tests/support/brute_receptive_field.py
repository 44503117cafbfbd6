"""Receptive fields by brute force: the inputs with a gradient, all weights positive."""

from __future__ import annotations

import torch
from torch import nn


def positive(model: nn.Module) -> nn.Module:
    """Make every weight positive, so that no two paths cancel."""
    model = model.double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.uniform_(0.5, 1.0)
    return model


def boxes(model: nn.Module, shape: tuple[int, int, int], unit: tuple[int, int]):
    """Return ((first row, last row), (first column, last column)) of a unit's inputs.

    None for a unit that no input reaches.
    """
    image = torch.ones(1, *shape, dtype=torch.double, requires_grad=True)
    out = model(image * 1)
    assert out.dim() == 4
    total = out[0, :, unit[0], unit[1]].sum()
    if not total.requires_grad:
        return None
    total.backward()
    reached = (image.grad[0] != 0).any(0)
    if not reached.any():
        return None
    return tuple(
        (int(at.nonzero()[0]), int(at.nonzero()[-1]))
        for at in (reached.any(1), reached.any(0))
    )
