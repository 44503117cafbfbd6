"""LeNet-5 (LeCun et al. 1998), as in the paper and in a modern version.

| layer | maps   | kernel | parameters | note                              |
|-------|--------|--------|------------|-----------------------------------|
| C1    | 6      | 5×5    | 156        |                                   |
| S2    | 6      | 2×2/2  | 12         | gain and bias per map, then tanh  |
| C3    | 16     | 5×5    | 1,516      | partial connections, table I      |
| S4    | 16     | 2×2/2  | 32         |                                   |
| C5    | 120    | 5×5    | 48,120     | covers S4's whole map             |
| F6    | 84     | dense  | 10,164     |                                   |
| out   | 10     | RBF    | –          | fixed codes; 60,000 trained in all|
"""

from __future__ import annotations

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess_config import ImageSpec
from striate.layers.partial_conv import LENET_C3, PartialConv2d
from striate.layers.rbf import RBFOutput, class_codes
from striate.layers.scaled_tanh import ScaledTanh
from striate.layers.subsample import Subsample2d
from striate.models.catalogue import register_model
from striate.models.classifier import ImageClassifier, flat_features

PAPER_WINDOWS = (
    Window(name="c1", kernel=5),
    Window(name="s2", kernel=2, stride=2),
    Window(name="c3", kernel=5),
    Window(name="s4", kernel=2, stride=2),
)
CODE_FEATURES = 7 * 12  # the class codes are drawings of 7×12 pixels


class LeNet5(ImageClassifier):
    """LeNet-5 of the paper, whose classifier compares features with class codes."""

    def _new_classifier(self, features: int, num_classes: int) -> nn.Module:
        if num_classes == 0:
            return nn.Identity()
        return RBFOutput(class_codes(num_classes, features))


@register_model("lenet5", image=ImageSpec(channels=1, height=32, width=32), classes=10)
def lenet5(image: ImageSpec, num_classes: int) -> LeNet5:
    """Build the paper's LeNet-5: trainable pooling, partial connections, RBF output.

    The paper's input is 32×32×1; for other sizes, the kernel of C5 has the size of S4.
    Ten classes have the digit drawings as codes, other numbers of classes random codes.
    Layers have the paper's names.

    Example:
        >>> from striate.models.catalogue import create_named_model
        >>> sum(p.numel() for p in create_named_model("lenet5").parameters())
        60000
    """
    rows = output_side_through(image.height, PAPER_WINDOWS)
    columns = output_side_through(image.width, PAPER_WINDOWS)
    model = LeNet5(
        {
            "c1": nn.Conv2d(image.channels, 6, 5),
            "tanh1": ScaledTanh(),
            "s2": Subsample2d(6),
            "tanh2": ScaledTanh(),
            "c3": PartialConv2d(LENET_C3, 5),
            "tanh3": ScaledTanh(),
            "s4": Subsample2d(16),
            "tanh4": ScaledTanh(),
            "c5": nn.Conv2d(16, 120, (rows, columns)),
            "tanh5": ScaledTanh(),
            "flatten": nn.Flatten(),
            "f6": nn.Linear(120, CODE_FEATURES),
            "tanh6": ScaledTanh(),
            "output": RBFOutput(class_codes(num_classes, CODE_FEATURES)),
        }
    )
    _initialize(model)
    return model


def _initialize(model: nn.Sequential) -> None:
    """Initialize weights uniformly within ±2.4/fan_in (the paper, appendix A)."""
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@register_model(
    "lenet5_modern", image=ImageSpec(channels=1, height=28, width=28), classes=10
)
def lenet5_modern(image: ImageSpec, num_classes: int) -> ImageClassifier:
    """Build a modern LeNet-5: ReLU, max pooling, full connections.

    Example:
        >>> from striate.models.catalogue import create_named_model
        >>> sum(p.numel() for p in create_named_model("lenet5_modern").parameters())
        61706
    """
    features = {
        "conv1": nn.Conv2d(image.channels, 6, 5, padding=2),
        "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2),
        "conv2": nn.Conv2d(6, 16, 5),
        "relu2": nn.ReLU(),
        "pool2": nn.MaxPool2d(2),
    }
    return ImageClassifier(
        {
            **features,
            "flatten": nn.Flatten(),
            "fc1": nn.Linear(flat_features(features.items(), image), 120),
            "relu3": nn.ReLU(),
            "fc2": nn.Linear(120, 84),
            "relu4": nn.ReLU(),
            "fc3": nn.Linear(84, num_classes),
        }
    )
