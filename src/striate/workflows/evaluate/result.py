"""Data of the report on an operating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from striate.core.findings import Prose
from striate.workflows.evaluate.one_vs_rest import OneVsRest
from striate.workflows.evaluate.selection import OperatingPointRequest, Selection
from striate.workflows.evaluate.threshold_results import Evaluation


@dataclass(frozen=True, kw_only=True)
class Misclassified:
    """An image that is a false negative or a false positive at probability 0.5.

    Args:
        row: Index of the image in the evaluated split.
        path: Path of the image file.
        prob: Predicted probability of the class.
        cells: Values in the requested CSV columns, as (column, value).
    """

    row: int
    path: str
    prob: float
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class OperatingPointResult:
    """Data of the report on an operating point.

    Args:
        run: Name of the run.
        request: Class, target recall and target accuracy.
        split: Name of the evaluated split.
        other_classes: All classes but the requested one.
        selection: Temperature, thresholds and review band, chosen on validation.
        evaluation: Results on the evaluated split.
        data: Labels and probabilities of the evaluated split.
        caveats: Limitations of the results, the most important first.
        false_negatives: Images of the class with a probability below 0.5, worst first.
        false_positives: Other images with a probability of 0.5 or more, worst first.
    """

    run: str
    request: OperatingPointRequest
    split: str
    other_classes: Sequence[str]
    selection: Selection
    evaluation: Evaluation
    data: OneVsRest = field(repr=False)
    caveats: tuple[Prose, ...]
    false_negatives: tuple[Misclassified, ...] = field(repr=False)
    false_positives: tuple[Misclassified, ...] = field(repr=False)

    @property
    def target(self) -> str:
        """Return the name of the requested (positive) class."""
        return self.request.target

    @property
    def rest(self) -> str:
        """Return the name of the other class; `not <target>` if there are several."""
        others = self.other_classes
        return others[0] if len(others) == 1 else f"not {self.target}"
