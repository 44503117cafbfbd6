"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, section 3.5 and figure 2).

| layer | side at 227 | maps | kernel | sees       | then                       |
|-------|-------------|------|--------|------------|----------------------------|
| conv1 | 55          | 96   | 11×11/4| all        | ReLU, LRN, pool 3×3/2 → 27 |
| conv2 | 27          | 256  | 5×5    | its half   | ReLU, LRN, pool 3×3/2 → 13 |
| conv3 | 13          | 384  | 3×3    | all        | ReLU                       |
| conv4 | 13          | 384  | 3×3    | its half   | ReLU                       |
| conv5 | 13          | 256  | 3×3    | its half   | ReLU, pool 3×3/2 → 6       |
| fc6   |             | 4096 | dense  | 6·6·256    | ReLU, dropout ½            |
| fc7   |             | 4096 | dense  | all        | ReLU, dropout ½            |

"Its half": the paper's two processors, two groups here. The paper says 224, from
which 11×11/4 makes 54; its 55 needs 227, or 224 with padding 2, as in the one tower.
The dense part is cut to the picture: weights of another size do not fit it.

The one tower ("One weird trick", Krizhevsky 2014, section 5) has 64, 192, 384, 256 and
256 maps, no groups, no LRN, dropout before each 4096; its weights are public.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from striate.core.conv_arithmetic import Window, output_side_through
from striate.core.preprocess import ImageSpec
from striate.layers.init import he
from striate.layers.lrn import LRN
from striate.models.catalogue import network

DENSE = 4096
DEVIATION = 0.01  # section 5
BIASED = ("conv2", "conv4", "conv5", "fc6", "fc7")  # start at 1, section 5
TOWER = (64, 192, 384, 256, 256)


def _windows(padding: int) -> tuple[Window, ...]:
    return (
        Window(name="conv1", kernel=11, stride=4, padding=padding),
        Window(name="pool1", kernel=3, stride=2),
        Window(name="conv2", kernel=5, padding=2),
        Window(name="pool2", kernel=3, stride=2),
        *(Window(name=f"conv{i}", kernel=3, padding=1) for i in (3, 4, 5)),
        Window(name="pool5", kernel=3, stride=2),
    )


def _positions(image: ImageSpec, padding: int) -> int:
    windows = _windows(padding)
    return output_side_through(image.height, windows) * output_side_through(
        image.width, windows
    )


def _paper(image: ImageSpec, num_classes: int, groups: int) -> nn.Sequential:
    flat = 256 * _positions(image, padding=0)
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image.channels, 96, 11, stride=4),
            relu1=nn.ReLU(),
            lrn1=LRN(),
            pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(96, 256, 5, padding=2, groups=groups),
            relu2=nn.ReLU(),
            lrn2=LRN(),
            pool2=nn.MaxPool2d(3, 2),
            conv3=nn.Conv2d(256, 384, 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(384, 384, 3, padding=1, groups=groups),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(384, 256, 3, padding=1, groups=groups),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
            flatten=nn.Flatten(),
            fc6=nn.Linear(flat, DENSE),
            relu6=nn.ReLU(),
            dropout6=nn.Dropout(0.5),
            fc7=nn.Linear(DENSE, DENSE),
            relu7=nn.ReLU(),
            dropout7=nn.Dropout(0.5),
            head=nn.Linear(DENSE, num_classes),
        )
    )
    _initialise(model)
    return model


def _initialise(model: nn.Sequential) -> None:
    """Draw weights from N(0, 0.01²); some biases are 1 so that ReLUs start awake."""
    for name, layer in model.named_children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=DEVIATION)
            bias: nn.Parameter = layer.bias  # type: ignore[assignment]
            nn.init.constant_(bias, float(name in BIASED))


@network("alexnet", image=ImageSpec(channels=3, height=227, width=227), classes=1000)
def alexnet(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the paper's AlexNet: two groups, LRN, overlapping pools.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is smaller than the windows need.

    Example:
        >>> import torch
        >>> from striate.models.catalogue import create_model
        >>> with torch.device("meta"):
        ...     model = create_model("alexnet")
        >>> sum(p.numel() for p in model.parameters())
        60965224
    """
    return _paper(image, num_classes, groups=2)


@network(
    "alexnet_ungrouped",
    image=ImageSpec(channels=3, height=227, width=227),
    classes=1000,
)
def alexnet_ungrouped(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build AlexNet as one processor would have had it: every map sees all others.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is smaller than the windows need.
    """
    return _paper(image, num_classes, groups=1)


@network(
    "alexnet_one_tower",
    image=ImageSpec(channels=3, height=224, width=224),
    classes=1000,
)
def alexnet_one_tower(image: ImageSpec, num_classes: int) -> nn.Sequential:
    """Build the AlexNet of 2014, whose weights are public: one tower, no LRN.

    Shapes:
        (N, C, H, W) → (N, num_classes)

    Raises:
        GeometryError: The picture is smaller than the windows need.
    """
    flat = TOWER[-1] * _positions(image, padding=2)
    model = nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(image.channels, TOWER[0], 11, stride=4, padding=2),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(3, 2),
            conv2=nn.Conv2d(TOWER[0], TOWER[1], 5, padding=2),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(3, 2),
            conv3=nn.Conv2d(TOWER[1], TOWER[2], 3, padding=1),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(TOWER[2], TOWER[3], 3, padding=1),
            relu4=nn.ReLU(),
            conv5=nn.Conv2d(TOWER[3], TOWER[4], 3, padding=1),
            relu5=nn.ReLU(),
            pool5=nn.MaxPool2d(3, 2),
            flatten=nn.Flatten(),
            dropout6=nn.Dropout(0.5),
            fc6=nn.Linear(flat, DENSE),
            relu6=nn.ReLU(),
            dropout7=nn.Dropout(0.5),
            fc7=nn.Linear(DENSE, DENSE),
            relu7=nn.ReLU(),
            head=nn.Linear(DENSE, num_classes),
        )
    )
    he(model)
    return model
