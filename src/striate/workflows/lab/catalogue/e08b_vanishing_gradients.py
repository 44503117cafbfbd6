"""E8b: … because gradients vanish: only without batch norm.

Claim: gradients vanish in a plain network of 56 layers.
Source: the usual explanation of E8. Against it: He et al. 2015, section 4.1: with batch
norm it is "unlikely to be caused by vanishing gradients".
Rule: the factor of the gradient per layer before training. Shrinking by 5 % or more per
layer counts as vanishing: 0.95 to the power of 56 is 0.06.
Cost: about 5 s of processor time for each of 2 arms and up to 20 seeds; no training.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import nn

from striate.core.preprocess_config import ImageSpec
from striate.data.image_data import ImageData
from striate.interpret.depth.layer_profile import depth_profile, gradient_factor
from striate.metrics.sequential import DecisionRule
from striate.models.resnet import ResNetConfig, cifar_resnet
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.train_and_test import prepare_trial
from striate.workflows.lab.trial import Trial

IMAGES = 64  # of one batch
RULE = DecisionRule(goal="superior", margin=-math.log(0.95))


def plain_network(data: ImageData, *, batch_norm: bool) -> nn.Module:
    """Return the plain network of 56 layers, with He's initial weights."""
    height, width = data.image_size
    image = ImageSpec(channels=data.in_chans, height=height, width=width)
    config = ResNetConfig(blocks=(9, 9, 9), width=8, shortcut="")
    model = cifar_resnet(image, data.num_classes, config=config)
    if not batch_norm:
        norms = [n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        for name in norms:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, nn.Identity())
    return model


def gradients_of_plain_network(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the gradient of each layer for one batch, before training."""
    prepared = prepare_trial(trial, arm)
    x, labels = next(iter(prepared.batches("train")(0)))
    layers = depth_profile(prepared.model, x[:IMAGES], labels[:IMAGES], training=True)
    convolutions = [layer for layer in layers if layer.gradient > 0]
    return {
        "factor": gradient_factor(convolutions),
        "first_over_last": convolutions[0].gradient / convolutions[-1].gradient,
        "layers": len(layers),
        "layer": [layer.depth for layer in convolutions],
        "gradient": [layer.gradient for layer in convolutions],
    }


def shrinkage(arm: str, results: ArmResults) -> float:
    """Return −log of the factor by which a gradient changes per layer backward."""
    return -math.log(float(results[arm]["factor"]))


def _compare(arm: str, expected: float, *, required: bool) -> ArmComparison:
    """Return whether the gradients of an arm shrink from layer to layer."""
    return ArmComparison(
        title=f"shrinkage of the gradient per layer, {arm}",
        effect=partial(shrinkage, arm),
        rule=RULE,
        expected=expected,
        deviation=0.02,
        unit="times smaller per layer",
        scale="log",
        required=required,
    )


CARD = Card(
    id="E8b",
    title="Vanishing gradients of plain networks",
    claim="Gradients vanish in the plain network of 56 layers of card E8.",
    source="the usual explanation of card E8",
    published="–",
    objections="He et al. 2015, section 4.1: with batch norm the difficulty is "
    "unlikely to be caused by vanishing gradients.",
    rule="Holds if the interval of −log(factor per layer) is above 0 for the network "
    "of card E8, which has batch norm; equivalent if the factor is between 0.95 "
    "and 1.05.",
    arms=(
        Arm(name="with batch norm", network=partial(plain_network, batch_norm=True)),
        Arm(
            name="without batch norm", network=partial(plain_network, batch_norm=False)
        ),
    ),
    comparisons=(
        _compare("with batch norm", 0.0, required=True),
        _compare("without batch norm", 0.3, required=False),
    ),
    measure=gradients_of_plain_network,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 500, "val_images": 100, "test_images": 100},
        **{"image_size": 14, "batch_size": 64, "augment": "none"},
    },
    quick={},
    seconds=5,
    plots=(
        CurvePlot(
            title="Gradient by layer, before training",
            x="layer",
            y="gradient",
            x_label="layer, 1 at the input",
            y_label="gradient (root mean square)",
            log_y=True,
        ),
    ),
    columns={
        "factor": "gradient factor per layer",
        "first_over_last": "first layer over last",
    },
    limits="Gradients before training. The notes' reason for E8 stands only without "
    "batch norm.",
)
