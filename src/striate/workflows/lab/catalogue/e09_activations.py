"""E9: gradients through depth with sigmoid, tanh and ReLU.

Claim: in a deep chain of convolutions the gradient vanishes fastest with sigmoid, less
with tanh, and least with ReLU.
Source: the notes; Glorot and Bengio 2010, section 4.2.
Rule: the factor of the gradient per layer before training, with weights as each
activation wants them: Glorot for sigmoid and tanh, He for ReLU. Exact for a seed.
Cost: about 3 s of processor time for each of 3 arms; 5 initial weights.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch import nn

from striate.data.image_data import ImageData
from striate.interpret.depth.layer_profile import depth_profile, gradient_factor
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.train_and_test import prepare_trial
from striate.workflows.lab.trial import Trial

DEPTH = 32
WIDTH = 8
ACTIVATIONS = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "ReLU": nn.ReLU}
RULE = DecisionRule(goal="superior", margin=0.01, looks=(3, 5))


def chain(data: ImageData, *, activation: str) -> nn.Module:
    """Return a chain of 3×3 convolutions, each followed by the activation."""
    layers: list[nn.Module] = []
    channels = data.in_chans
    for _ in range(DEPTH):
        conv = nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False)
        if activation == "ReLU":
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(conv.weight)
        layers += [conv, ACTIVATIONS[activation]()]
        channels = WIDTH
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, data.num_classes)]
    return nn.Sequential(*layers, *head)


def gradients_of_chain(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the gradient of each layer for one batch, before training."""
    prepared = prepare_trial(trial, arm)
    x, labels = next(iter(prepared.batches("train")(0)))
    layers = depth_profile(prepared.model, x, labels)[:DEPTH]
    return {
        "factor": gradient_factor(layers),
        "first_over_last": layers[0].gradient / layers[-1].gradient,
        "layer": [layer.depth for layer in layers],
        "gradient": [layer.gradient for layer in layers],
    }


def factor_difference(better: str, worse: str, results: ArmResults) -> float:
    """Return the logarithm of the ratio of two factors per layer."""
    return math.log(results[better]["factor"] / results[worse]["factor"])


def _compare(better: str, worse: str, expected: float) -> ArmComparison:
    """Return the comparison of the gradient factors of two activations."""
    return ArmComparison(
        title=f"gradient factor per layer, {better} over {worse}",
        effect=partial(factor_difference, better, worse),
        rule=RULE,
        expected=expected,
        deviation=0.02,
        unit="times per layer",
        scale="log",
    )


CARD = Card(
    id="E9",
    title="Sigmoid, tanh and ReLU through depth",
    claim="In a chain of 32 convolutions the gradient shrinks most per layer with "
    "sigmoid, less with tanh, and least with ReLU.",
    source="the notes; Glorot and Bengio 2010, section 4.2",
    published="the derivative of sigmoid is at most 0.25",
    rule="Holds if the interval of the ratio of the factors is above 1 for tanh over "
    "sigmoid and for ReLU over tanh; equivalent if it is within 1 %.",
    arms=tuple(
        Arm(name=name, network=partial(chain, activation=name)) for name in ACTIVATIONS
    ),
    comparisons=(
        _compare("tanh", "sigmoid", math.log(4)),
        _compare("ReLU", "tanh", math.log(1.05)),
    ),
    measure=gradients_of_chain,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 500, "val_images": 100, "test_images": 100},
        **{"image_size": 14, "batch_size": 64, "augment": "none"},
    },
    quick={},
    seconds=3,
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
)
