"""E5: two 3×3 convolutions beat one of 5×5; three beat one of 7×7.

Claim: stacked 3×3 convolutions with the receptive field of one larger convolution give
a lower error.
Source: Simonyan and Zisserman 2014 (VGG), section 2.3 and 4.1: the network with 5×5
convolutions has a top-1 error that is 7 % higher.
Rule: superiority with a margin of 0.2 points, at equal width and at equal weights.
Cost: about 40 s of processor time for each of 6 arms and up to 20 seeds.
"""

from __future__ import annotations

from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

WIDTH = 32
# Weights of one 5×5 convolution: 25·32² = 25,600; of two 3×3 ones from 32 to w to 32
# channels: 9·32·w·2, which is equal for w = 44. One 7×7 one: 49·32² = 50,176; three 3×3
# ones 32 → w → w → 32: 9·(64·w + w²), nearly equal for w = 49.
CONV = "conv {k} {w} same > bn > relu"
SMALL = CONV.format(k="3x3", w=WIDTH)
BLOCKS = {
    "5x5": CONV.format(k="5x5", w=WIDTH),
    "two 3x3": f"{SMALL} > {SMALL}",
    "two 3x3, equal weights": f"{CONV.format(k='3x3', w=44)} > {SMALL}",
    "7x7": CONV.format(k="7x7", w=WIDTH),
    "three 3x3": f"{SMALL} > {SMALL} > {SMALL}",
    "three 3x3, equal weights": f"2 * ({CONV.format(k='3x3', w=49)}) > {SMALL}",
}
NETWORK = (
    f"28x28x1 > {SMALL} > pool 2 > {{block}} > pool 2 > {{block}} > gap > dense 10"
)


def _compare(arm: str, baseline: str) -> ArmComparison:
    """Return the comparison of the test errors of two blocks."""
    return ArmComparison(
        title=f"{arm} against one {baseline}",
        effect=error_reduction("test_error", arm, baseline),
        rule=DecisionRule(goal="superior", margin=0.2),
        expected=0.5,
    )


CARD = Card(
    id="E5",
    title="Small kernels",
    claim="Two 3×3 convolutions give a lower error than one of 5×5, and three a lower "
    "error than one of 7×7, with equal receptive fields.",
    source="Simonyan and Zisserman 2014 (VGG), sections 2.3 and 4.1",
    published="the top-1 error of a network with 5×5 convolutions is 7 % higher",
    rule="Holds if the interval of the error reduction is above 0 in all four "
    "comparisons; equivalent if it is within ±0.2 points.",
    arms=tuple(
        Arm(name=name, changes={"model": NETWORK.format(block=block)})
        for name, block in BLOCKS.items()
    ),
    comparisons=(
        _compare("two 3x3", "5x5"),
        _compare("two 3x3, equal weights", "5x5"),
        _compare("three 3x3", "7x7"),
        _compare("three 3x3, equal weights", "7x7"),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 10_000, "val_images": 500, "test_images": 30_000},
        **{"epochs": 6, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 1_500, "test_images": 3_000, "epochs": 3},
    seconds=60,
    columns={
        "test_error": "test error",
        "train_error": "training error",
        "weights": "weights",
    },
)
