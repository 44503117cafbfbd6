"""Card of an experiment: claim, source, arms, and the rule that decides the claim."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from striate.metrics.sequential import DecisionRule

if TYPE_CHECKING:
    from torch import nn

    from striate.data.image_data import ImageData
    from striate.workflows.lab.trial import Trial

# What one trial measured: numbers, and lists of numbers for curves.
Measurements = Mapping[str, Any]
# The measurements of all arms with one seed, by the name of the arm.
ArmResults = Mapping[str, Measurements]
BuildNetwork = Callable[["ImageData"], "nn.Module"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One of the compared variants: changes of settings, or an own network.

    Example:
        >>> Arm(name="tanh", changes={"model": "8x8x1 > tanh > dense 10"}).name
        'tanh'
    """

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)  # settings by name
    # function from the data to a network; None: the setting `model`
    network: BuildNetwork | None = None
    note: str = ""  # what the arm stands for, for the page


@dataclass(frozen=True, kw_only=True)
class ArmComparison:
    """A number for each seed, and the rule that decides the claim from these numbers.

    `effect` gets the measurements of all arms with one seed. It returns the advantage
    in favor of the claim: a positive number supports the claim.
    """

    title: str
    effect: Callable[[ArmResults], float]
    rule: DecisionRule
    expected: float  # effect of the publication in the same unit, for the forecast
    # expected standard deviation of the effect over seeds, in the same unit; None: that
    # of the difference of two test errors, in points
    deviation: float | None = None
    unit: str = "points"  # unit of the effect
    # "linear"; or "log": the effect is a natural logarithm of a ratio
    scale: str = "linear"
    required: bool = True  # the claim holds only if this comparison holds


@dataclass(frozen=True, kw_only=True)
class CurvePlot:
    """A chart of the card's page: one line per arm, mean and deviation over seeds."""

    title: str
    x: str  # name of the measurement with the x values
    y: str  # name of the measurement with the y values
    x_label: str
    y_label: str
    percent_y: bool = False
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Card:
    """An experiment on one claim.

    The rule, the margins and the settings are fixed before the first trial: their hash
    is part of the name of the results folder.
    """

    id: str  # such as E2
    title: str
    claim: str  # the claim as one sentence
    source: str  # paper and section of the claim
    published: str  # the published figures
    objections: str = ""  # what other papers found
    rule: str  # the decision rule as one sentence
    arms: tuple[Arm, ...]
    comparisons: tuple[ArmComparison, ...]
    measure: Callable[[Trial, Arm], Measurements]  # runs one arm with one seed
    settings: Mapping[str, Any]  # settings of all arms
    quick: Mapping[str, Any]  # changes of the settings for `--quick`
    seconds: float  # processor time of one trial in seconds, on the reference machine
    plots: tuple[CurvePlot, ...] = ()
    # measurements of the page's table, by name, with their headings
    columns: Mapping[str, str] = field(default_factory=dict)
    limits: str = ""  # what the experiment does not show
    # for an exact claim: whether the results prove it; it then runs with one seed
    check: Callable[[ArmResults], bool] | None = None
    # for an exact claim: the results as a sentence
    statement: Callable[[ArmResults], str] | None = None
    study: str = ""  # the study file as JSON text; empty for a card of the catalogue

    @property
    def exact(self) -> bool:
        """Return whether the claim is exact: its results do not depend on a seed."""
        return self.check is not None

    @property
    def reference(self) -> str:
        """Return the text by which another process finds the card: `find_card`."""
        return self.study or self.id

    def arm(self, name: str) -> Arm:
        """Return the arm with a name."""
        return next(arm for arm in self.arms if arm.name == name)

    def trial_settings(self, arm: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings of an arm.

        `overrides` are the user's changes, and those of `--quick`. The changes of the
        arm win, because the arms are what the card compares.
        """
        return {**self.settings, **overrides, **self.arm(arm).changes}
