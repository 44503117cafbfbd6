"""E13: with much data, the architecture matters less.

Claim: the gap between the best and the worst architecture shrinks with more data.
Source: the notes. Against it: Hestness et al. 2017: the exponent of the error does not
change with the architecture, the curve only shifts, so the ratio of errors stays.
Setting: three networks, six sizes of the training set, nested; as many steps for each.
Rule: superiority with margins: the gap in points (0.5), and the ratio of errors (5 %).
Cost: about 80 s of processor time for each of 3 arms and up to 10 seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, ArmResults, Card, CurvePlot
from striate.workflows.lab.lab_data import load_trial_data
from striate.workflows.lab.train_and_test import prepare_on, train_trial
from striate.workflows.lab.trial import Trial

FRACTIONS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)
MAX_FACTOR = 8  # a small fraction is trained for at most this multiple of the epochs
ARCHITECTURES = {
    "dense": "28x28x1 > dense 128 > bn > relu > dense 10",
    "one convolution": "28x28x1 > conv 5x5 16 same > bn > relu > pool 4 > dense 10",
    "three convolutions": "28x28x1 > conv 3x3 16 same > bn > relu > pool 2 > "
    "conv 3x3 32 same > bn > relu > pool 2 > conv 3x3 64 same > bn > relu > gap > "
    "dense 10",
}
LOOKS = (3, 5, 10)


def errors_by_size(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Train a network on each fraction of the training images; return the errors."""
    data = load_trial_data(trial.settings, trial.seed)
    whole = data.split_config.fraction
    sizes, errors = [], []
    for fraction in FRACTIONS:
        part = data.with_fraction(whole * fraction)
        epochs = round(trial.settings["epochs"] * min(1 / fraction, MAX_FACTOR))
        settings = {**trial.settings, "epochs": epochs}
        prepared = prepare_on(part, replace(trial, settings=settings), arm)
        errors.append(1 - train_trial(prepared).outputs("test").accuracy)
        sizes.append(len(part.subset("train")))
    return {
        "smallest_error": errors[0],
        "largest_error": errors[-1],
        "exponent": exponent(sizes, errors),
        "images": sizes,
        "error": errors,
    }


def exponent(sizes: list[int], errors: list[float]) -> float:
    """Return c of the power law error = b·n⁻ᶜ, by least squares of the logarithms.

    Example:
        >>> round(exponent([100, 200, 400], [0.4, 0.2, 0.1]), 6)
        1.0
    """
    logs = np.log(np.maximum(errors, 1e-6))
    return -float(np.polyfit(np.log(sizes), logs, 1)[0])


def spread(metric: str, results: ArmResults) -> float:
    """Return the gap between the worst and the best architecture, in points."""
    values = [float(measured[metric]) for measured in results.values()]
    return 100 * (max(values) - min(values))


def shrinking_gap(results: ArmResults) -> float:
    """Return by how many points the gap is smaller with all images."""
    return spread("smallest_error", results) - spread("largest_error", results)


def shrinking_ratio(results: ArmResults) -> float:
    """Return by how much the logarithm of worst over best error shrinks."""

    def ratio(metric: str) -> float:
        values = [max(float(m[metric]), 1e-6) for m in results.values()]
        return math.log(max(values) / min(values))

    return ratio("smallest_error") - ratio("largest_error")


def exponent_difference(arm: str, results: ArmResults) -> float:
    """Return how much larger the exponent of an arm is than that of dense layers."""
    return float(results[arm]["exponent"] - results["dense"]["exponent"])


CARD = Card(
    id="E13",
    title="Data and architecture",
    claim="With more data the architecture matters less: the gap between the errors of "
    "the best and the worst network shrinks.",
    source="the notes",
    published="–",
    objections="Hestness et al. 2017: the exponent does not change with the "
    "architecture, the curve shifts; the ratio of the errors then stays.",
    rule="Holds if the interval of the shrinkage of the gap is above 0; equivalent if "
    "it is within ±0.5 points. The ratio and the exponents are shown beside it.",
    arms=tuple(
        Arm(name=name, changes={"model": model})
        for name, model in ARCHITECTURES.items()
    ),
    comparisons=(
        ArmComparison(
            title="gap in points, few images minus many",
            effect=shrinking_gap,
            rule=DecisionRule(goal="superior", margin=0.5, looks=LOOKS),
            expected=3.0,
            deviation=1.5,
        ),
        ArmComparison(
            title="ratio of the worst and the best error, few images over many",
            effect=shrinking_ratio,
            rule=DecisionRule(goal="superior", margin=math.log(1.05), looks=LOOKS),
            expected=0.05,
            deviation=0.1,
            unit="times",
            scale="log",
            required=False,
        ),
        *(
            ArmComparison(
                title=f"exponent of {name} minus exponent of dense",
                effect=partial(exponent_difference, name),
                rule=DecisionRule(goal="superior", margin=0.02, looks=LOOKS),
                expected=0.05,
                deviation=0.03,
                unit="",
                required=False,
            )
            for name in ("one convolution", "three convolutions")
        ),
    ),
    measure=errors_by_size,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 16_000, "val_images": 500, "test_images": 20_000},
        **{"epochs": 3, "batch_size": 64, "augment": "none"},
    },
    quick={"train_images": 2_000, "test_images": 2_000, "epochs": 2},
    seconds=120,
    plots=(
        CurvePlot(
            title="Test error by number of training images",
            x="images",
            y="error",
            x_label="training images",
            y_label="test error",
            percent_y=True,
            log_x=True,
            log_y=True,
        ),
    ),
    columns={
        "smallest_error": "error, 1/32 of the images",
        "largest_error": "error, all images",
        "exponent": "exponent",
    },
)
