"""The two networks of the study notes: one for grey pictures, one for colour.

Grey, 28×28×1 in:  conv 25 · pool · conv 50 · pool · 2450 · dense
Colour, 32×32×3 in: conv 36 · conv 72 · conv 144, each pooled and dropped out,
4·4·144 = 2304 · dense 576 · dense. Every convolution is 3×3 `same`, every pool 2×2.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess import ImageSpec
from striate.models.catalogue import network

GREY_WIDTHS = (25, 50)
COLOUR_WIDTHS = (36, 72, 144)
COLOUR_DENSE = 576


@network("notes_grey", image=ImageSpec(channels=1, height=28, width=28), classes=10)
def notes_grey(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the notes' grey net: two convolutions, two pools, one dense layer.

    Shapes:
        4×28×28×1 → 4×28×28×25 → 4×14×14×25 → 4×14×14×50 → 4×7×7×50 → 4×2450 → 4×10

    Raises:
        GeometryError: The picture does not survive two halvings.

    Example:
        >>> from striate.models.catalogue import create_model
        >>> model = create_model("notes_grey")
        >>> [sum(p.numel() for p in model[i].parameters()) for i in (0, 3)]
        [250, 11300]
    """
    flat = _flat_side(image.height, 2) * _flat_side(image.width, 2) * GREY_WIDTHS[-1]
    blocks = _blocks(image.channels, GREY_WIDTHS, dropout=0.0)
    return nn.Sequential(
        OrderedDict(**blocks, flatten=nn.Flatten(), head=nn.Linear(flat, num_classes))
    )


@network("notes_colour", image=ImageSpec(channels=3, height=32, width=32), classes=10)
def notes_colour(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the notes' colour net, its third convolution `same` as its shapes say.

    Shapes:
        32×32×3 → 32×32×36 → 16×16×72 → 8×8×144 → 4×4×144 = 2304 → 576 → 10

    Raises:
        GeometryError: The picture does not survive three halvings.

    Example:
        >>> from striate.models.catalogue import create_model
        >>> sum(p.numel() for p in create_model("notes_colour").parameters())
        1451314
    """
    flat = _flat_side(image.height, 3) * _flat_side(image.width, 3) * COLOUR_WIDTHS[-1]
    blocks = _blocks(image.channels, COLOUR_WIDTHS, dropout=0.25)
    return nn.Sequential(
        OrderedDict(
            **blocks,
            flatten=nn.Flatten(),
            fc=nn.Linear(flat, COLOUR_DENSE),
            relu_fc=nn.ReLU(),
            dropout_fc=nn.Dropout(0.5),
            head=nn.Linear(COLOUR_DENSE, num_classes),
        )
    )


def _flat_side(side: int, halvings: int) -> int:
    windows = [
        window
        for i in range(1, halvings + 1)
        for window in (
            Window(name=f"conv{i}", kernel=3, padding="same"),
            Window(name=f"pool{i}", kernel=2, stride=2),
        )
    ]
    return output_side_through(side, windows)


def _blocks(
    channels: int, widths: Sequence[int], dropout: float
) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    for i, width in enumerate(widths, start=1):
        layers[f"conv{i}"] = nn.Conv2d(channels, width, 3, padding=1)
        layers[f"relu{i}"] = nn.ReLU()
        layers[f"pool{i}"] = nn.MaxPool2d(2)
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        channels = width
    return layers
