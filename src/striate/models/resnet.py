"""ResNet and plain networks (He et al. 2015, tables 1 and 6).

| layer  | side at 224 | 18     | 34     | 50      | 101     | 152     | width      |
|--------|-------------|--------|--------|---------|---------|---------|------------|
| conv1  | 112         | 7×7/2  | 7×7/2  | 7×7/2   | 7×7/2   | 7×7/2   | 64         |
| layer1 | 56          | pool, 2| pool, 3| pool, 3 | pool, 3 | pool, 3 | 64 (×4)    |
| layer2 | 28          | 2      | 4      | 4       | 4       | 8       | 128 (×4)   |
| layer3 | 14          | 2      | 6      | 6       | 23      | 36      | 256 (×4)   |
| layer4 | 7           | 2      | 3      | 3       | 3       | 3       | 512 (×4)   |

then global average pooling and a dense layer. Blocks are two 3×3 convolutions for 18
and 34 layers, bottlenecks (×4) from 50 on. CIFAR networks of depth 6n + 2 have a 3×3,
then three stages of n blocks with 16, 32 and 64 channels. Because of padding, images of
any size from 1×1 on work. In training mode, torch raises an error for a single image
with 1×1 last maps: batch norm needs more than one value.

Layers have torchvision's names: `layer1` is the paper's conv2_x. `resnet50` has the
stride in the first 1×1 as in the paper, `resnet50_v1_5` in the 3×3 as in torchvision
and timm, which publish weights. Blocks of 18 and 34 layers have no 1×1.

Anti-aliased networks (Zhang 2019, "Making Convolutional Networks Shift-Invariant
Again") replace the stride of the max pool and of the 3×3 convolutions by stride 1 and a
blur layer after the ReLU. `resnetblur18` and `50` are timm's, whose shortcuts have the
stride without a blur; `antialiased_resnet18` and `50` are the author's, with blurred
shortcuts and a 2×2 max pool. conv1 has stride 2 in both. At 224×224 the stride 1 needs
29 % more MACs with 18 layers and 26 % with 50. `antialiased_resnet18_slim` has half the
width and a quarter of the MACs, for CPUs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.errors import SettingError
from striate.core.preprocess_config import ImageSpec
from striate.layers.blur import BlurPool
from striate.layers.init import he
from striate.layers.residual import (
    EXPANSION,
    Residual,
    basic_branch,
    bottleneck_branch,
    shortcut,
)
from striate.models.catalogue import register_model
from striate.models.classifier import ImageClassifier

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
TRIANGLE = 3  # side of the blur filter: Tri-3 of Zhang's table 2, and timm's


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Configuration of a residual or plain network."""

    blocks: tuple[int, ...]  # blocks of each stage; widths double from stage to stage
    width: int = 64  # channels of the first stage
    # Which convolution of a bottleneck has the stride, `1x1` or `3x3`; empty for blocks
    # of two 3×3.
    stride_in: str = ""
    shortcut: str = "B"  # a, B or C of `layers.residual`; empty for a plain network
    # Kernel size of the blur filter that replaces every stride except in the first
    # layer; 0 for none.
    blur: int = 0
    # Whether shortcuts are blurred, as in the author's code.
    blurred_shortcut: bool = False

    def __post_init__(self) -> None:
        if self.stride_in and not self.shortcut:
            what = "a plain network has no bottlenecks"
            raise SettingError(what, where="ResNetConfig", fix="leave stride_in empty")
        if self.blurred_shortcut and not (self.blur and self.shortcut in ("B", "C")):
            what = "only a 1×1 shortcut of an anti-aliased network can be blurred"
            fix = "set blur and shortcut B"
            raise SettingError(what, where="ResNetConfig", fix=fix)

    @property
    def expansion(self) -> int:
        """Number of output channels of a block, divided by the block's width."""
        return EXPANSION if self.stride_in else 1


def stages(channels: int, config: ResNetConfig) -> dict[str, nn.Module]:
    """Return the stages layer1, layer2, … for an input with `channels` channels."""
    layers: dict[str, nn.Module] = {}
    for i, count in enumerate(config.blocks):
        width = config.width * 2**i
        blocks = []
        for j in range(count):
            stride = 2 if i > 0 and j == 0 else 1
            blocks.append(_block(channels, width, stride, config))
            channels = width * config.expansion
        layers[f"layer{i + 1}"] = nn.Sequential(*blocks)
    return layers


def _block(channels: int, width: int, stride: int, config: ResNetConfig) -> nn.Module:
    blur, stride_in = config.blur, config.stride_in
    if stride_in:
        branch = bottleneck_branch(channels, width, stride, stride_in, blur)
    else:
        branch = basic_branch(channels, width, stride, blur)
    if not config.shortcut:
        return nn.Sequential(OrderedDict(**branch, relu=nn.ReLU()))
    blur, out = blur if config.blurred_shortcut else 0, width * config.expansion
    return Residual(branch, shortcut(config.shortcut, channels, out, stride, blur))


def _assemble(
    stem: dict[str, nn.Module], config: ResNetConfig, num_classes: int
) -> ImageClassifier:
    layers = {**stem, **stages(config.width, config)}
    width = config.width * 2 ** (len(config.blocks) - 1)
    features = width * config.expansion
    model = ImageClassifier(
        {
            **layers,
            "avgpool": nn.AdaptiveAvgPool2d(1),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(features, num_classes),
        }
    )
    he(model)
    return model


def _max_pool(config: ResNetConfig) -> dict[str, nn.Module]:
    """Return the stem's max pool; if anti-aliased, max pool with stride 1, and blur."""
    if not config.blur:
        return {"maxpool": nn.MaxPool2d(3, 2, padding=1)}
    # The author's code has a 2×2 max pool, timm's code 3×3 as in ResNet.
    pool = nn.MaxPool2d(2, 1) if config.blurred_shortcut else nn.MaxPool2d(3, 1, 1)
    return {"maxpool": pool, "blur": BlurPool(config.width, config.blur)}


def _check_size(image: ImageSpec, config: ResNetConfig) -> None:
    """Raise an error if images are too small for the mirrored border of a blur."""
    if not config.blur:
        return
    margin = config.blur // 2
    windows = [Window(name="conv1", kernel=7, stride=2, padding=3)]
    if config.blurred_shortcut:
        windows.append(Window(name="maxpool", kernel=2))
    names = ["blur", *(f"layer{i + 2}.0.blur" for i in range(3))]
    for name in names[: len(config.blocks)]:
        # ⌈side / 2⌉, and none of a side that is not larger than the border.
        windows.append(Window(name=name, kernel=margin + 1))
        windows.append(Window(name=name, kernel=1, stride=2, padding=(0, margin)))
    for side in (image.height, image.width):
        output_side_through(side, windows)


def resnet(
    image: ImageSpec, num_classes: int, *, config: ResNetConfig
) -> ImageClassifier:
    """Build a residual or plain network for ImageNet from a configuration.

    Example:
        >>> small = ResNetConfig(blocks=(1, 1), width=8, shortcut="C")
        >>> resnet(IMAGENET, 5, config=small).fc
        Linear(in_features=16, out_features=5, bias=True)
    """
    _check_size(image, config)
    stem = {
        "conv1": nn.Conv2d(image.channels, config.width, 7, 2, padding=3, bias=False),
        "bn1": nn.BatchNorm2d(config.width),
        "relu": nn.ReLU(),
        **_max_pool(config),
    }
    return _assemble(stem, config, num_classes)


def cifar_resnet(
    image: ImageSpec, num_classes: int, *, config: ResNetConfig
) -> ImageClassifier:
    """Build a residual or plain network for small images (section 4.2).

    Example:
        >>> config = ResNetConfig(blocks=(3, 3, 3), width=16)
        >>> model = cifar_resnet(CIFAR, 10, config=config)
        >>> len(model.layer1), model.fc.in_features
        (3, 64)
    """
    stem: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(image.channels, config.width, 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(config.width),
        "relu": nn.ReLU(),
    }
    return _assemble(stem, config, num_classes)


def _register(name: str, line: str, config: ResNetConfig) -> None:
    register = register_model(name, image=IMAGENET, classes=1000, summary=line)
    register(partial(resnet, config=config))


def _register_imagenet() -> None:
    for depth, blocks in BLOCKS.items():
        if depth < 50:
            line = f"{depth} layers of 3×3 convolutions, with shortcuts"
            _register(f"resnet{depth}", line, ResNetConfig(blocks=blocks))
            line = f"ResNet-{depth} without its shortcuts"
            _register(f"plain{depth}", line, ResNetConfig(blocks=blocks, shortcut=""))
            continue
        for stride_in, suffix in (("1x1", ""), ("3x3", "_v1_5")):
            shown = stride_in.replace("x", "×")
            line = f"{depth} layers in bottlenecks, the stride in the {shown}"
            config = ResNetConfig(blocks=blocks, stride_in=stride_in)
            _register(f"resnet{depth}{suffix}", line, config)


def _register_antialiased() -> None:
    for depth in (18, 50):
        stride_in = "3x3" if depth >= 50 else ""
        line = f"anti-aliased ResNet-{depth} of timm: blur instead of strides"
        config = ResNetConfig(blocks=BLOCKS[depth], stride_in=stride_in, blur=TRIANGLE)
        _register(f"resnetblur{depth}", line, config)
        line = f"anti-aliased ResNet-{depth} (Zhang): blur in shortcuts too"
        config = replace(config, blurred_shortcut=True)
        _register(f"antialiased_resnet{depth}", line, config)
    line = "anti-aliased ResNet-18 of half the width: a quarter of the MACs"
    slim = ResNetConfig(
        blocks=BLOCKS[18], width=32, blur=TRIANGLE, blurred_shortcut=True
    )
    _register("antialiased_resnet18_slim", line, slim)


def _register_cifar() -> None:
    for depth in CIFAR_DEPTHS:
        blocks = ((depth - 2) // 6,) * 3
        for option, kind, word in (("A", "resnet", "with"), ("", "plain", "without")):
            line = f"{depth} layers for 32×32 images, {word} shortcuts"
            config = ResNetConfig(blocks=blocks, width=16, shortcut=option)
            build = partial(cifar_resnet, config=config)
            name = f"cifar_{kind}{depth}"
            register_model(name, image=CIFAR, classes=10, summary=line)(build)


_register_imagenet()
_register_antialiased()
_register_cifar()
