"""List of the cards, with the results so far and a forecast of the time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.core import findings as f
from striate.core.cpu_count import cpu_count
from striate.core.format import count_text
from striate.workflows.lab.card import Card
from striate.workflows.lab.catalogue import all_cards
from striate.workflows.lab.findings import effect_text
from striate.workflows.lab.forecast import StudyForecast, forecast_study
from striate.workflows.lab.outcome import CardOutcome, card_outcome
from striate.workflows.lab.store import ResultStore


@dataclass(frozen=True, kw_only=True)
class CardEntry:
    """A card with its outcome so far, and the forecast of the rest."""

    card: Card
    outcome: CardOutcome
    forecast: StudyForecast


@dataclass(frozen=True, kw_only=True)
class CardList:
    """All cards of the catalogue."""

    entries: tuple[CardEntry, ...]
    jobs: int

    def as_dict(self) -> dict[str, Any]:
        """Return the list as a dict of JSON values."""
        return {"cards": [self._entry_dict(entry) for entry in self.entries]}

    def _entry_dict(self, entry: CardEntry) -> dict[str, Any]:
        return {
            "card": entry.card.id,
            "title": entry.card.title,
            "claim": entry.card.claim,
            "verdict": str(entry.outcome.verdict),
            "trials": len(entry.outcome.results),
            "trials_left": 0 if entry.outcome.is_final else entry.forecast.trials,
            "minutes_left": self._minutes(entry),
        }

    def _minutes(self, entry: CardEntry) -> float:
        if entry.outcome.is_final:
            return 0.0
        return round(entry.forecast.minutes(self.jobs), 1)

    @property
    def blocks(self) -> list[f.Block]:
        """Return the table of the cards, and how to go on."""
        columns = (
            f.Column("card", "code"),
            f.Column("claim"),
            f.Column("verdict"),
            f.Column("effect", rank=1),
            f.Column("seeds", "integer", rank=2),
            f.Column("time left", hint="until a decision, on this machine"),
        )
        rows = tuple(self._row(entry) for entry in self.entries)
        note = (
            "`striate lab run E2` runs a card; --quick and --full run all of them. "
            f"Times are for {count_text(self.jobs, 'process', 'processes')}."
        )
        return [f.Table(columns=columns, rows=rows), f.Prose(note)]

    def _row(self, entry: CardEntry) -> tuple[f.Cell, ...]:
        outcome = entry.outcome
        main = next(iter(outcome.outcomes), None)
        known = bool(outcome.results)
        effect = "–"
        if main is not None and main.effects:
            effect = effect_text(main.decision.difference, main.comparison)
        minutes = self._minutes(entry)
        return (
            entry.card.id,
            entry.card.title,
            str(outcome.verdict) if known else "not run yet",
            effect,
            len(main.effects) if main is not None else None,
            "–" if outcome.is_final else f"{max(minutes, 0.1):.3g} min",
        )


def list_cards(out: Path, jobs: int | None = None) -> CardList:
    """Return all cards, with their results in the folder `out`."""
    entries = []
    for card in all_cards():
        results = ResultStore(out, card, {}).results()
        entries.append(
            CardEntry(
                card=card,
                outcome=card_outcome(card, results),
                forecast=forecast_study(card, {}, results),
            )
        )
    return CardList(entries=tuple(entries), jobs=jobs or cpu_count())
