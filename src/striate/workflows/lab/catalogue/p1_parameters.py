"""P1: the number of parameters of a convolution does not depend on the image size.

Claim: a convolution has (f·f·C + 1)·K parameters, at any image size; a dense layer has
one weight for each pixel and unit.
Source: the notes; (3·3·3 + 1)·2 = 56 and (3·3·1 + 1)·10 = 100 parameters, and 100
million weights for an image of 1000×1000 pixels and 100 dense units.
Cost: a second; exact.
"""

from __future__ import annotations

from typing import Any

from striate.audit.meta_device import init_empty_weights
from striate.audit.sketch_parser import sketch
from striate.core.format import count_text
from striate.workflows.lab.card import Arm, ArmResults, Card
from striate.workflows.lab.trial import Trial

SIDES = (8, 28, 224)
DENSE_WEIGHTS = 100_000_000


def count_parameters(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the parameters of a convolution at several sizes, and those of a dense."""
    counts = {}
    for side in SIDES:
        model, _ = sketch(f"{side}x{side}x1 > conv 3x3 10")
        counts[f"conv_{side}"] = sum(p.numel() for p in model.parameters())
    color, _ = sketch("28x28x3 > conv 3x3 2")
    with init_empty_weights():  # 400 MB otherwise
        kernel, _ = sketch("1000x1000x1 > conv 3x3 1 nobias")
        dense, _ = sketch("1000x1000x1 > dense 100 nobias")
    return {
        **counts,
        "two_color_filters": sum(p.numel() for p in color.parameters()),
        "dense": sum(p.numel() for p in dense.parameters()),
        "one_kernel": sum(p.numel() for p in kernel.parameters()),
    }


def _is_exact(results: ArmResults) -> bool:
    """Return whether all counts are those of the claim."""
    counts = results["counts"]
    convolutions = {counts[f"conv_{side}"] for side in SIDES}
    pair = counts["two_color_filters"], counts["dense"]
    return convolutions == {100} and pair == (56, DENSE_WEIGHTS)


def _sentence(results: ArmResults) -> str:
    """Return the counts as a sentence."""
    counts = results["counts"]
    return (
        f"Ten 3×3 filters have {count_text(counts['conv_8'], 'parameter')} at 8×8, "
        f"28×28 and 224×224 pixels, two 3×3×3 filters "
        f"{counts['two_color_filters']}; 100 dense units on 1000×1000 pixels have "
        f"{counts['dense']:,} weights, one 3×3 kernel "
        f"{counts['one_kernel']}."
    )


CARD = Card(
    id="P1",
    title="Parameters and image size",
    claim="The number of parameters of a convolution does not depend on the size of "
    "the image.",
    source="the notes",
    published="100, 56 and 100,000,000 parameters",
    rule="Holds if all counts are equal to the formula.",
    arms=(Arm(name="counts"),),
    comparisons=(),
    measure=count_parameters,
    settings={},
    quick={},
    seconds=1,
    columns={"conv_28": "convolution", "dense": "dense", "one_kernel": "one kernel"},
    check=_is_exact,
    statement=_sentence,
)
