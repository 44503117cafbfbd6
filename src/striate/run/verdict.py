"""Verdict on a finished run: what its accuracy means, and what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from striate.report.format import NO_BREAK_SPACE
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.multi_label_verdict import conclude_labels, label_facts
from striate.run.next_steps import NextStep, next_steps
from striate.run.predictions import Predictions
from striate.run.run import Run
from striate.run.verdict_facts import VerdictFacts, verdict_facts
from striate.run.verdict_rules import conclude


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the accuracy of a run means: kind, sentences and next steps."""

    kind: str  # one of the kinds in `verdict_rules`
    sentences: tuple[str, ...]  # the most important sentence first
    next_steps: tuple[NextStep, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        sentences = [text.replace(NO_BREAK_SPACE, " ") for text in self.sentences]
        return {**asdict(self), "sentences": sentences}


def run_verdict(
    run: Run,
    split: str | None = None,
    predictions: Predictions | None = None,
    *,
    other_data: str | None = None,
) -> Verdict:
    """Return the verdict on a finished run.

    Args:
        run: The run.
        split: The evaluated split (default: test, else val).
        predictions: Predictions of the images, if they are not those of the run.
        other_data: Path of the evaluated images, if they are not those of the run.
    """
    facts: VerdictFacts
    if predictions is None:
        predictions = run.predictions(split or run.evaluated_split)
    if isinstance(predictions, MultiLabelPredictions):
        facts = label_facts(run, split, predictions)
        kind, sentences = conclude_labels(facts)
    else:
        facts = verdict_facts(run, split, predictions)
        kind, sentences = conclude(facts)
    steps = next_steps(run, facts, kind, other_data)
    return Verdict(kind=kind, sentences=sentences, next_steps=steps)
