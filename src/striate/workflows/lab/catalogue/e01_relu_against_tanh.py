"""E1: ReLU learns faster than tanh.

Claim: a network with ReLU needs fewer steps to a training error than one with tanh.
Source: Krizhevsky et al. 2012 (AlexNet), section 3.1 and figure 1: a network of four
convolutions reaches 25 % training error on CIFAR-10 in a sixth of the steps. No
regularization; the learning rate was tuned for each network.
Rule: the interval of log(steps of tanh / steps of ReLU) is above 0, at 25, 15 and 10 %.
Learning rates: for each network, the fastest to 10 % on the tuning seeds 1000 and 1001;
the seeds of the study start at 0. Mean steps to 10 %:
tanh 461 (0.01), 324 (0.02), 298 (0.04), never (0.08); ReLU 535 (0.006), 427 (0.01), 397
(0.02), at least 550 (0.04), never (0.08 and more).
Cost: about 25 s of processor time for each of 2 arms and up to 20 seeds.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from striate.data.image_data import ImageData
from striate.engine.callbacks import Callback, StepResult
from striate.engine.evaluate import evaluate
from striate.metrics.sequential import DecisionRule
from striate.workflows.lab.card import Arm, ArmComparison, Card, CurvePlot
from striate.workflows.lab.effects import log_ratio
from striate.workflows.lab.train_and_test import (
    PreparedTrial,
    measure_errors,
    prepare_trial,
    train_trial,
)
from striate.workflows.lab.trial import Trial

THRESHOLDS = (25, 15, 10)  # training errors in percent
EVERY = 20  # steps between two measurements of the training error
COUNT = 1_000  # training images on which the error is measured

WIDTHS = (16, 32, 64, 64)  # of the convolutions; all but the third end in pooling


def four_convolutions(data: ImageData, *, activation: str) -> nn.Module:
    """Return four convolutions, with the initial weights that the activation wants.

    ReLU gets those of He et al. 2015, tanh those of Glorot and Bengio 2010: with equal
    ones, one of the two would start with too small or too large outputs.
    """
    layers: list[nn.Module] = []
    channels = data.in_chans
    for number, width in enumerate(WIDTHS):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        gain = nn.init.calculate_gain(activation)  # type: ignore[arg-type]
        nn.init.normal_(conv.weight, std=gain / (9 * channels) ** 0.5)
        layers += [conv, nn.ReLU() if activation == "relu" else nn.Tanh()]
        layers += [nn.MaxPool2d(2)] if number != 2 else []
        channels = width
    dense = nn.LazyLinear(data.num_classes)
    return nn.Sequential(*layers, nn.Flatten(), dense)


class TrainingErrorCurve(Callback):
    """Measures the error on fixed training images every few steps, in their order."""

    def __init__(self, prepared: PreparedTrial) -> None:
        batches = prepared.training_batches_in_order()
        count = min(COUNT, len(batches.subset))
        self.batches = replace(batches, subset=batches.subset.take(range(count)))
        self.model = prepared.model
        self.last_step = 0
        self.steps: list[int] = []
        self.errors: list[float] = []

    def on_step_end(self, step: StepResult) -> None:
        """Measure the training error after every 20th step."""
        self.last_step = step.step + 1
        if self.last_step % EVERY == 0:
            self.steps.append(self.last_step)
            outputs = evaluate(self.model, self.batches(0))
            self.errors.append(1 - outputs.accuracy)
            self.model.train()

    def steps_to(self, error: float) -> float | None:
        """Return the step at which the error falls to a level, by interpolation.

        It is None if the network does not get there.
        """
        for i, value in enumerate(self.errors):
            if value <= error:
                if i == 0:
                    return float(self.steps[0])
                before = self.errors[i - 1]
                part = (before - error) / (before - value)
                return self.steps[i - 1] + part * (self.steps[i] - self.steps[i - 1])
        return None


def steps_to_errors(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Train one arm, and return the steps to each training error.

    A threshold that is not reached counts as reached after the last step. This is in
    favor of the slower network, so it makes the ratio smaller, never larger.
    """
    prepared = prepare_trial(trial, arm)
    curve = TrainingErrorCurve(prepared)
    measured = measure_errors(train_trial(prepared, [curve]))
    reached = {p: curve.steps_to(p / 100) for p in THRESHOLDS}
    steps = {f"steps_to_{p}": reached[p] or curve.last_step for p in THRESHOLDS}
    missed = sum(value is None for value in reached.values())
    curves = {"curve_step": curve.steps, "curve_train_error": curve.errors}
    return {**measured, **steps, "thresholds_missed": missed, **curves}


TANH = partial(four_convolutions, activation="tanh")
RELU = partial(four_convolutions, activation="relu")


def _compare(percent: int, *, required: bool) -> ArmComparison:
    """Return the comparison of the steps to a training error in percent."""
    return ArmComparison(
        title=f"steps to {percent} % training error, tanh against ReLU",
        effect=log_ratio(f"steps_to_{percent}", "ReLU", "tanh"),
        rule=DecisionRule(goal="superior", margin=math.log(1.1)),
        expected=math.log(6),
        deviation=0.15,
        unit="times",
        scale="log",
        required=required,
    )


CARD = Card(
    id="E1",
    title="ReLU against tanh",
    claim="A network with ReLU reaches a given training error in fewer steps than the "
    "same network with tanh.",
    source="Krizhevsky et al. 2012 (AlexNet), section 3.1 and figure 1",
    published="six times fewer steps to 25 % training error on CIFAR-10",
    rule="Holds if the interval of the ratio of steps is above 1 at 25 %, 15 % and "
    "10 % training error; equivalent if it is within a factor of 1.1.",
    arms=(
        Arm(name="tanh", changes={"lr": 0.04}, network=TANH),
        Arm(name="ReLU", changes={"lr": 0.02}, network=RELU),
    ),
    comparisons=tuple(_compare(percent, required=True) for percent in THRESHOLDS),
    measure=steps_to_errors,
    settings={
        "data": "fashion-mnist",
        **{"train_images": 10_000, "val_images": 500, "test_images": 10_000},
        **{"epochs": 6, "batch_size": 64, "augment": "none", "optimizer": "sgd"},
        **{"schedule": "constant", "weight_decay": 0.0, "label_smoothing": 0.0},
    },
    quick={"train_images": 3_000, "test_images": 2_000, "epochs": 4},
    seconds=30,
    plots=(
        CurvePlot(
            title="Training error",
            x="curve_step",
            y="curve_train_error",
            x_label="steps",
            y_label="training error",
            percent_y=True,
        ),
    ),
    columns={
        "steps_to_25": "steps to 25 %",
        "steps_to_15": "steps to 15 %",
        "steps_to_10": "steps to 10 %",
        "test_error": "test error",
    },
    limits="Fashion-MNIST is easier than CIFAR-10, and the networks are smaller. The "
    "error is measured every 20 steps: a network that needs fewer counts as 20.",
)
