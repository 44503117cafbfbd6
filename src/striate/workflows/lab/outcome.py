"""Verdict on a card: the decision of each comparison, from the results by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from striate.core.format import count_text, duration_text
from striate.metrics.power import seeds_needed
from striate.metrics.sequential import ClaimVerdict, Decision, decide
from striate.workflows.lab.card import ArmComparison, ArmResults, Card
from striate.workflows.lab.store import TrialResult


@dataclass(frozen=True, kw_only=True)
class ComparisonOutcome:
    """Effect of a comparison for each seed, and the decision."""

    comparison: ArmComparison
    seeds: tuple[int, ...]  # seeds with a result of every arm
    effects: tuple[float, ...]  # one effect for each seed
    decision: Decision

    @property
    def more_seeds(self) -> int | None:
        """Return how many more seeds would decide, as far as the effects tell.

        It is None if the claim is decided, or if more than 200 seeds are needed.
        """
        if self.decision.verdict is not ClaimVerdict.UNDECIDED or len(self.effects) < 3:
            return None
        spread, rule = stdev(self.effects), self.comparison.rule
        seeds = seeds_needed(fmean(self.effects), spread, rule)
        return None if seeds is None else max(seeds - len(self.effects), 1)


@dataclass(frozen=True, kw_only=True)
class CardOutcome:
    """Verdict on a card, with the outcome of each comparison."""

    card: Card
    outcomes: tuple[ComparisonOutcome, ...]
    results: tuple[TrialResult, ...]

    @property
    def verdict(self) -> ClaimVerdict:
        """Return the verdict on the claim, from all required comparisons.

        The claim holds if all of them hold. It does not hold if one of them does not,
        or if some hold and others are equivalent. An exact claim holds if its check
        is true for every seed.
        """
        if self.card.check is not None:
            checks = [self.card.check(arms) for arms in self._by_seed.values()]
            if not checks:
                return ClaimVerdict.UNDECIDED
            return ClaimVerdict.HOLDS if all(checks) else ClaimVerdict.DOES_NOT_HOLD
        verdicts = {
            outcome.decision.verdict
            for outcome in self.outcomes
            if outcome.comparison.required
        }
        if ClaimVerdict.DOES_NOT_HOLD in verdicts:
            return ClaimVerdict.DOES_NOT_HOLD
        if ClaimVerdict.UNDECIDED in verdicts or not verdicts:
            return ClaimVerdict.UNDECIDED
        return verdicts.pop() if len(verdicts) == 1 else ClaimVerdict.DOES_NOT_HOLD

    @property
    def is_final(self) -> bool:
        """Return whether more seeds could not change the verdict on the claim.

        Comparisons that the claim does not need are shown as far as the seeds go.
        """
        if self.card.check is not None:
            return bool(self._by_seed)
        needed = [each for each in self.outcomes if each.comparison.required]
        return all(outcome.decision.final for outcome in needed)

    @property
    def cost(self) -> str:
        """Return the number of trials, with their dates, time and machines."""
        machines = "; ".join(sorted({result.machine for result in self.results}))
        dates = sorted({result.date for result in self.results if result.date})
        days = (
            f" ({' to '.join(dict.fromkeys((dates[0], dates[-1])))})" if dates else ""
        )
        time = duration_text(self.seconds)
        trials = count_text(len(self.results), "trial")
        return f"{trials}{days}, {time} of processor time on {machines}"

    @property
    def statement(self) -> str:
        """Return the result of an exact claim as a sentence; else an empty text."""
        arms = next(iter(self._by_seed.values()), None)
        if self.card.statement is None or arms is None:
            return ""
        return self.card.statement(arms)

    @property
    def _by_seed(self) -> dict[int, ArmResults]:
        return results_by_seed(self.card, self.results)

    @property
    def seconds(self) -> float:
        """Return the processor time of all trials."""
        return sum(result.seconds for result in self.results)


def results_by_seed(
    card: Card, results: Sequence[TrialResult]
) -> dict[int, ArmResults]:
    """Return the measurements by seed and arm, of the seeds with all arms."""
    by_seed: dict[int, dict[str, object]] = {}
    for result in results:
        by_seed.setdefault(result.seed, {})[result.arm] = result.measurements
    complete = {arm.name for arm in card.arms}
    return {
        seed: arms  # type: ignore[misc]
        for seed, arms in sorted(by_seed.items())
        if arms.keys() == complete
    }


def card_outcome(card: Card, results: Sequence[TrialResult]) -> CardOutcome:
    """Return the verdict on a card from the results of its trials."""
    by_seed = results_by_seed(card, results)
    outcomes = []
    for comparison in card.comparisons:
        effects = tuple(comparison.effect(arms) for arms in by_seed.values())
        outcomes.append(
            ComparisonOutcome(
                comparison=comparison,
                seeds=tuple(by_seed),
                effects=effects,
                decision=decide(effects, comparison.rule),
            )
        )
    return CardOutcome(card=card, outcomes=tuple(outcomes), results=tuple(results))
