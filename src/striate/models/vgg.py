"""VGG (Simonyan and Zisserman 2014, table 1): five blocks of 3×3 convolutions.

| block | side at 224 | channels | 11 (A) | 13 (B) | 16 (D) | 19 (E) |
|-------|-------------|----------|--------|--------|--------|--------|
| 1     | 224 → 112   | 64       | 1      | 2      | 2      | 2      |
| 2     | 112 → 56    | 128      | 1      | 2      | 2      | 2      |
| 3     | 56 → 28     | 256      | 2      | 2      | 3      | 4      |
| 4     | 28 → 14     | 512      | 2      | 2      | 3      | 4      |
| 5     | 14 → 7      | 512      | 2      | 2      | 3      | 4      |

A 2×2 pool follows each block, then 7·7·512 = 25,088 → 4096 → 4096 → classes. The dense
layers are built for the image size, as in the paper: weights of another size do not
fit. Weights are initialized by He; the paper initialized deep networks from a trained
shallow network. Layer names are those of torchvision, whose weights can be loaded.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.layers.init import he
from striate.models.catalogue import register_model
from striate.models.classifier import (
    ImageClassifier,
    dense_classifier,
    features_and_classifier,
    flat_features,
)

CHANNELS = (64, 128, 256, 512, 512)
CONVOLUTIONS = {
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
IMAGE = ImageSpec(channels=3, height=224, width=224)


def vgg(
    image: ImageSpec, num_classes: int, *, depth: int = 16, norm: bool = False
) -> ImageClassifier:
    """Build a VGG with 11, 13, 16 or 19 layers with weights.

    Example:
        >>> small = ImageSpec(channels=3, height=32, width=64)
        >>> vgg(small, 10, depth=11).classifier[0].in_features
        1024
    """
    features = nn.Sequential(*_features(image.channels, CONVOLUTIONS[depth], norm))
    flat = flat_features(features.named_children(), image, "features.")
    model = features_and_classifier(features, dense_classifier(flat, num_classes))
    he(model)
    return model


def _features(channels: int, counts: tuple[int, ...], norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for count, width in zip(counts, CHANNELS, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers.append(nn.ReLU())
            channels = width
        layers.append(nn.MaxPool2d(2))
    return layers


for _depth in CONVOLUTIONS:
    for _norm, _suffix, _line in ((False, "", ""), (True, "_bn", ", with batch norm")):
        register_model(
            f"vgg{_depth}{_suffix}",
            image=IMAGE,
            classes=1000,
            summary=f"{_depth} layers of 3×3 convolutions and dense layers{_line}",
        )(partial(vgg, depth=_depth, norm=_norm))
