"""Results of a study as JSON values."""

from __future__ import annotations

from typing import Any

from striate.workflows.lab.outcome import ComparisonOutcome
from striate.workflows.lab.study import StudyResult


def study_dict(result: StudyResult) -> dict[str, Any]:
    """Return the result of a study as a dict of JSON values."""
    outcome = result.outcome
    return {
        "card": outcome.card.id,
        "claim": outcome.card.claim,
        "verdict": str(outcome.verdict),
        "final": outcome.is_final,
        "comparisons": [arm_comparison_dict(each) for each in outcome.outcomes],
        "trials": len(outcome.results),
        "new_trials": result.new_trials,
        "seconds": round(result.seconds, 1),
        "processor_seconds": round(outcome.seconds, 1),
        "folder": str(result.folder),
        "other_versions": result.other_versions,
    }


def arm_comparison_dict(outcome: ComparisonOutcome) -> dict[str, Any]:
    """Return the outcome of a comparison as a dict of JSON values."""
    decision = outcome.decision
    return {
        "comparison": outcome.comparison.title,
        "unit": outcome.comparison.unit,
        "effects": list(outcome.effects),
        "seeds": decision.n,
        "difference": decision.difference,
        "interval": list(decision.interval) if decision.interval else None,
        "p_value": decision.p_value,
        "verdict": str(decision.verdict),
        "more_seeds": outcome.more_seeds,
    }
