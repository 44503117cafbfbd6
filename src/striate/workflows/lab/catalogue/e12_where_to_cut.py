"""E12: where to cut when transferring.

Claim: transferred and frozen layers hurt most in the middle of a network, where layers
are fragile and co-adapted; fine-tuning them afterwards takes the harm away.
Source: Yosinski et al. 2014, section 4 and figure 2.
Setting: Fashion-MNIST split into two random halves A and B of five classes. A base
network is trained on each half. Then the first c layers of a base are copied, the rest
starts anew, and the network is trained on B: BnB and BnB+ take the layers from B, AnB
and AnB+ from A; + means that the copied layers are trained too.
Rule: superiority with a margin of 0.3 points: the harm of BnB at the cuts in the middle
over that at the first cut and at the last; and AnB+ over AnB at the last cut.
Cost: about 60 s of processor time for each of 4 arms and up to 20 seeds.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean
from typing import Any

import torch
from torch import nn

from striate.core.class_names import ClassNames
from striate.core.derive_seed import derive_seed
from striate.core.seeds import permutation
from striate.data.image_data import ImageData
from striate.finetune.freeze import freeze
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.lab_data import load_source, pooled_source
from striate.workflows.lab.train_and_test import (
    PreparedTrial,
    prepare_on,
    train_trial,
)
from striate.workflows.lab.trial import Trial

LAYERS = (1, 2, 3, 4, 5)  # cut points: the number of copied layers; the head is new
WIDTHS = (16, 32, 48, 64, 64)
POOLED = (1, 2)  # layers that are followed by pooling


class FiveLayers(nn.Sequential):
    """Five convolutions with batch norm and ReLU, global average pooling, dense layer.

    Args:
        data: The images: their channels and the number of classes.
    """

    def __init__(self, data: ImageData) -> None:
        super().__init__()
        channels = data.in_chans
        for number, width in enumerate(WIDTHS, 1):
            conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            pool = nn.MaxPool2d(2) if number in POOLED else nn.Identity()
            block = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(), pool)
            self.add_module(f"layer{number}", block)
            channels = width
        self.add_module("pool", nn.AdaptiveAvgPool2d(1))
        self.add_module("flatten", nn.Flatten())
        self.add_module("fc", nn.Linear(channels, data.num_classes))


def half_of_classes(trial: Trial, half: int) -> ImageData:
    """Return the images of one half of the classes; the halves differ by seed."""
    source = pooled_source(trial.settings["data"])
    names = sorted(source.labels.names)
    order = permutation(len(names), derive_seed(trial.seed, "halves")).tolist()
    count = len(names) // 2
    own = {names[i] for i in order[half * count : (half + 1) * count]}
    index = [i for i, record in enumerate(source.records) if record.label in own]
    part = source.take(index, [source.records[i] for i in index])
    part = replace(part, labels=ClassNames(tuple(sorted(own))))
    return load_source(part, trial.settings, trial.seed)


def prepare_half(
    data: ImageData, trial: Trial, arm: Arm, purpose: str
) -> PreparedTrial:
    """Prepare a network on one half, with initial weights of their own purpose."""
    prepared = prepare_on(data, trial, arm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trial.stream(purpose))
        fresh = FiveLayers(data)
    prepared.model.load_state_dict(fresh.state_dict())
    return prepared


def transferred_errors(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Train the bases, then a network for each cut point; return the test errors."""
    halves = {name: half_of_classes(trial, i) for i, name in enumerate("AB")}
    base_name, tuned = arm.name[0], arm.name.endswith("+")
    base = prepare_half(halves[base_name], trial, arm, f"base {base_name}")
    reference = train_trial(base)
    if base_name == "A":
        reference = train_trial(prepare_half(halves["B"], trial, arm, "base B"))
    errors = [1 - reference.outputs("test").accuracy]
    for cut in LAYERS:
        prepared = prepare_half(halves["B"], trial, arm, f"cut {cut}")
        for number in range(1, cut + 1):
            layer = prepared.model.get_submodule(f"layer{number}")
            copied = base.model.get_submodule(f"layer{number}")
            layer.load_state_dict(copied.state_dict())
        if not tuned:
            freeze(prepared.model, [f"layer{number}" for number in range(1, cut + 1)])
        errors.append(1 - train_trial(prepared).outputs("test").accuracy)
    harms = [100 * (error - errors[0]) for error in errors]
    return {
        "base_error": errors[0],
        "middle_harm": fmean(harms[2:5]),
        "end_harm": fmean((harms[1], harms[5])),
        "last_error": errors[-1],
        "cut": [0, *LAYERS],
        "error": errors,
    }


def middle_over_ends(results: ArmResults) -> float:
    """Return how much more frozen own layers hurt in the middle than at both ends."""
    return float(results["BnB"]["middle_harm"] - results["BnB"]["end_harm"])


def gain_of_tuning(results: ArmResults) -> float:
    """Return by how many points AnB+ is better than AnB, with all layers copied."""
    return 100 * float(results["AnB"]["last_error"] - results["AnB+"]["last_error"])


CARD = Card(
    id="E12",
    title="Where to cut when transferring",
    claim="Frozen transferred layers hurt most in the middle of a network, and "
    "fine-tuning takes the harm away.",
    source="Yosinski et al. 2014, section 4 and figure 2",
    published="layers in the middle are fragile and co-adapted: the accuracy of BnB "
    "falls there by up to about 2 points, and that of BnB+ does not",
    rule="Holds if both intervals are above 0: the harm in the middle minus that at "
    "the ends (BnB), and the gain of AnB+ over AnB at the last cut; equivalent if "
    "within ±0.3 points.",
    arms=tuple(
        Arm(name=name, network=FiveLayers, note=note)
        for name, note in (
            ("BnB", "own layers, frozen"),
            ("BnB+", "own layers, trained on"),
            ("AnB", "layers of the other half, frozen"),
            ("AnB+", "layers of the other half, trained on"),
        )
    ),
    comparisons=(
        ArmComparison(
            title="harm of BnB in the middle minus at the ends",
            effect=middle_over_ends,
            rule=DecisionRule(goal="superior", margin=0.3),
            expected=1.0,
            deviation=0.4,
        ),
        ArmComparison(
            title="AnB+ against AnB, all layers copied",
            effect=gain_of_tuning,
            rule=DecisionRule(goal="superior", margin=0.3),
            expected=2.0,
            deviation=0.8,
        ),
    ),
    measure=transferred_errors,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 2_500, "val_images": 300, "test_images": 15_000},
        **{"epochs": 5, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 600, "test_images": 1_500, "epochs": 2},
    seconds=70,
    plots=(
        CurvePlot(
            title="Test error by cut point",
            x="cut",
            y="error",
            x_label="number of copied layers",
            y_label="test error on B",
            percent_y=True,
        ),
    ),
    columns={
        "base_error": "base error",
        "middle_harm": "harm in the middle (points)",
        "end_harm": "harm at the ends (points)",
        "last_error": "all layers copied",
    },
    limits="Five layers and five classes are little; Yosinski's network has eight "
    "layers and 500 classes.",
)
