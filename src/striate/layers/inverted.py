"""Inverted residual (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, section 3.4)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class InvertedResidual(nn.Module):
    """1×1 up, 3×3 depth-wise, 1×1 down without activation; x added where shapes agree.

    The shortcut joins the thin ends, hence "inverted"; the last 1×1 is linear, because
    a ReLU on few channels loses what it cuts (section 3.2). Factor 1 has no 1×1 up.

    Args:
        channels: Channels of x.
        out_channels: Channels to reach.
        stride: Step of the depth-wise convolution.
        expand: Factor t of the first 1×1.

    Shapes:
        (N, C, H, W) → (N, C_out, ⌈H/s⌉, ⌈W/s⌉)

    Example:
        >>> import torch
        >>> InvertedResidual(16, 24, stride=2, expand=6)(torch.zeros(2, 16, 9, 8)).shape
        torch.Size([2, 24, 5, 4])
    """

    def __init__(
        self, channels: int, out_channels: int, stride: int, expand: int
    ) -> None:
        super().__init__()
        self.adds = stride == 1 and channels == out_channels
        wide = channels * expand
        up: dict[str, nn.Module] = {} if expand == 1 else _up(channels, wide)
        self.body = nn.Sequential(
            OrderedDict(
                **up,
                depth=nn.Conv2d(
                    wide, wide, 3, stride, padding=1, groups=wide, bias=False
                ),
                depth_norm=nn.BatchNorm2d(wide),
                depth_relu=nn.ReLU6(),
                down=nn.Conv2d(wide, out_channels, 1, bias=False),
                down_norm=nn.BatchNorm2d(out_channels),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Widen, filter each channel, narrow; add x if it fits."""
        out: Tensor = self.body(x)
        return x + out if self.adds else out


def _up(channels: int, wide: int) -> dict[str, nn.Module]:
    return {
        "up": nn.Conv2d(channels, wide, 1, bias=False),
        "up_norm": nn.BatchNorm2d(wide),
        "up_relu": nn.ReLU6(),
    }
