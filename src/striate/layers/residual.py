"""Residual blocks: relu(F(x) + shortcut(x)) (He, Zhang, Ren, Sun 2015, section 3).

Where a block changes the side or the channels, its shortcut must too (section 3.3):

| option | unchanged shape | changed shape                              |
|--------|-----------------|--------------------------------------------|
| A      | identity        | every other position, new channels zero    |
| B      | identity        | 1×1 convolution with the stride            |
| C      | 1×1 convolution | 1×1 convolution with the stride            |

Blurred (Zhang 2019, section 3.3), a layer that steps does so in two: with stride 1 and
rectified, then `BlurPool`. Names of weights stay, because a blur has none.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.registry import unknown_name_error
from striate.layers.blur import BlurPool

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


def shortcut(
    option: str, channels: int, out_channels: int, stride: int, blur: int = 0
) -> nn.Module:
    """Return the shortcut of an option, as the table above has it.

    Args:
        option: A, B or C.
        channels: Channels of x.
        out_channels: Channels to reach.
        stride: Step of the block.
        blur: Side of the filter that steps before the 1×1 convolution; 0 for none.

    Raises:
        UnknownNameError: The option is not A, B or C.

    Example:
        >>> shortcut("B", 64, 64, 1), shortcut("A", 16, 32, 2)
        (Identity(), PadShortcut(added=16, stride=2))
    """
    if option not in ("A", "B", "C"):
        raise unknown_name_error("shortcut", option, ("A", "B", "C"))
    changed = stride > 1 or channels != out_channels
    if not changed and option != "C":
        return nn.Identity()
    if option == "A":
        return PadShortcut(channels, out_channels, stride)
    step, blurred = _step(channels, stride, blur)
    conv = nn.Conv2d(channels, out_channels, 1, step, bias=False)
    norm = nn.BatchNorm2d(out_channels)
    return nn.Sequential(OrderedDict(**blurred, conv=conv, norm=norm))


def _step(channels: int, stride: int, blur: int) -> tuple[int, dict[str, nn.Module]]:
    """Return a convolution's own stride, and the blur that steps in its place."""
    if not blur or stride == 1:
        return stride, {}
    return 1, {"blur": BlurPool(channels, blur, stride)}


def basic_body(channels: int, width: int, stride: int, blur: int = 0) -> nn.Sequential:
    """Return two 3×3 convolutions, the first with the stride (figure 5, left).

    Args:
        channels: Channels of x.
        width: Channels of both convolutions.
        stride: Step of the block.
        blur: Side of the filter that steps in the first one's place; 0 for none.

    Shapes:
        (N, channels, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)

    Example:
        >>> list(dict(basic_body(8, 16, 2, blur=3).named_children()))[:4]
        ['conv1', 'norm1', 'relu1', 'blur']
    """
    step, blurred = _step(width, stride, blur)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 3, step, padding=1, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(),
            **blurred,
            conv2=nn.Conv2d(width, width, 3, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
        )
    )


def bottleneck_body(
    channels: int, width: int, stride: int, stride_in: str = "1x1", blur: int = 0
) -> nn.Sequential:
    """Return 1×1 down, 3×3, 1×1 up to four times the width (figure 5, right).

    Args:
        channels: Channels of x.
        width: Channels of the 3×3.
        stride: Step of the block.
        stride_in: Which convolution steps: the first `1x1` as in the paper, or the
            `3x3`, which skips no position (known as ResNet v1.5).
        blur: Side of the filter that steps in that one's place; 0 for none.

    Shapes:
        (N, channels, H, W) → (N, 4·width, ⌈H/s⌉, ⌈W/s⌉)

    Raises:
        UnknownNameError: `stride_in` is neither.
    """
    if stride_in not in ("1x1", "3x3"):
        raise unknown_name_error("place of the stride", stride_in, ("1x1", "3x3"))
    step, blurred = _step(width, stride, blur)
    first, middle = (step, 1) if stride_in == "1x1" else (1, step)
    early, late = (blurred, {}) if stride_in == "1x1" else ({}, blurred)
    out = EXPANSION * width
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, width, 1, first, bias=False),
            norm1=nn.BatchNorm2d(width),
            relu1=nn.ReLU(),
            **early,
            conv2=nn.Conv2d(width, width, 3, middle, padding=1, bias=False),
            norm2=nn.BatchNorm2d(width),
            relu2=nn.ReLU(),
            **late,
            conv3=nn.Conv2d(width, out, 1, bias=False),
            norm3=nn.BatchNorm2d(out),
        )
    )
