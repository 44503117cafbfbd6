"""Forecast of a card: number of seeds until a decision, and time on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

import torch
from torch.nn import functional as F

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError
from striate.core.format import count_text, duration_text
from striate.metrics.power import paired_deviation, seeds_needed
from striate.workflows.lab.card import Card
from striate.workflows.lab.outcome import card_outcome
from striate.workflows.lab.store import ResultStore, TrialResult
from striate.workflows.lab.study import StudyOptions, planned_looks

REFERENCE_SECONDS = 0.105  # of `machine_factor`'s convolutions, where cards were timed
USUAL_ERROR = 0.1  # test error that is assumed before the first trial
MIN_SEEDS = 3  # seeds from which on the measured deviation is used


@dataclass(frozen=True, kw_only=True)
class StudyForecast:
    """Expected number of seeds, trials and processor time until a decision."""

    seeds: int | None  # None: more than the rule's last look
    trials: int  # trials without a result, up to the expected number of seeds
    seconds: float  # processor time of these trials

    def minutes(self, jobs: int) -> float:
        """Return the expected wall time in minutes, with a number of processes."""
        return self.seconds / jobs / 60


def forecast_study(
    card: Card,
    changes: Mapping[str, Any],
    results: Sequence[TrialResult],
    most_seeds: int | None = None,
) -> StudyForecast:
    """Return the forecast of a card, from its expected effects and results so far.

    Before the first trials, the deviation between seeds is that of the test sample:
    √(2 · error / (2 · test images)) for the difference of two arms.
    """
    last = 1 if card.exact else max(c.rule.looks[-1] for c in card.comparisons)
    needed = None if card.exact else _seeds(card, changes, results)
    seeds = min(needed or last, most_seeds or last, last)
    done = {(result.arm, result.seed) for result in results}
    trials = sum(
        (arm.name, seed) not in done for seed in range(seeds) for arm in card.arms
    )
    seconds = (
        fmean(r.seconds for r in results)
        if results
        else expected_seconds(card, changes)
    )
    return StudyForecast(seeds=needed, trials=trials, seconds=trials * seconds)


def _seeds(
    card: Card, changes: Mapping[str, Any], results: Sequence[TrialResult]
) -> int | None:
    outcomes = card_outcome(card, results).outcomes
    settings = {**card.settings, **changes}
    counts = []
    for outcome in outcomes:
        comparison, effects = outcome.comparison, outcome.effects
        measured = len(effects) >= MIN_SEEDS
        deviation = stdev(effects) if measured else comparison.deviation
        if deviation is None:
            images = int(settings.get("test_images") or 1_000)
            deviation = 100 * paired_deviation(USUAL_ERROR, images)
        effect = fmean(effects) if measured else comparison.expected
        counts.append(seeds_needed(effect, deviation, comparison.rule))
    if None in counts:
        return None
    return max((count for count in counts if count is not None), default=1)


def expected_seconds(card: Card, changes: Mapping[str, Any]) -> float:
    """Return the expected processor time of a trial, before any trial has run."""
    share = 1.0
    for name in ("train_images", "epochs"):
        if name in changes and card.settings.get(name):
            share *= float(changes[name]) / float(card.settings[name])
    return card.seconds * share * machine_factor()


@cache
def machine_factor() -> float:
    """Return how much slower a core of this machine is than that of the cards' times.

    It times the forward and the backward pass of one convolution, with one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        x = torch.zeros(64, 16, 28, 28, requires_grad=True)
        weight = torch.zeros(32, 16, 3, 3, requires_grad=True)
        times = []
        for _ in range(4):
            start = time.process_time()
            for _ in range(5):
                total = F.conv2d(x, weight, padding=1).sum()
                torch.autograd.grad(total, [x, weight])
            times.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return min(times) / REFERENCE_SECONDS


def forecast_text(card: Card, options: StudyOptions) -> str:
    """Return the forecast of a card as a line, for the start of a run."""
    changes = options.changes(card)
    results = ResultStore(options.out, card, changes).results()
    limit = planned_looks(card, options)[-1]
    forecast = forecast_study(card, changes, results, limit)
    done = f", {len(results)} finished" if results else ""
    trials = count_text(forecast.trials, "trial")
    seeds = (
        f"a decision after about {count_text(forecast.seeds, 'seed')}"
        if forecast.seeds
        else "perhaps no decision with the largest number of seeds"
    )
    if forecast.seeds and forecast.seeds > limit:
        seeds = f"too few seeds for a decision, which takes about {forecast.seeds}"
    if card.exact:
        seeds = "exact, one seed"
    minutes = forecast.minutes(options.jobs or cpu_count())
    return (
        f"{card.id}  {card.title}: {seeds}; {trials} to run{done}, about "
        f"{duration_text(60 * minutes)}"
    )


def check_budget(card: Card, options: StudyOptions) -> None:
    """Raise an error if the budget is too small for one seed of each arm.

    Raises:
        SettingError: Says how many minutes are needed.
    """
    if options.minutes is None:
        return
    jobs = options.jobs or cpu_count()
    rounds = math.ceil(len(card.arms) / jobs)
    changes = options.changes(card)
    results = ResultStore(options.out, card, changes).results()
    if results:  # a study that goes on uses what is left of its budget
        return
    needed = rounds * expected_seconds(card, changes) / 60
    if needed > options.minutes:
        what = (
            f"{options.minutes:.2g} minutes are too few for one seed of "
            f"{count_text(len(card.arms), 'arm')}: about {needed:.1f} are needed"
        )
        fix = "give more --minutes, or --quick"
        raise SettingError(what, where=f"{card.id}, --minutes", fix=fix)
