"""Residual blocks: relu(F(x) + shortcut(x)) (He, Zhang, Ren, Sun 2015, section 3).

Where a block changes the side or the channels, its shortcut must too (section 3.3):

| option | unchanged shape | changed shape                              |
|--------|-----------------|--------------------------------------------|
| A      | identity        | every other position, new channels zero    |
| B      | identity        | 1×1 convolution with the stride            |
| C      | 1×1 convolution | 1×1 convolution with the stride            |
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.registry import unknown

EXPANSION = 4  # a bottleneck's last 1×1 makes four times its width (table 1)


class Residual(nn.Module):
    """relu(body(x) + shortcut(x)): the body learns only what must change.

    Args:
        body: F; its last layer has no activation.
        shortcut: What carries x past it, to the same shape.

    Shapes:
        (N, C, H, W) → the shape of `body`'s output

    Example:
        >>> import torch
        >>> block = Residual(basic_body(64, 128, 2), shortcut("B", 64, 128, 2))
        >>> block(torch.zeros(1, 64, 56, 56)).shape
        torch.Size([1, 128, 28, 28])
    """

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add what the body learned to what the shortcut carries."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class PadShortcut(nn.Module):
    """Shortcut A: every `stride`-th position, new channels zero; no parameters.

    Args:
        channels: Channels of x.
        out_channels: Channels to reach; at least as many.
        stride: Step between the positions kept.

    Shapes:
        (N, C, H, W) → (N, C_out, ⌈H/s⌉, ⌈W/s⌉)

    Raises:
        GeometryError: Fewer channels are asked for than come in.

    Example:
        >>> import torch
        >>> PadShortcut(16, 32, stride=2)(torch.ones(1, 16, 32, 32)).sum().item()
        4096.0
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < channels:
            what = f"shortcut A got {channels} channels, cannot shrink to "
            fix = "use shortcut B, which projects"
            raise GeometryError(f"{what}{out_channels}", fix=fix)
        self.added = out_channels - channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad."""
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, 0, self.added))

    def extra_repr(self) -> str:
        """Describe the layer in a printed model."""
        return f"added={self.added}, stride={self.stride}"


def shortcut(option: str, channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the shortcut of an option, as the table above has it.

    Raises:
        UnknownNameError: The option is not A, B or C.

    Example:
        >>> shortcut("B", 64, 64, 1), shortcut("A", 16, 32, 2)
        (Identity(), PadShortcut(added=16, stride=2))
    """
    if option not in ("A", "B", "C"):
        raise unknown("shortcut", option, ("A", "B", "C"))
    changed = stride > 1 or channels != out_channels
    if not changed and option != "C":
        return nn.Identity()
    if option == "A":
        return PadShortcut(channels, out_channels, stride)
    conv = nn.Conv2d(channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels)))


def basic_body(channels: int, width: int, stride: int) -> nn.Sequential:
    """Return two 3×3 convolutions, the first with the stride (figure 5, left).

    Shapes:
        (N, channels, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
        )
    )


def bottleneck_body(
    channels: int, width: int, stride: int, stride_in: str = "1x1"
) -> nn.Sequential:
    """Return 1×1 down, 3×3, 1×1 up to four times the width (figure 5, right).

    Args:
        channels: Channels of x.
        width: Channels of the 3×3.
        stride: Step of the block.
        stride_in: Which convolution steps: the first `1x1` as in the paper, or the
            `3x3`, which skips no position (known as ResNet v1.5).

    Shapes:
        (N, channels, H, W) → (N, 4·width, ⌈H/s⌉, ⌈W/s⌉)

    Raises:
        UnknownNameError: `stride_in` is neither.
    """
    if stride_in not in ("1x1", "3x3"):
        raise unknown("place of the stride", stride_in, ("1x1", "3x3"))
    first, middle = (stride, 1) if stride_in == "1x1" else (1, stride)
    out = EXPANSION * width
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 1, first, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(width, width, 3, middle, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(),
            conv3=nn.Conv2d(width, out, 1, bias=False),
            norm3=nn.BatchNorm2d(out),
        )
    )
