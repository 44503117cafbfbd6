"""E8: deeper plain networks get worse, residual networks do not.

Claim: with 56 layers instead of 20, the *training* error of a plain network is higher,
and that of a residual network is lower.
Source: He et al. 2015 (ResNet), section 4.2 and figure 6; ResNet-20 has a test error of
8.75 %, ResNet-56 6.97 %; the plain networks are only in the figure.
Rule: superiority at the level 0.01 for both differences and for their sum.
Optimizer: the paper trains with SGD for 64,000 steps, this card for 940. On the tuning
seed 1000, SGD left residual-56 behind residual-20 (training error 8.0 against 3.3 %
with a rate of 0.1); AdamW did not (2.6 against 4.2 %).
Cost: about 60 s of processor time for each of 4 arms and up to 20 seeds.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.data.image_data import ImageData
from striate.metrics.sequential import DecisionRule
from striate.models.resnet import ResNetConfig, cifar_resnet
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

WIDTH = 8  # half the width of the paper
RULE = DecisionRule(goal="superior", margin=0.5, alpha=0.01)


def half_width_network(data: ImageData, *, depth: int, shortcut: str) -> nn.Module:
    """Return a plain (no shortcut) or a residual network of half the width."""
    height, width = data.image_size
    image = ImageSpec(channels=data.in_chans, height=height, width=width)
    blocks = ((depth - 2) // 6,) * 3
    config = ResNetConfig(blocks=blocks, width=WIDTH, shortcut=shortcut)
    return cifar_resnet(image, data.num_classes, config=config)


def arm(kind: str, depth: int) -> Arm:
    """Return the arm of a kind of network and a depth."""
    shortcut = "A" if kind == "residual" else ""
    network = partial(half_width_network, depth=depth, shortcut=shortcut)
    return Arm(name=f"{kind}-{depth}", network=network)


def depth_interaction(results: ArmResults) -> float:
    """Return by how many points depth hurts plain more than residual networks."""
    plain = error_reduction("train_error", "plain-20", "plain-56")(results)
    residual = error_reduction("train_error", "residual-20", "residual-56")(results)
    return plain - residual


CARD = Card(
    id="E8",
    title="Depth and shortcuts",
    claim="A plain network of 56 layers has a higher training error than one of 20 "
    "layers; with shortcuts the order is reversed.",
    source="He et al. 2015 (ResNet), section 4.2 and figure 6",
    published="test error of ResNet-20 8.75 %, of ResNet-56 6.97 %; the plain networks "
    "only in figure 6",
    rule="Holds if both differences of training errors, and their sum, are above 0 at "
    "the level 0.01.",
    arms=(
        arm("plain", 20),
        arm("plain", 56),
        arm("residual", 20),
        arm("residual", 56),
    ),
    comparisons=(
        ArmComparison(
            title="training error of plain networks, 56 minus 20 layers",
            effect=error_reduction("train_error", "plain-20", "plain-56"),
            rule=RULE,
            expected=5.0,
            deviation=2.0,
        ),
        ArmComparison(
            title="training error of residual networks, 20 minus 56 layers",
            effect=error_reduction("train_error", "residual-56", "residual-20"),
            rule=RULE,
            expected=1.0,
            deviation=1.0,
        ),
        ArmComparison(
            title="harm of depth, plain minus residual",
            effect=depth_interaction,
            rule=RULE,
            expected=6.0,
            deviation=2.0,
        ),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 5_000, "val_images": 500, "test_images": 10_000},
        **{"image_size": 14, "epochs": 12, "batch_size": 64, "augment": "none"},
        **{"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.0},
        **{"label_smoothing": 0.0},
    },
    quick={"train_images": 1_000, "test_images": 1_000, "epochs": 3},
    seconds=90,
    plots=(
        CurvePlot(
            title="Training loss",
            x="epoch",
            y="epoch_train_loss",
            x_label="epoch",
            y_label="training loss",
        ),
    ),
    columns={"train_error": "training error", "test_error": "test error"},
    limits="Images of 14×14 pixels, half the width and few epochs: the figures are not "
    "those of CIFAR-10, the order is.",
)
