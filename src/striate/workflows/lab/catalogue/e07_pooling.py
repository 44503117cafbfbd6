"""E7: max pooling beats average pooling and strides.

Claim: max pooling gives a lower error than average pooling and than convolutions with
stride 2 in its place.
Source: Scherer et al. 2010, table 1: 4.57 % against 5.6 % on NORB.
Against it: Springenberg et al. 2014, table 3 (CIFAR-10): base 9.74, strided 10.19,
convolution before pooling 9.31, all convolutions 9.08 %.
Rule: superiority with a margin of 0.2 points, against each of the three.
Cost: about 40 s of processor time for each of 4 arms and up to 20 seeds.
"""

from __future__ import annotations

from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

LOOKS = (16, 20)  # numbers of seeds after which the results are looked at

# The third pooling is global average pooling in all arms.
POOLED = (
    "28x28x1 > conv 3x3 16 same > bn > relu > {pool} > conv 3x3 32 same > bn > relu > "
    "{pool} > conv 3x3 64 same > bn > relu > gap > dense 10"
)
STRIDE = (
    "28x28x1 > conv 3x3 16 /2 pad 1 > bn > relu > conv 3x3 32 /2 pad 1 > bn > relu > "
    "conv 3x3 64 same > bn > relu > gap > dense 10"
)
CONV_STRIDE = (
    "28x28x1 > conv 3x3 16 same > bn > relu > conv 3x3 16 /2 pad 1 > bn > relu > "
    "conv 3x3 32 same > bn > relu > conv 3x3 32 /2 pad 1 > bn > relu > "
    "conv 3x3 64 same > bn > relu > gap > dense 10"
)


def _compare(baseline: str, expected: float) -> ArmComparison:
    """Return the comparison of max pooling with another arm."""
    return ArmComparison(
        title=f"max pooling against {baseline}",
        effect=error_reduction("test_error", "max", baseline),
        rule=DecisionRule(goal="superior", margin=0.2, looks=LOOKS),
        expected=expected,
    )


CARD = Card(
    id="E7",
    title="Max pooling, average pooling, strides",
    claim="Max pooling gives a lower error than average pooling and than strides.",
    source="Scherer et al. 2010, table 1",
    published="4.57 % against 5.6 % with average pooling on NORB",
    objections="Springenberg et al. 2014, table 3 (CIFAR-10): pooling 9.74 %, strides "
    "10.19 %, convolutions with stride 2 in place of pooling 9.08 %.",
    rule="Holds if the interval of the error reduction is above 0 against all three; "
    "equivalent if it is within ±0.2 points.",
    arms=(
        Arm(name="max", changes={"model": POOLED.format(pool="pool 2")}),
        Arm(name="average", changes={"model": POOLED.format(pool="avgpool 2")}),
        Arm(
            name="stride",
            changes={"model": STRIDE},
            note="convolutions with stride 2, no pooling, equal weights",
        ),
        Arm(
            name="conv-stride",
            changes={"model": CONV_STRIDE},
            note="pooling replaced by a convolution with stride 2, more weights",
        ),
    ),
    comparisons=(
        _compare("average", 1.0),
        _compare("stride", 0.45),
        _compare("conv-stride", 0.2),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 10_000, "val_images": 500, "test_images": 59_500},
        **{"epochs": 8, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 2_000, "test_images": 5_000, "epochs": 4},
    seconds=35,
    columns={
        "test_error": "test error",
        "train_error": "training error",
        "weights": "weights",
    },
)
