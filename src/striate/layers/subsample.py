"""Trainable subsampling of LeNet-5, with a gain and a bias per map (1998, II.B)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Subsample2d(nn.Module):
    """Sum each window, then multiply by a trainable gain and add a trainable bias.

    The windows do not overlap; rows and columns after the last window are dropped.

    Args:
        channels: Number of maps; each has its own gain and bias.
        kernel_size: Window side and stride.

    Shapes:
        (N, C, H, W) → (N, C, ⌊H/f⌋, ⌊W/f⌋)

    Example:
        >>> layer = Subsample2d(6)
        >>> sum(p.numel() for p in layer.parameters())
        12
    """

    def __init__(self, channels: int, kernel_size: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        # A mean at the start: the sum of f·f values times 1/(f·f).
        self.weight = nn.Parameter(torch.full((channels,), 1.0 / kernel_size**2))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Subsample every map."""
        mean = F.avg_pool2d(x, self.kernel_size)
        gain = self.weight * self.kernel_size**2
        return mean * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"{self.weight.numel()}, kernel_size={self.kernel_size}"
