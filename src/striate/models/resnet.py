"""ResNet and its plain twins (He, Zhang, Ren, Sun 2015, tables 1 and 6).

| stage | side at 224 | 18     | 34     | 50      | 101     | 152     | width      |
|-------|-------------|--------|--------|---------|---------|---------|------------|
| conv1 | 112         | 7×7/2  | 7×7/2  | 7×7/2   | 7×7/2   | 7×7/2   | 64         |
| conv2 | 56          | pool, 2| pool, 3| pool, 3 | pool, 3 | pool, 3 | 64 (×4)    |
| conv3 | 28          | 2      | 4      | 4       | 4       | 8       | 128 (×4)   |
| conv4 | 14          | 2      | 6      | 6       | 23      | 36      | 256 (×4)   |
| conv5 | 7           | 2      | 3      | 3       | 3       | 3       | 512 (×4)   |

then the global mean and one dense layer. Blocks are two 3×3 for 18 and 34, bottlenecks
(×4) from 50 on. On CIFAR, depth 6n + 2: a 3×3, then three stages of n blocks with 16,
32 and 64 channels. Padding keeps every side alive: any picture from 1×1 goes through;
in training, a batch of one whose last maps are 1×1 gives batch norm nothing to
average, and torch says so.

Names: `resnet50` steps in the first 1×1 as the paper does, `resnet50_v1_5` in the 3×3,
which is the variant whose weights are public; 18 and 34 have no 1×1 to step in.

Blurred (Zhang 2019, "Making Convolutional Networks Shift-Invariant Again"): the max
pool and every 3×3 that halves the side run with stride 1, are rectified, and a blur
steps in their place. `resnetblur18` and `50` are timm's, whose shortcuts still take
every other position; `antialiased_resnet18` and `50` are the author's own, with blurred
shortcuts and a 2×2 max pool. conv1 keeps its stride in both. At 224×224 the 3×3s at
full side cost 29 % more products in 18 layers and 26 % in 50. Of half the width, and so
of a quarter of the products, is `antialiased_resnet18_slim`: for processors.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.errors import SettingError
from striate.core.preprocess import ImageSpec
from striate.layers.blur import BlurPool
from striate.layers.init import he
from striate.layers.residual import (
    EXPANSION,
    Residual,
    basic_body,
    bottleneck_body,
    shortcut,
)
from striate.models.catalogue import network

IMAGENET = ImageSpec(channels=3, height=224, width=224)
CIFAR = ImageSpec(channels=3, height=32, width=32)

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
CIFAR_DEPTHS = (20, 32, 44, 56, 110)
TRIANGLE = 3  # side of the blur: Tri-3 of Zhang's table 2, and timm's


@dataclass(frozen=True, kw_only=True)
class Design:
    """What tells one residual network from another.

    Args:
        blocks: Blocks of each stage; widths double from stage to stage.
        width: Channels of the first stage.
        stride_in: Where bottlenecks step, `1x1` or `3x3`; empty for two-3×3 blocks.
        shortcut: A, B or C of `layers.residual`; empty for a plain network.
        blur: Side of the filter before each step but the first layer's; 0 for none.
        blurred_shortcut: Shortcuts step by it too, as in the paper's own code.
    """

    blocks: tuple[int, ...]
    width: int = 64
    stride_in: str = ""
    shortcut: str = "B"
    blur: int = 0
    blurred_shortcut: bool = False

    def __post_init__(self) -> None:
        if self.stride_in and not self.shortcut:
            what = "a plain network has no bottlenecks"
            raise SettingError(what, where="Design", fix="leave stride_in empty")
        if self.blurred_shortcut and not (self.blur and self.shortcut in ("B", "C")):
            what = "only a 1×1 shortcut of a blurred network can be blurred"
            raise SettingError(what, where="Design", fix="set blur and shortcut B")


def stages(channels: int, design: Design) -> dict[str, nn.Sequential]:
    """Return conv2, conv3, … of a design, for `channels` coming in."""
    made = {}
    for i, count in enumerate(design.blocks):
        width = design.width * 2**i
        blocks = []
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(_block(channels, width, stride, design))
            channels = width * (EXPANSION if design.stride_in else 1)
        made[f"conv{i + 2}"] = nn.Sequential(*blocks)
    return made


def _block(channels: int, width: int, stride: int, design: Design) -> nn.Module:
    if not design.shortcut:
        body = basic_body(channels, width, stride, design.blur)
        return nn.Sequential(OrderedDict(body=body, relu=nn.ReLU()))
    how = channels, width, stride
    if design.stride_in:
        body = bottleneck_body(*how, design.stride_in, design.blur)
        width *= EXPANSION
    else:
        body = basic_body(*how, design.blur)
    blur = design.blur if design.blurred_shortcut else 0
    return Residual(body, shortcut(design.shortcut, channels, width, stride, blur))


def _finish(layers: dict[str, nn.Module], design: Design, classes: int) -> nn.Module:
    features = design.width * 2 ** (len(design.blocks) - 1)
    model = nn.Sequential(
        OrderedDict(
            **layers,
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(features * (EXPANSION if design.stride_in else 1), classes),
        )
    )
    he(model)
    return model


def _pool(design: Design) -> dict[str, nn.Module]:
    """Return the stem's max pooling; a dense one and a blur, where it is blurred."""
    if not design.blur:
        return {"pool1": nn.MaxPool2d(3, 2, padding=1)}
    # The author's code pools 2×2, timm's 3×3 as ResNet does.
    pool = nn.MaxPool2d(2, 1) if design.blurred_shortcut else nn.MaxPool2d(3, 1, 1)
    return {"pool1": pool, "blur1": BlurPool(design.width, design.blur)}


def _check_size(image: ImageSpec, design: Design) -> None:
    """Refuse pictures of which a blur would get too little to mirror at its border."""
    if not design.blur:
        return
    margin = design.blur // 2
    windows = [Window(name="conv1", kernel=7, stride=2, padding=3)]
    if design.blurred_shortcut:
        windows.append(Window(name="pool1", kernel=2))
    names = ["blur1", *(f"conv{i + 3}.0.body.blur" for i in range(3))]
    for name in names[: len(design.blocks)]:
        # ⌈side / 2⌉, and none of a side that is not larger than the border.
        windows.append(Window(name=name, kernel=margin + 1))
        windows.append(Window(name=name, kernel=1, stride=2, padding=(0, margin)))
    for side in (image.height, image.width):
        output_side_through(side, windows)


def resnet(image: ImageSpec, num_classes: int, *, design: Design) -> nn.Module:
    """Build an ImageNet residual (or plain) network of any design.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is too small for a blurred network.

    Example:
        >>> small = Design(blocks=(1, 1), width=8, shortcut="C")
        >>> resnet(IMAGENET, 5, design=small).head
        Linear(in_features=16, out_features=5, bias=True)
    """
    _check_size(image, design)
    stem = {
        "conv1": nn.Conv2d(image.channels, design.width, 7, 2, padding=3, bias=False),
        "norm1": nn.BatchNorm2d(design.width),
        "relu1": nn.ReLU(),
        **_pool(design),
    }
    return _finish({**stem, **stages(design.width, design)}, design, num_classes)


def cifar_resnet(image: ImageSpec, num_classes: int, *, design: Design) -> nn.Module:
    """Build a residual (or plain) network for small pictures (section 4.2).

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Example:
        >>> model = cifar_resnet(CIFAR, 10, design=Design(blocks=(3, 3, 3), width=16))
        >>> len(model.conv2), model.head.in_features
        (3, 64)
    """
    stem = {
        "conv1": nn.Conv2d(image.channels, design.width, 3, padding=1, bias=False),
        "norm1": nn.BatchNorm2d(design.width),
        "relu1": nn.ReLU(),
    }
    return _finish({**stem, **stages(design.width, design)}, design, num_classes)


def _enter_imagenet() -> None:
    enter = partial(network, image=IMAGENET, classes=1000)
    for depth, blocks in BLOCKS.items():
        if depth < 50:
            line = f"{depth} layers of 3×3 convolutions, with shortcuts"
            design = Design(blocks=blocks)
            enter(f"resnet{depth}", summary=line)(partial(resnet, design=design))
            line = f"ResNet-{depth} without its shortcuts"
            design = Design(blocks=blocks, shortcut="")
            enter(f"plain{depth}", summary=line)(partial(resnet, design=design))
            continue
        for place, suffix in (("1x1", ""), ("3x3", "_v1_5")):
            shown = place.replace("x", "×")
            line = f"{depth} layers in bottlenecks, the stride in the {shown}"
            design = Design(blocks=blocks, stride_in=place)
            name = f"resnet{depth}{suffix}"
            enter(name, summary=line)(partial(resnet, design=design))


def _enter_blurred() -> None:
    enter = partial(network, image=IMAGENET, classes=1000)
    for depth in (18, 50):
        stride_in = "3x3" if depth >= 50 else ""
        line = f"ResNet-{depth} with a blur before each step, as timm has it"
        design = Design(blocks=BLOCKS[depth], stride_in=stride_in, blur=TRIANGLE)
        enter(f"resnetblur{depth}", summary=line)(partial(resnet, design=design))
        line = f"ResNet-{depth} with a blur before each step, shortcuts too (Zhang)"
        design = replace(design, blurred_shortcut=True)
        name = f"antialiased_resnet{depth}"
        enter(name, summary=line)(partial(resnet, design=design))
    slim = Design(blocks=BLOCKS[18], width=32, blur=TRIANGLE, blurred_shortcut=True)
    line = "the same in 18 layers of half the width: a quarter of the products"
    enter("antialiased_resnet18_slim", summary=line)(partial(resnet, design=slim))


def _enter_cifar() -> None:
    enter = partial(network, image=CIFAR, classes=10)
    for depth in CIFAR_DEPTHS:
        blocks = ((depth - 2) // 6,) * 3
        for option, kind, how in (("A", "resnet", "with"), ("", "plain", "without")):
            line = f"{depth} layers for 32×32 pictures, {how} shortcuts"
            design = Design(blocks=blocks, width=16, shortcut=option)
            build = partial(cifar_resnet, design=design)
            enter(f"cifar_{kind}{depth}", summary=line)(build)


_enter_imagenet()
_enter_blurred()
_enter_cifar()
