"""Everything that a report on a detection tells, in one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from striate.core.findings import Prose
from striate.workflows.evaluate.evaluation import Judged
from striate.workflows.evaluate.one_vs_rest import Seen
from striate.workflows.evaluate.request import OperatingPointRequest
from striate.workflows.evaluate.selection import Choice


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """An image on the wrong side of the threshold or of one half.

    Args:
        row: Its place in the judged split.
        path: Its file.
        probs: The class's probability.
        cells: What the asked columns say of it.
    """

    row: int
    path: str
    probs: float
    cells: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told.

    Args:
        run: The run's name.
        question: What was asked.
        split: What was judged.
        others: The other classes.
        choice: What validation chose.
        judged: What came of it.
        view: The judged images.
        remarks: What limits all this, gravest first.
        wrong: Of the class and taken for others; of others and taken for it. Each
            with the costliest first.
    """

    run: str
    question: OperatingPointRequest
    split: str
    others: Sequence[str]
    choice: Choice
    judged: Judged
    view: Seen = field(repr=False)
    remarks: tuple[Prose, ...]
    wrong: tuple[tuple[Wrong, ...], tuple[Wrong, ...]] = field(repr=False)

    @property
    def target(self) -> str:
        """Return the class that is looked for."""
        return self.question.target

    @property
    def rest(self) -> str:
        """Return what to call everything else: the other class, or that it is none."""
        return self.others[0] if len(self.others) == 1 else f"not {self.target}"
