"""E11: selectivity for classes grows with depth.

Claim: units of deeper layers are more selective for classes, because of training.
Source: Zeiler and Fergus 2014 and many after it, from pictures. Against it: Morcos et
al. 2018: selectivity is a poor predictor of a unit's importance.
Measure: class selectivity index of Morcos et al. 2018, section 2.2, of each channel:
(μ_max − μ_rest) / (μ_max + μ_rest), of its mean activation by class.
Rule: the slope of the mean index over layers, trained minus random weights, is above 0.
Cost: about 35 s of processor time for 2 arms and up to 20 seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.train_and_test import (
    TrainedTrial,
    measure_errors,
    prepare_trial,
    train_trial,
)
from striate.workflows.lab.trial import Trial

NETWORK = (
    "28x28x1 > conv 3x3 16 same > bn > relu > pool 2 > conv 3x3 32 same > bn > relu > "
    "pool 2 > conv 3x3 48 same > bn > relu > conv 3x3 64 same > bn > relu > "
    "conv 3x3 64 same > bn > relu > gap > dense 10"
)


def class_selectivity(means: Tensor) -> Tensor:
    """Return the class selectivity index of channels (Morcos et al. 2018, section 2.2).

    Shapes:
        (classes, channels) mean activations, not negative → (channels,)

    Example:
        >>> class_selectivity(torch.tensor([[1.0, 1.0], [0.0, 1.0]])).tolist()
        [1.0, 0.0]
    """
    top = means.max(0).values
    rest = (means.sum(0) - top) / (len(means) - 1)
    return (top - rest) / (top + rest).clamp(min=1e-12)


def selectivity_by_layer(trained: TrainedTrial) -> list[float]:
    """Return the mean class selectivity index of each ReLU, over the test images."""
    model, prepared = trained.model, trained.prepared
    names = [n for n, m in model.named_modules() if isinstance(m, nn.ReLU)]
    classes = prepared.data.num_classes
    sums: dict[str, Tensor] = {}
    counts = torch.zeros(classes, dtype=torch.float64)
    labels = torch.empty(0)

    def add(name: str, output: object) -> None:
        if isinstance(output, Tensor):
            values = output.mean((2, 3)).double()
            total = sums.setdefault(name, values.new_zeros(classes, values.shape[1]))
            total.index_add_(0, labels, values)

    with (
        evaluation_mode(model),
        intercept_outputs(model, names, add),
        torch.inference_mode(),
    ):
        for x, y in prepared.batches("test")(0):
            labels = y
            counts += y.bincount(minlength=classes)
            model(x)
    means = [sums[name] / counts[:, None] for name in names]
    return [float(class_selectivity(each).mean()) for each in means]


def measure_selectivity(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Return the selectivity by layer of a trained network, or of random weights."""
    prepared = prepare_trial(trial, arm)
    if arm.name == "random weights":
        trained = TrainedTrial(prepared=prepared, history=[], model=prepared.model)
    else:
        trained = train_trial(prepared)
    indices = selectivity_by_layer(trained)
    layers = list(range(1, len(indices) + 1))
    return {
        **measure_errors(trained),
        "selectivity_first": indices[0],
        "selectivity_last": indices[-1],
        "slope": slope(indices),
        "layer": layers,
        "selectivity": indices,
    }


def slope(values: Sequence[float]) -> float:
    """Return the slope of a straight line through values at 1, 2, and so on.

    Example:
        >>> round(slope([1.0, 3.0, 5.0]), 6)
        2.0
    """
    return float(np.polyfit(range(1, len(values) + 1), values, 1)[0])


def slope_difference(results: ArmResults) -> float:
    """Return the slope of the trained network minus that of random weights."""
    return float(results["trained"]["slope"] - results["random weights"]["slope"])


CARD = Card(
    id="E11",
    title="Selectivity and depth",
    claim="The selectivity of channels for classes grows with depth, and more so than "
    "with random weights.",
    source="Zeiler and Fergus 2014, from visualizations",
    published="–",
    objections="Morcos et al. 2018: selective units are not more important. Random "
    "weights are the control: a growth that they show too is not learned.",
    rule="Holds if the interval of the difference in slope is above 0; equivalent if "
    "it is within ±0.01 per layer.",
    arms=(
        Arm(name="random weights", note="not trained"),
        Arm(name="trained"),
    ),
    comparisons=(
        ArmComparison(
            title="growth of the selectivity per layer, trained minus random",
            effect=slope_difference,
            rule=DecisionRule(goal="superior", margin=0.01),
            expected=0.08,
            deviation=0.01,
            unit="per layer",
        ),
        ArmComparison(
            title="growth of the selectivity per layer, trained",
            effect=lambda results: float(results["trained"]["slope"]),
            rule=DecisionRule(goal="superior", margin=0.01),
            expected=0.1,
            deviation=0.01,
            unit="per layer",
        ),
    ),
    measure=measure_selectivity,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 8_000, "val_images": 500, "test_images": 10_000},
        **{"model": NETWORK, "epochs": 6, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 1_500, "test_images": 2_000, "epochs": 3},
    seconds=25,
    plots=(
        CurvePlot(
            title="Class selectivity by layer",
            x="layer",
            y="selectivity",
            x_label="layer",
            y_label="class selectivity index",
        ),
    ),
    columns={
        "selectivity_first": "first layer",
        "selectivity_last": "last layer",
        "slope": "slope per layer",
        "test_error": "test error",
    },
    limits="Channel means, not single units. The index is high for channels that are "
    "nearly always 0.",
)
