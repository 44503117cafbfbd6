"""Data of the report on an operating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from striate.core.findings import Prose
from striate.run.calibration import Calibration
from striate.workflows.evaluate.one_vs_rest import OneVsRest
from striate.workflows.evaluate.selection import OperatingPointRequest, Selection
from striate.workflows.evaluate.threshold_results import Evaluation


@dataclass(frozen=True, kw_only=True)
class Misclassified:
    """An image that is a false negative or a false positive at probability 0.5."""

    row: int  # index of the image in the evaluated split
    image_path: str  # path of the image file
    prob: float  # predicted probability of the class
    # values in the requested CSV columns, as (column, value)
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class OperatingPointResult:
    """Data of the report on an operating point."""

    run: str  # name of the run
    request: OperatingPointRequest  # class, target recall and target accuracy
    split: str  # name of the evaluated split
    other_classes: Sequence[str]  # all classes but the requested one
    # thresholds and review band, chosen on validation
    selection: Selection
    evaluation: Evaluation  # results on the evaluated split
    # labels and probabilities of the evaluated split
    data: OneVsRest = field(repr=False)
    scaling: Calibration | None  # None: run of an earlier version
    caveats: tuple[Prose, ...]  # limitations of the results, the most important first
    # images of the class with a probability below 0.5, worst first
    false_negatives: tuple[Misclassified, ...] = field(repr=False)
    # other images with a probability of 0.5 or more, worst first
    false_positives: tuple[Misclassified, ...] = field(repr=False)

    @property
    def is_scaled(self) -> bool:
        """Return whether the probabilities are temperature-scaled."""
        return self.selection.temperature != 1

    @property
    def scaling_text(self) -> str:
        """Return one sentence on the temperature scaling of the run."""
        if self.scaling is not None:
            return self.scaling.sentence
        return "Probabilities are not adjusted: the run has no temperature."

    @property
    def target(self) -> str:
        """Return the name of the requested (positive) class."""
        return self.request.target

    @property
    def rest(self) -> str:
        """Return the name of the other class, or `not <target>` for several classes."""
        others = self.other_classes
        return others[0] if len(others) == 1 else f"not {self.target}"
