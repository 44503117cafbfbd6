"""AlexNet (Krizhevsky et al. 2012, section 3.5 and figure 2).

| layer | side at 227 | maps | kernel | reads      | then                       |
|-------|-------------|------|--------|------------|----------------------------|
| conv1 | 55          | 96   | 11×11/4| all maps   | ReLU, LRN, pool 3×3/2 → 27 |
| conv2 | 27          | 256  | 5×5    | its half   | ReLU, LRN, pool 3×3/2 → 13 |
| conv3 | 13          | 384  | 3×3    | all maps   | ReLU                       |
| conv4 | 13          | 384  | 3×3    | its half   | ReLU                       |
| conv5 | 13          | 256  | 3×3    | its half   | ReLU, pool 3×3/2 → 6       |
| fc6   |             | 4096 | dense  | 6·6·256    | ReLU, dropout ½            |
| fc7   |             | 4096 | dense  | all        | ReLU, dropout ½            |

"Its half": the paper uses two GPUs, this file two groups. The paper gives image size
224, for which conv1 has 54×54 outputs; its 55×55 needs 227, or 224 with padding 2.
The dense layers are built for the image size: weights of another size do not fit.

`alexnet_one_tower` ("One weird trick", Krizhevsky 2014, section 5) has 64, 192, 384,
256 and 256 maps, no groups, no LRN, dropout before each 4096. Its layer names are those
of torchvision's `alexnet`, whose weights can be loaded. The paper's network also has
`features` and `classifier`, but two LRN layers more, and no public weights.
"""

from __future__ import annotations

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.layers.init import he
from striate.layers.lrn import LRN
from striate.models.catalogue import register_model
from striate.models.classifier import (
    ImageClassifier,
    dense_classifier,
    features_and_classifier,
    flat_features,
)

PAPER_IMAGE = ImageSpec(channels=3, height=227, width=227)
IMAGE = ImageSpec(channels=3, height=224, width=224)
DENSE = 4096
STD = 0.01  # of the initial weights, section 5
BIAS_ONE = (2, 4, 5, 6, 7)  # layers with weights, from 1: biases start at 1, section 5


def _paper(image: ImageSpec, num_classes: int, groups: int) -> ImageClassifier:
    features = nn.Sequential(
        nn.Conv2d(image.channels, 96, 11, stride=4),
        nn.ReLU(),
        LRN(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=groups),
        nn.ReLU(),
        LRN(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=groups),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    flat = flat_features(features.named_children(), image, "features.")
    model = features_and_classifier(features, dense_classifier(flat, num_classes))
    layers = (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    for number, layer in enumerate(layers, start=1):
        nn.init.normal_(layer.weight, std=STD)
        bias: nn.Parameter = layer.bias  # type: ignore[assignment]
        nn.init.constant_(bias, float(number in BIAS_ONE))
    return model


@register_model("alexnet", image=PAPER_IMAGE, classes=1000)
def alexnet(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build the paper's AlexNet: two groups, LRN, overlapping pools.

    Example:
        >>> import torch
        >>> from striate.models.catalogue import create_named_model
        >>> with torch.device("meta"):
        ...     model = create_named_model("alexnet")
        >>> sum(p.numel() for p in model.parameters())
        60965224
    """
    return _paper(image, num_classes, groups=2)


@register_model("alexnet_ungrouped", image=PAPER_IMAGE, classes=1000)
def alexnet_ungrouped(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build AlexNet without groups: every convolution reads all input maps."""
    return _paper(image, num_classes, groups=1)


@register_model("alexnet_one_tower", image=IMAGE, classes=1000)
def alexnet_one_tower(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build torchvision's AlexNet of 2014: no groups, no LRN, public weights."""
    features = nn.Sequential(
        nn.Conv2d(image.channels, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
    )
    classifier = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(flat_features(features.named_children(), image, "features."), DENSE),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(DENSE, DENSE),
        nn.ReLU(),
        nn.Linear(DENSE, num_classes),
    )
    model = features_and_classifier(features, classifier)
    he(model)
    return model
