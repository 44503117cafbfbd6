"""Residual blocks: relu(F(x) + shortcut(x)) (He et al. 2015, section 3).

If a block changes the image size or the channels, so must its shortcut (section 3.3):

| option | unchanged shape | changed shape                              |
|--------|-----------------|--------------------------------------------|
| A      | identity        | subsampling, new channels zero             |
| B      | identity        | 1×1 convolution with the stride            |
| C      | 1×1 convolution | 1×1 convolution with the stride            |

With anti-aliasing (Zhang 2019, section 3.3) a strided layer becomes three: the layer
with stride 1, its ReLU, then `BlurPool`. A blur has no weights, so the names of the
weights are still those of torchvision.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.format import count_text
from striate.core.registry import unknown_name_error
from striate.layers.blur import BlurPool

EXPANSION = 4  # a bottleneck's last 1×1 makes four times its width (table 1)
_AFTER_BRANCH = ("downsample", "relu")


class Residual(nn.Module):
    """Residual block: relu(branch(x) + downsample(x)).

    Args:
        branch: The layers of F by name, in order; the last one has no activation.
        downsample: The shortcut, which brings x to the shape of the branch's output.

    Shapes:
        (N, C, H, W) → the shape of the branch's output

    Example:
        >>> import torch
        >>> block = Residual(basic_branch(64, 128, 2), shortcut("B", 64, 128, 2))
        >>> block(torch.zeros(1, 64, 56, 56)).shape
        torch.Size([1, 128, 28, 28])
    """

    def __init__(self, branch: Mapping[str, nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        for name, layer in branch.items():
            self.add_module(name, layer)
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the outputs of branch and shortcut, then apply ReLU."""
        y = x
        for name, layer in self.named_children():
            if name not in _AFTER_BRANCH:
                y = layer(y)
        out: Tensor = self.relu(y + self.downsample(x))
        return out


class PadShortcut(nn.Module):
    """Shortcut A: subsample by `stride` and add zero channels; no parameters.

    Shapes:
        (N, C, H, W) → (N, C_out, ⌈H/s⌉, ⌈W/s⌉)

    Raises:
        GeometryError: The output would have fewer channels than the input.

    Example:
        >>> import torch
        >>> PadShortcut(16, 32, stride=2)(torch.ones(1, 16, 32, 32)).sum().item()
        4096.0
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < channels:
            what = f"shortcut A cannot reduce {count_text(channels, 'channel')} to "
            fix = "use shortcut B, a 1×1 convolution"
            raise GeometryError(f"{what}{out_channels}", fix=fix)
        self.added = out_channels - channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample the input and add zero channels."""
        subsampled = x[:, :, :: self.stride, :: self.stride]
        return F.pad(subsampled, (0, 0, 0, 0, 0, self.added))

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"added={self.added}, stride={self.stride}"


def shortcut(
    option: str,  # A, B or C
    channels: int,
    out_channels: int,
    stride: int,
    # Side of the blur filter that subsamples before the 1×1 convolution; 0 for none.
    blur: int = 0,
) -> nn.Module:
    """Return the shortcut layer of option A, B or C.

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
    conv_stride, blur_layer = _subsampling(channels, stride, blur)
    conv = nn.Conv2d(channels, out_channels, 1, conv_stride, bias=False)
    layers = {"0": conv, "1": nn.BatchNorm2d(out_channels)}  # torchvision's names
    return nn.Sequential(OrderedDict({**blur_layer, **layers}))


def _subsampling(
    channels: int, stride: int, blur: int
) -> tuple[int, dict[str, nn.Module]]:
    """Return (stride of the convolution, blur layer); with a blur, the stride is 1."""
    if not blur or stride == 1:
        return stride, {}
    return 1, {"blur": BlurPool(channels, blur, stride)}


def basic_branch(
    channels: int, width: int, stride: int, blur: int = 0
) -> dict[str, nn.Module]:
    """Return the branch of two 3×3 convolutions, the first with stride (figure 5).

    Shapes:
        (N, channels, H, W) → (N, width, ⌈H/s⌉, ⌈W/s⌉)

    Example:
        >>> list(basic_branch(8, 16, 2, blur=3))
        ['conv1', 'bn1', 'relu1', 'blur', 'conv2', 'bn2']
    """
    conv_stride, blur_layer = _subsampling(width, stride, blur)
    return {
        "conv1": nn.Conv2d(channels, width, 3, conv_stride, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu1": nn.ReLU(),
        **blur_layer,
        "conv2": nn.Conv2d(width, width, 3, padding=1, bias=False),
        "bn2": nn.BatchNorm2d(width),
    }


def bottleneck_branch(
    channels: int, width: int, stride: int, stride_in: str = "1x1", blur: int = 0
) -> dict[str, nn.Module]:
    """Return the bottleneck branch: 1×1, 3×3, and 1×1 to 4 × width (figure 5).

    `stride_in` is the convolution with the stride: the first `1x1` as in the paper, or
    the `3x3`, which skips no position (called ResNet v1.5).

    Shapes:
        (N, channels, H, W) → (N, 4·width, ⌈H/s⌉, ⌈W/s⌉)

    Raises:
        UnknownNameError: `stride_in` is neither `1x1` nor `3x3`.
    """
    if stride_in not in ("1x1", "3x3"):
        raise unknown_name_error("place of the stride", stride_in, ("1x1", "3x3"))
    conv_stride, blur_layer = _subsampling(width, stride, blur)
    in_1x1 = stride_in == "1x1"
    first, middle = (conv_stride, 1) if in_1x1 else (1, conv_stride)
    out = EXPANSION * width
    return {
        "conv1": nn.Conv2d(channels, width, 1, first, bias=False),
        "bn1": nn.BatchNorm2d(width),
        "relu1": nn.ReLU(),
        **(blur_layer if in_1x1 else {}),
        "conv2": nn.Conv2d(width, width, 3, middle, padding=1, bias=False),
        "bn2": nn.BatchNorm2d(width),
        "relu2": nn.ReLU(),
        **({} if in_1x1 else blur_layer),
        "conv3": nn.Conv2d(width, out, 1, bias=False),
        "bn3": nn.BatchNorm2d(out),
    }
