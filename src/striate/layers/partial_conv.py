"""Convolution with partial connections between input and output maps (LeNet-5)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.format import count_text

# LeCun et al. 1998, table I: which of S2's six maps each of C3's sixteen maps reads.
LENET_C3 = (
    *((i, (i + 1) % 6, (i + 2) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 2) % 6, (i + 3) % 6) for i in range(6)),
    *((i, (i + 1) % 6, (i + 3) % 6, (i + 4) % 6) for i in range(3)),
    (0, 1, 2, 3, 4, 5),
)


class PartialConv2d(nn.Module):
    """Convolution in which each output map reads only some of the input maps.

    Only existing connections have weights, so the parameter count is as in the paper:
    Σ over maps of (f·f·inputs + 1). The forward pass copies the weights into one dense
    kernel, so that torch's fast convolution can be used.

    Args:
        table: Indices of the input maps that each output map reads.
        kernel_size: Kernel side.

    Shapes:
        (N, C_in, H, W) → (N, len(table), H − f + 1, W − f + 1)

    Raises:
        GeometryError: The input has a wrong number of maps.

    Example:
        >>> layer = PartialConv2d(LENET_C3, kernel_size=5)
        >>> sum(p.numel() for p in layer.parameters())
        1516
        >>> layer(torch.zeros(1, 6, 14, 14)).shape
        torch.Size([1, 16, 10, 10])
    """

    index: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel_size: int) -> None:
        super().__init__()
        self.in_channels = 1 + max(max(inputs) for inputs in table)
        self.out_channels = len(table)
        self.kernel_size = kernel_size
        outputs = enumerate(table)
        pairs = [out * self.in_channels + i for out, inputs in outputs for i in inputs]
        self.fan_in = [kernel_size**2 * len(inputs) for inputs in table for _ in inputs]
        self.weight = nn.Parameter(torch.empty(len(pairs), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(self.out_channels))
        self.register_buffer("index", torch.tensor(pairs), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize weights uniformly within ±2.4/fan_in (LeNet-5, appendix A)."""
        bound = 2.4 / torch.tensor(self.fan_in).view(-1, 1, 1)
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(bound)
            self.bias.zero_()

    def dense_weight(self) -> Tensor:
        """Return the equivalent dense kernel, with zeros for missing connections."""
        side = self.kernel_size
        full = self.weight.new_zeros(self.out_channels * self.in_channels, side, side)
        full = full.index_copy(0, self.index, self.weight)
        return full.view(self.out_channels, self.in_channels, side, side)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve each output map over the connected input maps."""
        if x.shape[1] != self.in_channels:
            what = (
                f"PartialConv2d got {count_text(x.shape[1], 'channel')}, "
                f"not {self.in_channels}"
            )
            raise GeometryError(what)
        return F.conv2d(x, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        connections = len(self.index)
        shape = f"{self.in_channels}, {self.out_channels}"
        return f"{shape}, kernel_size={self.kernel_size}, connections={connections}"
