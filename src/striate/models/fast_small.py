"""Networks of striate (not from a paper) for fast training on small images.

| name              | at 28×28×1, layer by layer                             | MACs   |
|-------------------|--------------------------------------------------------|--------|
| `fast_small`      | whiten 5×5/2, 24 → 3×3/2, 48 → 48                      | 1.7 M  |
| `fast_small_wide` | whiten 5×5/2, 32 → 64, pool → 128, pool → 128          | 8.7 M  |
| `fast_small_large`| whiten 5×5/2, 32 → 64, 64, pool → 128, 128, pool → 256 | 24.5 M |

then a dense layer. Two ideas come from the speed records on CIFAR-10 (Page 2019; Jordan
2024): a first layer that whitens patches, so that training progresses from the first
step, and few layers with quickly growing width. Unlike there, the whitening layer has
stride 2, because on a CPU the MACs of the first layers take most of the time. Every
other convolution is 3×3, followed by a max pool if in the table, batch norm and ReLU.
The order saves time: after the pool, batch norm and ReLU have a quarter of the values.
Measurements: docs/notebook/accuracy-recipes.md.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import nn

from striate.core.conv_arithmetic import Window
from striate.core.preprocess_config import ImageSpec
from striate.layers.whiten import Whiten
from striate.models.catalogue import register_model
from striate.models.classifier import ImageClassifier, map_positions

SMALL = ImageSpec(channels=1, height=28, width=28)


@dataclass(frozen=True, kw_only=True)
class FastSmallConfig:
    """Configuration of a `fast_small` network."""

    whitened: int  # filters of the whitening layer, in pairs
    widths: tuple[int, ...]  # filters of the convolutions behind it
    strides: tuple[int, ...]  # strides of those convolutions
    # Numbers, from 1, of the convolutions with a 2×2 max pool after them.
    pooled: tuple[int, ...] = ()


CONFIGS = {
    "fast_small": FastSmallConfig(whitened=24, widths=(48, 48), strides=(2, 1)),
    "fast_small_wide": FastSmallConfig(
        whitened=32, widths=(64, 128, 128), strides=(1, 1, 1), pooled=(1, 2)
    ),
    "fast_small_large": FastSmallConfig(
        whitened=32,
        widths=(64, 64, 128, 128, 256),
        strides=(1, 1, 1, 1, 1),
        pooled=(2, 4),
    ),
}


def fast_small(
    image: ImageSpec, num_classes: int, *, config: FastSmallConfig
) -> ImageClassifier:
    """Build a `fast_small` network from a configuration.

    Example:
        >>> model = fast_small(SMALL, 10, config=CONFIGS["fast_small"])
        >>> sum(p.numel() for p in model.parameters() if p.requires_grad)
        54850
    """
    blocks: dict[str, nn.Module] = {}
    windows = [Window(name="whiten", kernel=5, stride=2, padding=2)]
    channels = config.whitened
    settings = zip(config.widths, config.strides, strict=True)
    for i, (width, stride) in enumerate(settings, start=1):
        name, pooled = f"block{i}", i in config.pooled
        blocks[name] = _block(channels, width, stride, pooled)
        windows.append(Window(name=name, kernel=3, stride=stride, padding=1))
        windows += [Window(name=f"{name}.pool", kernel=2, stride=2)] * pooled
        channels = width
    flat = map_positions(image, windows) * channels
    whiten = Whiten(image.channels, config.whitened, kernel_size=5, stride=2)
    head = {"flatten": nn.Flatten(), "fc": nn.Linear(flat, num_classes)}
    return ImageClassifier({"whiten": whiten, **blocks, **head})


def _block(channels: int, width: int, stride: int, pooled: bool) -> nn.Sequential:
    """Return 3×3 convolution, max pool (if `pooled`), batch norm and ReLU."""
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    }
    if pooled:
        layers["pool"] = nn.MaxPool2d(2)
    return nn.Sequential(
        OrderedDict(**layers, bn=nn.BatchNorm2d(width), relu=nn.ReLU())
    )


for _name, _config in CONFIGS.items():
    _count = len(_config.widths)
    _line = f"whitened patches, {_count} convolutions: trains fast on small images"
    _register = register_model(_name, image=SMALL, classes=10, summary=_line)
    _register(partial(fast_small, config=_config))
