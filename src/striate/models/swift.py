"""Networks that reach their accuracy soon on small pictures: own designs, no paper's.

| name         | at 28×28×1, layer by layer                             | products     |
|--------------|--------------------------------------------------------|--------------|
| `swift`      | whiten 5×5/2, 24 → 3×3/2, 48 → 48                      | 1.7 million  |
| `swift_wide` | whiten 5×5/2, 32 → 64, pool → 128, pool → 128          | 8.7 million  |
| `swift_large`| whiten 5×5/2, 32 → 64, 64, pool → 128, 128, pool → 256 | 24.5 million |

and a dense layer. Both ideas are of the speed records on CIFAR-10 (Page 2019; Jordan
2024): a first layer that whitens patches, so that learning begins at once, and few,
large steps of width. What they do not take over is pictures at full resolution: on a
processor the products of the first layers are the whole time, so the whitening layer
already halves the side. Every other convolution is 3×3, pooled where it says so, and
then normalised and rectified: on a quarter of the positions. Measured in
docs/notebook/accuracy-recipes.md.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess import ImageSpec
from striate.layers.whiten import Whiten
from striate.models.catalogue import network

SMALL = ImageSpec(channels=1, height=28, width=28)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What tells one of them from another.

    Args:
        whitened: Filters of the whitening layer, in pairs.
        widths: Of the convolutions behind it.
        strides: Their steps.
        pooled: Which of them, counted from 1, halve the side by max pooling.
    """

    whitened: int
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    pooled: tuple[int, ...] = ()


DESIGNS = {
    "swift": Design(whitened=24, widths=(48, 48), strides=(2, 1)),
    "swift_wide": Design(
        whitened=32, widths=(64, 128, 128), strides=(1, 1, 1), pooled=(1, 2)
    ),
    "swift_large": Design(
        whitened=32,
        widths=(64, 64, 128, 128, 256),
        strides=(1, 1, 1, 1, 1),
        pooled=(2, 4),
    ),
}


def swift(image: ImageSpec, num_classes: int, *, design: Design) -> nn.Sequential:
    """Build a network of any design.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is too small for the pooling.

    Example:
        >>> model = swift(SMALL, 10, design=DESIGNS["swift"])
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
        54850
    """
    blocks: dict[str, nn.Module] = {}
    windows = [Window(name="whiten", kernel=5, stride=2, padding=2)]
    channels = design.whitened
    for i, (width, stride) in enumerate(
        zip(design.widths, design.strides, strict=True), start=1
    ):
        pooled = i in design.pooled
        blocks[f"block{i}"] = _block(channels, width, stride, pooled)
        name = f"block{i}"
        windows.append(Window(name=name, kernel=3, stride=stride, padding=1))
        windows += [Window(name=f"{name}.pool", kernel=2, stride=2)] * pooled
        channels = width
    flat = (
        output_side_through(image.height, windows)
        * output_side_through(image.width, windows)
        * channels
    )
    return nn.Sequential(
        OrderedDict(
            whiten=Whiten(image.channels, design.whitened, kernel_size=5, stride=2),
            **blocks,
            flatten=nn.Flatten(),
            head=nn.Linear(flat, num_classes),
        )
    )


def _block(channels: int, width: int, stride: int, pooled: bool) -> nn.Sequential:
    """Return a 3×3 convolution, pooling where wanted, batch norm and ReLU."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    }
    if pooled:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(
        OrderedDict(**layers, norm=nn.BatchNorm2d(width), relu=nn.ReLU())
    )


def _enter() -> None:
    for name, design in DESIGNS.items():
        line = f"whitened patches, {len(design.widths)} convolutions: soon there"
        build = partial(swift, design=design)
        network(name, image=SMALL, classes=10, summary=line)(build)


_enter()
