"""Inception module (Szegedy et al. 2014, section 4, figure 2b)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Widths:
    """A module's row of the paper's table 1: channels, in the table's order.

    Example:
        >>> Widths(64, 96, 128, 16, 32, 32).total
        256
    """

    one: int
    reduce3: int
    three: int
    reduce5: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        """Channels after concatenation."""
        return self.one + self.three + self.five + self.pool


def unit(
    channels: int,
    width: int,
    kernel: int = 1,
    stride: int = 1,
    norm: bool = False,
) -> nn.Sequential:
    """Return convolution, batch norm if wanted, ReLU; padding (f − 1)/2.

    A batch norm takes the convolution's bias away, and averages with ε = 10⁻³, both
    as the public weights have it.

    Shapes:
        (N, channels, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)
    """
    padding = (kernel - 1) // 2
    conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=not norm)
    if not norm:
        return nn.Sequential(OrderedDict(conv=conv, relu=nn.ReLU()))
    middle = nn.BatchNorm2d(width, eps=1e-3)
    return nn.Sequential(OrderedDict(conv=conv, norm=middle, relu=nn.ReLU()))


class Inception(nn.Module):
    """Four branches side by side: 1×1, 3×3, 5×5 and a pool, concatenated.

    A 1×1 goes before each larger window, and after the pool, to keep channels few:
    28×28×192 → 5×5×32 costs 120,422,400 MACs, by way of 16 channels 12,443,648.

    Args:
        channels: Channels of x.
        widths: The row of table 1.
        kernel: Side of the "5×5" window; the public weights have 3.
        norm: Batch norm in every unit.

    Shapes:
        (N, C, H, W) → (N, widths.total, H, W)

    Example:
        >>> block = Inception(192, Widths(64, 96, 128, 16, 32, 32))
        >>> block(torch.zeros(1, 192, 7, 7)).shape
        torch.Size([1, 256, 7, 7])
    """

    def __init__(
        self, channels: int, widths: Widths, kernel: int = 5, norm: bool = False
    ) -> None:
        super().__init__()
        self.one = unit(channels, widths.one, norm=norm)
        self.three = _reduced(channels, widths.reduce3, widths.three, 3, norm)
        self.five = _reduced(channels, widths.reduce5, widths.five, kernel, norm)
        self.pool = nn.Sequential(
            OrderedDict(
                pool=nn.MaxPool2d(3, stride=1, padding=1),
                project=unit(channels, widths.pool, norm=norm),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the branches and stack their channels in the table's order."""
        branches = [self.one(x), self.three(x), self.five(x), self.pool(x)]
        return torch.cat(branches, dim=1)


def _reduced(
    channels: int, narrow: int, wide: int, kernel: int, norm: bool
) -> nn.Sequential:
    return nn.Sequential(
        OrderedDict(
            reduce=unit(channels, narrow, norm=norm),
            main=unit(narrow, wide, kernel, norm=norm),
        )
    )
