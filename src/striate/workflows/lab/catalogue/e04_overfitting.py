"""E4: dropout and augmentation reduce over-fitting.

Claim: dropout in the dense part and data augmentation reduce the gap between test and
training error.
Source: Krizhevsky et al. 2012 (AlexNet), section 4.
Rule: superiority of the gap reduction with a margin of 0.5 points, with 2,000 images.
The other sizes show whether the effect depends on the number of images.
Cost: 3 sizes × 4 arms, about 30 s of processor time on average, and up to 20 seeds.
"""

from __future__ import annotations

from striate.core.format import count_text
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card
from striate.workflows.lab.effects import error_reduction
from striate.workflows.lab.train_and_test import train_and_test

NETWORK = (
    "28x28x1 > conv 3x3 16 same > relu > pool 2 > conv 3x3 32 same > relu > pool 2 > "
    "dense 128 > relu > dropout > dense 10"
)
# Number of images and epochs: few images need more epochs for enough steps.
SIZES = {500: 40, 2_000: 20, 10_000: 8}
METHODS = {
    "none": {"dropout": 0.0, "augment": "none"},
    "dropout": {"dropout": 0.5, "augment": "none"},
    "six": {"dropout": 0.0, "augment": "six"},
    "both": {"dropout": 0.5, "augment": "six"},
}


def gap_reduction(arm: str, baseline: str, results: ArmResults) -> float:
    """Return by how many points the gap between test and training error is smaller."""

    def gap(name: str) -> float:
        return float(results[name]["test_error"] - results[name]["train_error"])

    return 100 * (gap(baseline) - gap(arm))


def gap_comparison(method: str, size: int, *, required: bool) -> ArmComparison:
    """Return the comparison of the gaps with a method and with none."""
    arm, baseline = f"{method}-{size}", f"none-{size}"
    return ArmComparison(
        title=f"gap with {count_text(size, 'image')}, {method} against none",
        effect=lambda results: gap_reduction(arm, baseline, results),
        rule=DecisionRule(goal="superior", margin=0.5),
        expected=2.0,
        deviation=0.5,
        required=required,
    )


def error_comparison(size: int) -> ArmComparison:
    """Return the comparison of the test errors with both methods and with none."""
    return ArmComparison(
        title=f"test error with {count_text(size, 'image')}, both against none",
        effect=error_reduction("test_error", f"both-{size}", f"none-{size}"),
        rule=DecisionRule(goal="superior", margin=0.5),
        expected=1.0,
        deviation=0.5,
        required=False,
    )


def size_interaction(results: ArmResults) -> float:
    """Return how much more both methods lower the test error with few images."""
    reductions = [
        error_reduction("test_error", f"both-{size}", f"none-{size}")(results)
        for size in (500, 10_000)
    ]
    return reductions[0] - reductions[1]


CARD = Card(
    id="E4",
    title="Dropout and augmentation",
    claim="Dropout and data augmentation reduce over-fitting: the gap between test and "
    "training error.",
    source="Krizhevsky et al. 2012 (AlexNet), section 4",
    published="without augmentation the network suffers from substantial over-fitting; "
    "dropout doubles the number of iterations",
    rule="Holds if the interval of the gap reduction is above 0 with 2,000 images, for "
    "dropout and for augmentation; equivalent if it is within ±0.5 points.",
    arms=tuple(
        Arm(
            name=f"{method}-{size}",
            changes={**changes, "train_images": size, "epochs": epochs},
        )
        for size, epochs in SIZES.items()
        for method, changes in METHODS.items()
    ),
    comparisons=(
        gap_comparison("dropout", 2_000, required=True),
        gap_comparison("six", 2_000, required=True),
        *(gap_comparison("both", size, required=False) for size in SIZES),
        *(error_comparison(size) for size in SIZES),
        ArmComparison(
            title="error reduction by both, 500 images minus 10,000 images",
            effect=size_interaction,
            rule=DecisionRule(goal="superior", margin=0.5),
            expected=1.0,
            deviation=1.0,
            required=False,
        ),
    ),
    measure=train_and_test,
    settings={
        "data": "fashion-mnist",
        **{"val_images": 500, "test_images": 20_000, "model": NETWORK},
        **{"batch_size": 64, "label_smoothing": 0.0},
    },
    quick={"test_images": 4_000},
    seconds=30,
    columns={"train_error": "training error", "test_error": "test error"},
)
