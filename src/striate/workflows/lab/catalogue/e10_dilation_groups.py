"""E10: dilation and groups at equal weights.

Claim: with 9 weights, a 3×3 kernel with dilation 2 sees patterns of 5×5 pixels, and one
without dilation does not.
Source: Yu and Koltun 2016, section 2; the arithmetic of receptive fields.
Setting: two bright dots, k pixels apart, side by side or one above the other, in noise;
the network has one convolution, so it must see both dots in one window. The card makes
these images itself. Groups and dilation on Fashion-MNIST are for comparison.
Rule: superiority in accuracy with a margin of 5 points, with dots 4 pixels apart.
Cost: about 20 s of processor time for each of 8 arms and up to 20 seeds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from striate.data.sources.source import Source, from_arrays
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.lab_data import load_source
from striate.workflows.lab.train_and_test import (
    measure_errors,
    prepare_on,
    train_and_test,
    train_trial,
)
from striate.workflows.lab.trial import Trial

SIDE = 16
DISTANCES = (2, 4)  # pixels between the two dots
ONE_LAYER = "16x16x1 > conv 3x3 16 {kind} > bn > relu > gap > dense 2"
KINDS = {"plain": "same", "dilated": "d=2 pad 2"}
# 3×3 convolutions of 32 channels: 9·32·32 weights; with 2 groups, 45 channels have
# nearly as many: 9·45·45/2, here 44 for an even number.
FASHION = (
    "28x28x1 > conv 3x3 {w} same > bn > relu > pool 2 > conv 3x3 {w} {kind} > bn > "
    "relu > pool 2 > conv 3x3 {w} {kind} > bn > relu > gap > dense 10"
)
FASHION_ARMS = {
    "plain on Fashion-MNIST": FASHION.format(w=32, kind="same"),
    "dilated on Fashion-MNIST": FASHION.format(w=32, kind="d=2 pad 2"),
    "groups on Fashion-MNIST": FASHION.format(w=44, kind="same g=2"),
}


def dot_pairs(distance: int, count: int, seed: int) -> Source:
    """Return noisy images with two dots side by side, or one above the other.

    Example:
        >>> source = dot_pairs(4, 10, 0)
        >>> source.arrays.shape, sorted({record.label for record in source.records})
        ((10, 16, 16, 1), ['above', 'beside'])
    """
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 90, (count, SIDE, SIDE), dtype=np.uint8)
    labels = []
    for number in range(count):
        beside = number % 2 == 0
        row, column = rng.integers(0, SIDE - distance, 2)
        down, right = (0, distance) if beside else (distance, 0)
        images[number, row, column] = 255
        images[number, row + down, column + right] = 255
        labels.append("beside" if beside else "above")
    return from_arrays(f"dots-{distance}", images, labels)


def measure_arm(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Train one arm on pairs of dots, or on the data set of the settings."""
    distance = trial.settings.get("distance")
    if distance is None:
        return train_and_test(trial, arm)
    settings = {k: v for k, v in trial.settings.items() if k != "distance"}
    sizes = ("train_images", "val_images", "test_images")
    count = sum(int(settings[name]) for name in sizes)
    source = dot_pairs(int(distance), count, trial.stream("dots"))
    data = load_source(source, settings, trial.seed)
    dots = replace(trial, settings=settings)
    return measure_errors(train_trial(prepare_on(data, dots, arm)))


def dots_arm(kind: str, distance: int) -> Arm:
    """Return the arm of a kind of convolution and a distance of the dots."""
    model = ONE_LAYER.format(kind=KINDS[kind])
    sizes = {"train_images": 2_000, "val_images": 200, "test_images": 4_000}
    changes = {"model": model, "distance": distance, "epochs": 15, **sizes}
    return Arm(name=f"{kind}, dots {distance} apart", changes=changes)


def _compare(
    better: str, baseline: str, expected: float, *, required: bool = False
) -> ArmComparison:
    """Return the comparison of the errors of two arms."""
    return ArmComparison(
        title=f"{better} against {baseline}",
        effect=error_reduction("test_error", better, baseline),
        rule=DecisionRule(goal="superior", margin=5.0 if required else 0.3),
        expected=expected,
        deviation=2.0 if required else 0.4,
        required=required,
    )


CARD = Card(
    id="E10",
    title="Dilation and groups",
    claim="A 3×3 convolution with dilation 2 sees patterns of 5×5 pixels with the same "
    "9 weights; without dilation it does not see them.",
    source="Yu and Koltun 2016, section 2",
    published="3×3 with dilation 2 has a receptive field of 5×5",
    rule="Holds if the interval of the error reduction is above 0 with dots 4 pixels "
    "apart; equivalent if it is within ±5 points.",
    arms=(
        *(dots_arm(kind, distance) for distance in DISTANCES for kind in KINDS),
        *(Arm(name=name, changes={"model": m}) for name, m in FASHION_ARMS.items()),
    ),
    comparisons=(
        _compare(
            "dilated, dots 4 apart", "plain, dots 4 apart", expected=45, required=True
        ),
        _compare("plain, dots 2 apart", "dilated, dots 2 apart", expected=0),
        _compare("dilated on Fashion-MNIST", "plain on Fashion-MNIST", expected=0),
        _compare("groups on Fashion-MNIST", "plain on Fashion-MNIST", expected=0),
    ),
    measure=measure_arm,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 6_000, "val_images": 500, "test_images": 20_000},
        **{"epochs": 5, "batch_size": 64, "augment": "none", "lr": 0.01},
    },
    quick={"train_images": 1_500, "test_images": 3_000, "epochs": 3},
    seconds=20,
    columns={"test_error": "test error", "weights": "weights"},
)
