"""E3: local response normalization lowers the error.

Claim: LRN after the first two convolutions lowers the test error.
Source: Krizhevsky et al. 2012 (AlexNet), section 3.3: −1.4 and −1.2 points on ImageNet,
13 % to 11 % on CIFAR-10 with a network of four convolutions.
Against it: Simonyan and Zisserman 2014 (VGG), section 2.3: it does not improve.
Rule: superiority and equivalence with a margin of 0.3 points. A third arm has
batch norm.
Cost: about 45 s of processor time for each of 3 arms and up to 20 seeds.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from striate.data.image_data import ImageData
from striate.layers.lrn import LRN
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

LOOKS = (16, 20)  # numbers of seeds after which the results are looked at

WIDTHS = (16, 32, 64)


def normalized_network(
    data: ImageData, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """Return three convolutions with ReLU and pooling, normalized after two of them."""
    layers: list[nn.Module] = []
    channels = data.in_chans
    for number, width in enumerate(WIDTHS):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        layers += [norm(width)] if number < 2 else []
        layers += [nn.MaxPool2d(2)]
        channels = width
    dense = nn.Linear(9 * channels, data.num_classes)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten(), dense)


def without_norm(data: ImageData) -> nn.Module:
    """Return the network without normalization."""
    return normalized_network(data, lambda width: nn.Identity())


def with_lrn(data: ImageData) -> nn.Module:
    """Return the network with LRN, with the constants of the paper."""
    return normalized_network(data, lambda width: LRN(5, alpha=1e-4, beta=0.75, k=2.0))


def with_batch_norm(data: ImageData) -> nn.Module:
    """Return the network with batch norm in the places of LRN."""
    return normalized_network(data, nn.BatchNorm2d)


def _compare(arm: str, expected: float, *, required: bool) -> ArmComparison:
    """Return the comparison of an arm with the network without normalization."""
    return ArmComparison(
        title=f"{arm} against no normalization",
        effect=error_reduction("test_error", arm, "none"),
        rule=DecisionRule(goal="superior", margin=0.3, looks=LOOKS),
        expected=expected,
        required=required,
    )


CARD = Card(
    id="E3",
    title="Local response normalization",
    claim="Local response normalization lowers the test error.",
    source="Krizhevsky et al. 2012 (AlexNet), section 3.3",
    published="top-1 error −1.4 points, top-5 error −1.2 points on ImageNet; 13 % to "
    "11 % on CIFAR-10",
    objections="Simonyan and Zisserman 2014 (VGG), section 2.3: it does not improve "
    "the result, and it costs memory and time.",
    rule="Holds if the interval of the error reduction is above 0; equivalent if it "
    "is within ±0.3 points. Batch norm is shown for comparison.",
    arms=(
        Arm(name="none", network=without_norm),
        Arm(name="LRN", network=with_lrn, note="constants of the paper"),
        Arm(name="batch norm", network=with_batch_norm),
    ),
    comparisons=(
        _compare("LRN", 1.4, required=True),
        _compare("batch norm", 1.0, required=False),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 10_000, "val_images": 500, "test_images": 59_500},
        **{"epochs": 8, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 2_000, "test_images": 5_000, "epochs": 4},
    seconds=45,
    columns={"test_error": "test error", "train_error": "training error"},
)
