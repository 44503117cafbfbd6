"""VGG (Simonyan and Zisserman 2014, table 1): 3×3 convolutions only, five blocks.

| block | side at 224 | channels | 11 (A) | 13 (B) | 16 (D) | 19 (E) |
|-------|-------------|----------|--------|--------|--------|--------|
| 1     | 224 → 112   | 64       | 1      | 2      | 2      | 2      |
| 2     | 112 → 56    | 128      | 1      | 2      | 2      | 2      |
| 3     | 56 → 28     | 256      | 2      | 2      | 3      | 4      |
| 4     | 28 → 14     | 512      | 2      | 2      | 3      | 4      |
| 5     | 14 → 7      | 512      | 2      | 2      | 3      | 4      |

a 2×2 pool after each block, then 7·7·512 = 25,088 → 4096 → 4096 → classes. The dense
part is cut to the picture, as in the paper: weights of another size do not fit it.
First weights are He's; the paper pre-trained its shallow net to start the deep ones.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess import ImageSpec
from striate.layers.init import he
from striate.models.catalogue import network

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
DENSE = 4096
IMAGE = ImageSpec(channels=3, height=224, width=224)


def vgg(
    image: ImageSpec, num_classes: int, *, depth: int = 16, norm: bool = False
) -> nn.Sequential:
    """Build a VGG of 11, 13, 16 or 19 weight layers.

    Args:
        image: The pictures.
        num_classes: Outputs.
        depth: A column of the table.
        norm: Batch norm between each convolution and its ReLU.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture does not survive five halvings.

    Example:
        >>> small = ImageSpec(channels=3, height=32, width=64)
        >>> vgg(small, 10, depth=11).fc6.in_features
        1024
    """
    counts = CONVOLUTIONS[depth]
    rows = output_side_through(image.height, _windows(counts))
    columns = output_side_through(image.width, _windows(counts))
    model = nn.Sequential(
        OrderedDict(
            **_features(image.channels, counts, norm),
            flatten=nn.Flatten(),
            fc6=nn.Linear(CHANNELS[-1] * rows * columns, DENSE),
            relu6=nn.ReLU(),
            dropout6=nn.Dropout(0.5),
            fc7=nn.Linear(DENSE, DENSE),
            relu7=nn.ReLU(),
            dropout7=nn.Dropout(0.5),
            head=nn.Linear(DENSE, num_classes),
        )
    )
    he(model)
    return model


def _windows(counts: tuple[int, ...]) -> list[Window]:
    made = []
    for i, count in enumerate(counts, start=1):
        names = [f"conv{i}_{j}" for j in range(1, count + 1)]
        made += [Window(name=name, kernel=3, padding=1) for name in names]
        made.append(Window(name=f"pool{i}", kernel=2, stride=2))
    return made


def _features(
    channels: int, counts: tuple[int, ...], norm: bool
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for i, (count, width) in enumerate(zip(counts, CHANNELS, strict=True), start=1):
        for j in range(1, count + 1):
            layers[f"conv{i}_{j}"] = nn.Conv2d(channels, width, 3, padding=1)
            if norm:
                layers[f"norm{i}_{j}"] = nn.BatchNorm2d(width)
            layers[f"relu{i}_{j}"] = nn.ReLU()
            channels = width
        layers[f"pool{i}"] = nn.MaxPool2d(2)
    return layers


for _depth in CONVOLUTIONS:
    for _norm, _suffix, _line in ((False, "", ""), (True, "_bn", ", batch-normed")):
        network(
            f"vgg{_depth}{_suffix}",
            image=IMAGE,
            classes=1000,
            summary=f"{_depth} layers of 3×3 convolutions and dense layers{_line}",
        )(partial(vgg, depth=_depth, norm=_norm))
