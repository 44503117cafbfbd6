"""BlurPool: low-pass filter before subsampling, to avoid aliasing (Zhang 2019)."""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError, SettingError
from striate.core.format import count_text


class BlurPool(nn.Module):
    """Filter each channel with binomial weights, then subsample by `stride`.

    Replace max pooling with stride 2 by `MaxPool2d(2, stride=1)` and `BlurPool`.
    Replace a convolution with stride 2 by stride 1, ReLU and `BlurPool`.

    Args:
        channels: Number of channels; each channel is filtered separately.
        kernel_size: Side f of the filter; weights are row f − 1 of Pascal's triangle.
        stride: Subsampling factor, for rows and for columns.

    Shapes:
        (N, C, H, W) → (N, C, ⌈H/s⌉, ⌈W/s⌉), with mirrored borders

    Raises:
        GeometryError: The image is too small to mirror its border, or has another
            number of channels.

    Example:
        >>> blur = BlurPool(1, 3)
        >>> blur(torch.ones(1, 1, 5, 5)).flatten().tolist()
        [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """

    weight: Tensor

    def __init__(self, channels: int, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        if kernel_size < 1 or stride < 1:
            got = f"{kernel_size} and {stride}"
            what = f"needs kernel_size ≥ 1 and stride ≥ 1, got {got}"
            raise SettingError(what, where="BlurPool")
        row = [comb(kernel_size - 1, i) for i in range(kernel_size)]
        line = torch.tensor(row, dtype=torch.float32) / sum(row)
        filters = torch.outer(line, line).expand(channels, 1, -1, -1).contiguous()
        self.register_buffer("weight", filters, persistent=False)
        self.stride = stride
        before = (kernel_size - 1) // 2
        self.padding = (before, kernel_size - 1 - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        """Filter and subsample the input."""
        channels, margin = self.weight.shape[0], max(self.padding)
        if x.shape[1] != channels:
            raise GeometryError(
                f"BlurPool got {count_text(x.shape[1], 'channel')}, not {channels}"
            )
        if min(x.shape[-2:]) <= margin:
            got = f"{x.shape[-2]}×{x.shape[-1]}"
            what = f"BlurPool got {got}, needs height and width ≥ {margin + 1}"
            raise GeometryError(what)
        padded = F.pad(x, self.padding, mode="reflect")
        return F.conv2d(padded, self.weight, stride=self.stride, groups=channels)

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        channels, _, side, _ = self.weight.shape
        return f"{channels}, kernel_size={side}, stride={self.stride}"
