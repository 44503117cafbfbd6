"""P3: stacked linear layers collapse to one; polynomial features and ReLU bend.

Claim: three linear layers compute the same as one, so their boundary is straight; one
layer on squared coordinates, or two layers with a ReLU, have a closed boundary.
Source: the notes.
Cost: a few seconds; exact for the fixed points of two rings.
"""

from __future__ import annotations

from typing import Any

from striate.interpret.depth.nonlinearity import fit_networks
from striate.workflows.lab.card import Arm, ArmResults, Card
from striate.workflows.lab.trial import Trial

STRAIGHT = 0.7  # a straight line cannot separate two rings better than this
CLOSED = 0.95


def fit_rings(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Fit four networks to two rings; return their accuracies."""
    line, deep, squares, relu = fit_networks(400, trial.seed)
    return {
        "one_linear": line.accuracy,
        "three_linear": deep.accuracy,
        "collapse_difference": deep.collapse_error,
        "squares": squares.accuracy,
        "relu": relu.accuracy,
    }


def _is_exact(results: ArmResults) -> bool:
    """Return whether the linear layers collapse, and the others separate the rings."""
    m = results["two rings"]
    straight = max(m["one_linear"], m["three_linear"]) < STRAIGHT
    closed = min(m["squares"], m["relu"]) > CLOSED
    return bool(straight and closed and m["collapse_difference"] < 1e-5)


def _sentence(results: ArmResults) -> str:
    """Return the accuracies as a sentence."""
    m = results["two rings"]
    return (
        f"One linear layer: {100 * m['one_linear']:.1f} % accuracy, three: "
        f"{100 * m['three_linear']:.1f} % (they differ from the one layer that they "
        f"collapse to by {m['collapse_difference']:.1g}); squared coordinates: "
        f"{100 * m['squares']:.1f} %, two layers with a ReLU: {100 * m['relu']:.1f} %."
    )


CARD = Card(
    id="P3",
    title="Linear layers, polynomial features, ReLU",
    claim="Stacked linear layers collapse to one; polynomial features or a ReLU give a "
    "curved boundary.",
    source="the notes",
    published="–",
    rule="Holds if the linear networks stay below 70 % and agree with one layer to "
    "1e-5, and the two others are above 95 %.",
    arms=(Arm(name="two rings"),),
    comparisons=(),
    measure=fit_rings,
    settings={},
    quick={},
    seconds=3,
    columns={
        "one_linear": "one linear",
        "three_linear": "three linear",
        "squares": "squares",
        "relu": "ReLU",
    },
    check=_is_exact,
    statement=_sentence,
)
