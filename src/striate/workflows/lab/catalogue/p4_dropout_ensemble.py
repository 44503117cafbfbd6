"""P4: dropout as an ensemble of networks.

Claim: with dropout before one softmax layer, the network with scaled weights is the
normalized geometric mean of all 2ⁿ networks that dropout can draw.
Source: Hinton et al. 2012, section on model averaging; Krizhevsky et al. 2012, 4.2.
Exact for one layer: all 2¹⁰ masks are averaged. For two layers with a ReLU it is only
close; the difference is shown.
Cost: a second; exact.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from striate.core.format import count_text
from striate.workflows.lab.card import Arm, ArmResults, Card
from striate.workflows.lab.trial import Trial

UNITS, CLASSES = 10, 4


def compare_ensembles(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the largest difference between the ensemble and the scaled network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.stream("dropout"))
        x = torch.rand(16, UNITS, dtype=torch.float64)
        last = nn.Linear(UNITS, CLASSES, dtype=torch.float64)
        first = nn.Linear(UNITS, UNITS, dtype=torch.float64)
        head = nn.Linear(UNITS, CLASSES, dtype=torch.float64)
    with torch.inference_mode():
        masks = torch.tensor(list(product((0.0, 1.0), repeat=UNITS)), dtype=x.dtype)
        single = largest_difference(masks[:, None] * x, 0.5 * x, last)
        hidden = torch.relu(first(masks[:, None] * x))
        double = largest_difference(hidden, torch.relu(first(0.5 * x)), head)
    return {"networks": len(masks), "one_layer": single, "two_layers": double}


def largest_difference(ensemble: Tensor, scaled: Tensor, layer: nn.Module) -> float:
    """Return the largest difference between two ways to average a layer's outputs.

    Shapes:
        ensemble: (networks, N, units); scaled: (N, units)
    """
    mean_log = torch.log_softmax(layer(ensemble), -1).mean(0)
    geometric = torch.softmax(mean_log, -1)  # the geometric mean, normalized
    return float((geometric - torch.softmax(layer(scaled), -1)).abs().max())


def _is_exact(results: ArmResults) -> bool:
    """Return whether the two ways agree to rounding for one layer."""
    return bool(results["ensemble"]["one_layer"] < 1e-12)


def _sentence(results: ArmResults) -> str:
    """Return the differences as a sentence."""
    m = results["ensemble"]
    return (
        f"For one softmax layer, the probabilities of the scaled network and of the "
        f"geometric mean of {count_text(m['networks'], 'network')} differ by "
        f"{m['one_layer']:.1g}; for two layers with a ReLU by {m['two_layers']:.2g}."
    )


CARD = Card(
    id="P4",
    title="Dropout as an ensemble",
    claim="With dropout, one softmax layer with halved inputs is the geometric mean of "
    "all networks that dropout can draw.",
    source="Hinton et al. 2012; Krizhevsky et al. 2012 (AlexNet), section 4.2",
    published="–",
    rule="Holds if the probabilities agree to 1e-12 for one layer.",
    arms=(Arm(name="ensemble"),),
    comparisons=(),
    measure=compare_ensembles,
    settings={},
    quick={},
    seconds=1,
    columns={"one_layer": "one layer", "two_layers": "two layers"},
    check=_is_exact,
    statement=_sentence,
    limits="For deeper networks the two ways differ; the claim is then approximate.",
)
