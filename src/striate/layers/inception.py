"""Inception module (Szegedy et al. 2014, section 4, figure 2b)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class InceptionWidths:
    """Channel counts of one Inception module: one row of the paper's table 1.

    Example:
        >>> InceptionWidths(64, 96, 128, 16, 32, 32).total
        256
    """

    ch1x1: int
    ch3x3_reduce: int
    ch3x3: int
    ch5x5_reduce: int
    ch5x5: int
    pool_proj: int

    @property
    def total(self) -> int:
        """Number of channels after concatenation."""
        return self.ch1x1 + self.ch3x3 + self.ch5x5 + self.pool_proj


def conv_relu(
    channels: int, width: int, kernel: int = 1, stride: int = 1, norm: bool = False
) -> nn.Sequential:
    """Return convolution, batch norm (if `norm`) and ReLU; padding (kernel − 1)/2.

    With batch norm the convolution has no bias, and ε is 10⁻³, as in the public
    weights.

    Shapes:
        (N, channels, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)
    """
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=not norm)
    if not norm:
        return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))
    bn = nn.BatchNorm2d(width, eps=1e-3)
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU()))


class Inception(nn.Module):
    """Inception module: parallel 1×1, 3×3, 5×5 and pooling branches, concatenated.

    A 1×1 convolution before each larger kernel and after the pool reduces the channels.
    A 5×5×32 on 28×28×192 has 120,422,400 MACs; after a 1×1×16, both have 12,443,648.

    Args:
        channels: Number of input channels.
        widths: The row of table 1.
        kernel: Side of the "5×5" kernel; 3 in the public weights.
        norm: Whether batch norm follows every convolution.

    Shapes:
        (N, C, H, W) → (N, widths.total, H, W)

    Example:
        >>> block = Inception(192, InceptionWidths(64, 96, 128, 16, 32, 32))
        >>> block(torch.zeros(1, 192, 7, 7)).shape
        torch.Size([1, 256, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        widths: InceptionWidths,
        kernel: int = 5,
        norm: bool = False,
    ) -> None:
        super().__init__()
        conv, w = partial(conv_relu, norm=norm), widths
        self.branch1 = conv(channels, w.ch1x1)
        self.branch2 = nn.Sequential(
            conv(channels, w.ch3x3_reduce), conv(w.ch3x3_reduce, w.ch3x3, 3)
        )
        self.branch3 = nn.Sequential(
            conv(channels, w.ch5x5_reduce), conv(w.ch5x5_reduce, w.ch5x5, kernel)
        )
        pool = nn.MaxPool2d(3, stride=1, padding=1)
        self.branch4 = nn.Sequential(pool, conv(channels, w.pool_proj))

    def forward(self, x: Tensor) -> Tensor:
        """Run all branches and concatenate the outputs along channels."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], dim=1)
