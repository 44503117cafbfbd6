"""Two small tutorial networks, one for gray images and one for color images.

Gray, 28×28×1 in:  conv 25 · pool · conv 50 · pool · 2450 · dense
Color, 32×32×3 in: conv 36 · conv 72 · conv 144, each with pool and dropout,
4·4·144 = 2304 · dense 576 · dense. Every convolution is 3×3 `same`, every pool 2×2.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.models.catalogue import register_model
from striate.models.classifier import ImageClassifier, flat_features

GRAY_WIDTHS = (25, 50)
COLOR_WIDTHS = (36, 72, 144)
COLOR_DENSE = 576


@register_model(
    "tutorial_gray", image=ImageSpec(channels=1, height=28, width=28), classes=10
)
def tutorial_gray(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build the tutorial network for gray images: two convolutions, one dense layer.

    Shapes:
        4×28×28×1 → 4×28×28×25 → 4×14×14×25 → 4×14×14×50 → 4×7×7×50 → 4×2450 → 4×10

    Example:
        >>> from striate.models.catalogue import create_named_model
        >>> model = create_named_model("tutorial_gray")
        >>> [sum(p.numel() for p in model[i].parameters()) for i in (0, 3)]
        [250, 11300]
    """
    features = _features(image.channels, GRAY_WIDTHS, dropout=0.0)
    flat = flat_features(features.items(), image)
    head = {"flatten": nn.Flatten(), "fc": nn.Linear(flat, num_classes)}
    return ImageClassifier({**features, **head})


@register_model(
    "tutorial_color", image=ImageSpec(channels=3, height=32, width=32), classes=10
)
def tutorial_color(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build the tutorial network for color images: three convolutions, dropout.

    The third convolution has `same` padding, as the shapes in the notes require.

    Shapes:
        32×32×3 → 32×32×36 → 16×16×72 → 8×8×144 → 4×4×144 = 2304 → 576 → 10

    Example:
        >>> from striate.models.catalogue import create_named_model
        >>> sum(p.numel() for p in create_named_model("tutorial_color").parameters())
        1451314
    """
    features = _features(image.channels, COLOR_WIDTHS, dropout=0.25)
    return ImageClassifier(
        {
            **features,
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(flat_features(features.items(), image), COLOR_DENSE),
            "relu4": nn.ReLU(),
            "dropout4": nn.Dropout(0.5),
            "fc2": nn.Linear(COLOR_DENSE, num_classes),
        }
    )


def _features(
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
