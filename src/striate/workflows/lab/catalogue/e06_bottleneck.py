"""E6: a 1×1 bottleneck keeps the accuracy at a tenth of the multiply-adds.

Claim: a 1×1 convolution to 16 channels before a 5×5 convolution of 192 channels costs a
tenth of the multiply-adds (MACs), and the accuracy stays.
Source: Szegedy et al. 2014 (GoogLeNet), section 4. The arithmetic: 10.33 % of the MACs.
Rule: non-inferiority with a margin of 0.5 points.
Cost: about 40 s of processor time for each of 2 arms and up to 20 seeds.
"""

from __future__ import annotations

from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

LOOKS = (16, 20)  # numbers of seeds after which the results are looked at

STEM = (
    "28x28x1 > conv 3x3 24 same > bn > relu > pool 2 > conv 3x3 48 same > bn > relu > "
    "pool 2 > conv 1x1 192 > bn > relu"
)
DIRECT = f"{STEM} > conv 5x5 32 same > bn > relu > gap > dense 10"
BOTTLENECK = (
    f"{STEM} > conv 1x1 16 > bn > relu > conv 5x5 32 same > bn > relu > gap > dense 10"
)

CARD = Card(
    id="E6",
    title="1×1 bottleneck",
    claim="A 1×1 bottleneck keeps the accuracy at a tenth of the multiply-adds of the "
    "5×5 convolution behind it.",
    source="Szegedy et al. 2014 (GoogLeNet), section 4",
    published="10.33 % of the multiply-adds: 12,443,648 instead of 120,422,400",
    rule="Holds if the interval of the difference in error is above −0.5 points "
    "(non-inferiority).",
    arms=(
        Arm(name="direct", changes={"model": DIRECT}, note="192 channels → 5×5, 32"),
        Arm(
            name="bottleneck",
            changes={"model": BOTTLENECK},
            note="192 channels → 1×1, 16 → 5×5, 32",
        ),
    ),
    comparisons=(
        ArmComparison(
            title="bottleneck against direct convolution",
            effect=error_reduction("test_error", "bottleneck", "direct"),
            rule=DecisionRule(goal="not_inferior", margin=0.5, looks=LOOKS),
            expected=0.0,
        ),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 10_000, "val_images": 500, "test_images": 30_000},
        **{"epochs": 6, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 2_000, "test_images": 4_000, "epochs": 4},
    seconds=45,
    columns={
        "test_error": "test error",
        "train_error": "training error",
        "weights": "weights",
    },
    limits="One network on one data set; GoogLeNet has nine such modules.",
)
