"""Pool the effects of a card over the results of several machines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from striate.core import findings as f
from striate.core.errors import RunError
from striate.metrics.random_effects import PooledEffect, pool_effects
from striate.workflows.lab.card import ArmComparison
from striate.workflows.lab.catalogue import all_cards
from striate.workflows.lab.findings import effect_interval_text, effect_text
from striate.workflows.lab.outcome import card_outcome
from striate.workflows.lab.store import ResultStore

MIN_SEEDS = 3  # of a folder, for its standard error


@dataclass(frozen=True, kw_only=True)
class PooledComparison:
    """Pooled effect of a comparison, with the effects of the folders."""

    card: str
    comparison: ArmComparison
    folders: tuple[Path, ...]
    effects: tuple[float, ...]  # mean over the seeds of each folder
    pooled: PooledEffect


@dataclass(frozen=True, kw_only=True)
class MergedResults:
    """Pooled effects of all cards that at least two folders have."""

    comparisons: tuple[PooledComparison, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the pooled effects as a dict of JSON values."""
        return {
            "comparisons": [
                {
                    "card": each.card,
                    "comparison": each.comparison.title,
                    "folders": [str(folder) for folder in each.folders],
                    "effects": list(each.effects),
                    "difference": each.pooled.difference,
                    "interval": list(each.pooled.interval),
                    "tau2": each.pooled.tau2,
                    "i2": each.pooled.i2,
                }
                for each in self.comparisons
            ]
        }

    @property
    def blocks(self) -> list[f.Block]:
        """Return a table of the pooled effects."""
        columns = (
            f.Column("card", "code"),
            f.Column("comparison"),
            f.Column("folders", "integer"),
            f.Column("pooled effect"),
            f.Column("95 % interval"),
            f.Column("I²", "percent", key="i2", hint="variation that is not chance"),
        )
        rows = tuple(
            (
                each.card,
                each.comparison.title,
                each.pooled.sites,
                effect_text(each.pooled.difference, each.comparison),
                effect_interval_text(each.pooled.interval, each.comparison),
                each.pooled.i2,
            )
            for each in self.comparisons
        )
        return [f.Table(columns=columns, rows=rows, note="Random-effects model.")]


def merge_results(folders: Sequence[Path]) -> MergedResults:
    """Pool each comparison over folders with the same version of the card.

    The machines can differ in hardware and versions, so their true effects may differ:
    a random-effects model allows for it. A folder counts with three seeds or more.

    Raises:
        RunError: No card has results in two of the folders.
    """
    merged: list[PooledComparison] = []
    for card in all_cards():
        outcomes = {
            folder: card_outcome(card, ResultStore(folder, card, {}).results())
            for folder in folders
        }
        for number, comparison in enumerate(card.comparisons):
            by_folder = {
                folder: outcome.outcomes[number].effects
                for folder, outcome in outcomes.items()
                if len(outcome.outcomes[number].effects) >= MIN_SEEDS
            }
            varied = {k: v for k, v in by_folder.items() if stdev(v) > 0}
            if len(varied) >= 2:
                merged.append(_pool(card.id, comparison, varied))
    if not merged:
        what = f"no card has {MIN_SEEDS} seeds or more in two of the folders"
        fix = "give folders of `striate lab run` with the same version of a card"
        raise RunError(what, where=", ".join(map(str, folders)), fix=fix)
    return MergedResults(comparisons=tuple(merged))


def _pool(
    card: str, comparison: ArmComparison, by_folder: dict[Path, tuple[float, ...]]
) -> PooledComparison:
    means = tuple(fmean(values) for values in by_folder.values())
    errors = [stdev(v) / math.sqrt(len(v)) for v in by_folder.values()]
    return PooledComparison(
        card=card,
        comparison=comparison,
        folders=tuple(by_folder),
        effects=means,
        pooled=pool_effects(means, errors),
    )
