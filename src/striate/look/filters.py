"""The first layer's filters: the only ones that can be read as pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from striate.look.raster import enlarge, signed, tile

DRAWN = 24  # pixels a filter is drawn high, at least


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Return the first convolution's name and module, in the order of definition.

    Example:
        >>> first_convolution(nn.Sequential(nn.ReLU(), nn.Conv2d(1, 2, 3)))[0]
        '1'
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    return None


def filter_tiles(weight: Tensor, limits: Tensor | None = None) -> list[np.ndarray]:
    """Draw each filter: three channels as colour, others side by side, signed.

    Args:
        weight: (filters, channels, height, width).
        limits: Largest magnitude of each filter's scale; its own where not given.

    Returns:
        One uint8 picture a filter, at least `DRAWN` pixels high.
    """
    weight = weight.detach().float().cpu()
    limits = filter_limits(weight) if limits is None else limits
    return [
        _draw(kernel.numpy(), float(limit))
        for kernel, limit in zip(weight, limits, strict=True)
    ]


def filter_limits(*weights: Tensor) -> Tensor:
    """Return each filter's largest magnitude over all the versions given."""
    stacked = torch.stack([w.detach().float().cpu() for w in weights])
    return stacked.abs().amax(dim=(0, 2, 3, 4))


def _draw(kernel: np.ndarray, limit: float) -> np.ndarray:
    if len(kernel) == 3:
        levels = 127.5 * (1 + kernel.transpose(1, 2, 0) / (limit or 1.0))
        return enlarge(np.clip(levels, 0, 255).round().astype(np.uint8), DRAWN)
    planes = [enlarge(signed(plane, limit), DRAWN) for plane in kernel]
    return tile(planes, columns=8, gap=1)
