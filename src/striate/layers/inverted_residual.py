"""Inverted residual block of MobileNetV2 (Sandler et al. 2018, section 3.4)."""

from __future__ import annotations

from torch import Tensor, nn


def conv_bn_relu6(
    channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return convolution, batch norm and ReLU6, with padding (kernel − 1)/2.

    Shapes:
        (N, channels, H, W) → (N, out_channels, ⌈H/s⌉, ⌈W/s⌉)
    """
    half = (kernel - 1) // 2
    conv = nn.Conv2d(
        channels, out_channels, kernel, stride, half, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Inverted residual: 1×1 expansion, 3×3 depthwise, linear 1×1, shortcut.

    The shortcut connects the ends with few channels, hence "inverted". The last 1×1 is
    linear, because a ReLU on few channels loses information (section 3.2). Factor 1 has
    no expansion.

    Args:
        channels: Number of input channels.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
        expand: Expansion factor t of the first 1×1.

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
        self.use_shortcut = stride == 1 and channels == out_channels
        wide = channels * expand
        self.conv = nn.Sequential(
            *([] if expand == 1 else [conv_bn_relu6(channels, wide, 1)]),
            conv_bn_relu6(wide, wide, 3, stride, groups=wide),
            nn.Conv2d(wide, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the block; add the input if input and output have the same shape."""
        out: Tensor = self.conv(x)
        return x + out if self.use_shortcut else out
