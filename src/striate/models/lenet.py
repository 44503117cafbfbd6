"""LeNet-5 (LeCun, Bottou, Bengio, Haffner 1998): the paper's, and the one now meant.

| layer | maps   | kernel | parameters | note                              |
|-------|--------|--------|------------|-----------------------------------|
| C1    | 6      | 5×5    | 156        |                                   |
| S2    | 6      | 2×2/2  | 12         | gain and bias a map, then squash  |
| C3    | 16     | 5×5    | 1,516      | partial connections, table I      |
| S4    | 16     | 2×2/2  | 32         |                                   |
| C5    | 120    | 5×5    | 48,120     | covers S4's whole map             |
| F6    | 84     | dense  | 10,164     |                                   |
| out   | 10     | RBF    | –          | fixed codes; 60,000 trained in all|
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess import ImageSpec
from striate.layers.connect import LENET_C3, PartialConv2d
from striate.layers.rbf import RBFOutput, digit_codes, random_codes
from striate.layers.scaled_tanh import ScaledTanh
from striate.layers.subsample import Subsample2d
from striate.models.catalogue import network

PAPER_WINDOWS = (
    Window(name="c1", kernel=5),
    Window(name="s2", kernel=2, stride=2),
    Window(name="c3", kernel=5),
    Window(name="s4", kernel=2, stride=2),
)
MODERN_WINDOWS = (
    Window(name="conv1", kernel=5, padding=2),
    Window(name="pool1", kernel=2, stride=2),
    Window(name="conv2", kernel=5),
    Window(name="pool2", kernel=2, stride=2),
)


@network("lenet5", image=ImageSpec(channels=1, height=32, width=32), classes=10)
def lenet5(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the paper's LeNet-5: trainable subsampling, partial C3, RBF output.

    The paper's input is 32×32×1; on other sizes C5 still covers the whole of S4.
    Ten classes get the drawn digit codes, any other number random ±1 codes.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is smaller than the windows need.

    Example:
        >>> from striate.models.catalogue import create_model
        >>> sum(p.numel() for p in create_model("lenet5").parameters())
        60000
    """
    rows = output_side_through(image.height, PAPER_WINDOWS)
    columns = output_side_through(image.width, PAPER_WINDOWS)
    codes = digit_codes() if num_classes == 10 else random_codes(num_classes, 84)
    model = nn.Sequential(
        OrderedDict(
            c1=nn.Conv2d(image.channels, 6, 5),
            squash1=ScaledTanh(),
            s2=Subsample2d(6),
            squash2=ScaledTanh(),
            c3=PartialConv2d(LENET_C3, 5),
            squash3=ScaledTanh(),
            s4=Subsample2d(16),
            squash4=ScaledTanh(),
            c5=nn.Conv2d(16, 120, (rows, columns)),
            squash5=ScaledTanh(),
            flatten=nn.Flatten(),
            f6=nn.Linear(120, 84),
            squash6=ScaledTanh(),
            output=RBFOutput(codes),
        )
    )
    _initialise(model)
    return model


def _initialise(model: nn.Sequential) -> None:
    """Draw weights uniformly within ±2.4/fan_in (the paper, appendix A)."""
    for layer in model:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = 2.4 / layer.weight[0].numel()
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


@network("lenet5_modern", image=ImageSpec(channels=1, height=28, width=28), classes=10)
def lenet5_modern(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the LeNet-5 that everyone means: ReLU, max pooling, full connections.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is smaller than the windows need.

    Example:
        >>> from striate.models.catalogue import create_model
        >>> sum(p.numel() for p in create_model("lenet5_modern").parameters())
        61706
    """
    rows = output_side_through(image.height, MODERN_WINDOWS)
    columns = output_side_through(image.width, MODERN_WINDOWS)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image.channels, 6, 5, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * rows * columns, 120),
            relu3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            relu4=nn.ReLU(),
            head=nn.Linear(84, num_classes),
        )
    )
