"""What limits a detection's figures: said beside them, gravest first."""

from __future__ import annotations

from collections.abc import Iterator

from striate.core.findings import Prose
from striate.metrics.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE
from striate.report.format import counted
from striate.run.run import Run
from striate.workflows.evaluate.one_vs_rest import Seen
from striate.workflows.evaluate.selection import SAFE, Choice

FEW = 59  # of the class; of fewer, not even finding all promises 95 % of 95 %


def remarks(run: Run, choice: Choice, view: Seen) -> Iterator[Prose]:
    """Yield everything that a reader of the figures should know."""
    for text in (*_few(choice), *_limits(choice), *_chosen_before(run)):
        yield Prose(text=text, tone="warning")
    yield Prose(
        text="Every interval is at 95 % and takes images as independent. Several "
        "images of one thing (a module, a patient, a batch) make it too narrow, and "
        "if some of them were learned from, the figures too good: name them in a "
        "group column, and they stay on one side.",
        tone="advice",
    )


def _few(choice: Choice) -> Iterator[str]:
    """Say where validation is too small for what is asked of it."""
    if not any(point.key == SAFE for point in choice.points):
        many = counted(choice.positives, "such image")
        yield (
            f"Validation has {many}: too few to be sure of the recall at any "
            "threshold. A larger --val-fraction, or more images, would do."
        )
    if choice.sorted is None:
        yield "Not even the surest answers are right as often as was asked for."
    elif choice.sorted.answered < FEW:
        yield (
            f"The unsure band rests on {counted(choice.sorted.answered, 'answer')} "
            "outside it on validation."
        )


def _limits(choice: Choice) -> Iterator[str]:
    if choice.temperature <= MIN_TEMPERATURE * 1.001:
        yield (
            "Validation has no wrong answers, so the temperature is the lowest there "
            "is: it says nothing of how sure the network may be."
        )
    elif choice.temperature >= MAX_TEMPERATURE * 0.999:
        yield "The temperature is the highest there is: probabilities mean nothing."


def _chosen_before(run: Run) -> Iterator[str]:
    """Say where validation has chosen the weights too."""
    facts = run.manifest.get("transfer", {})
    if facts.get("head") != "logistic":
        yield (
            "Validation also chose the epoch whose weights were kept, so what it "
            "promises is a little too good; the judged split is not touched by that."
        )
