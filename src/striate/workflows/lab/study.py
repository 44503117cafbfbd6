"""Run a card: seeds by seed, look by look, until it is decided or the budget ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from striate.core.cpu_count import cpu_count
from striate.core.errors import SettingError
from striate.run.lock import lock_folder
from striate.workflows.lab.card import Card
from striate.workflows.lab.executors import Executor, ProcessExecutor, SerialExecutor
from striate.workflows.lab.outcome import CardOutcome, card_outcome
from striate.workflows.lab.store import ResultStore
from striate.workflows.lab.trial import Trial

LAB_FOLDER = Path("runs/lab")
QUICK_SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class StudyProgress:
    """Progress of a card, after a trial has finished."""

    card: Card
    finished: int  # trials with a result
    planned: int  # trials up to the next look
    arm: str  # the arm and the seed that finished last
    seed: int
    seconds_left: float  # estimated time up to the next look


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Budget, place and settings of a study.

    Args:
        minutes: Longest time in minutes; None: until the card is decided.
        seeds: Largest number of seeds; None: the last look of the card's rules.
        jobs: Number of processes; None: one for each core.
        out: Folder of the results of all cards.
        quick: Smaller settings, for a first impression.
        overrides: Changed settings, such as `data`.
        executor: What runs the trials; None: processes on this machine.
    """

    minutes: float | None = None
    seeds: int | None = None
    jobs: int | None = None
    out: Path = LAB_FOLDER
    quick: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    executor: Executor | None = None

    def __post_init__(self) -> None:
        for name in ("minutes", "seeds", "jobs"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                what = f"{name} must be above 0, got {value:g}"
                raise SettingError(what, where=f"--{name}")

    def changes(self, card: Card) -> dict[str, Any]:
        """Return the settings that differ from the card's."""
        return {**(card.quick if self.quick else {}), **self.overrides}

    def make_executor(self) -> Executor:
        """Return what runs the trials."""
        if self.executor is not None:
            return self.executor
        jobs = self.jobs or cpu_count()
        return SerialExecutor() if jobs == 1 else ProcessExecutor(jobs)


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """Outcome of a card, with the folder of its results."""

    outcome: CardOutcome
    folder: Path
    other_versions: dict[str, int]  # finished trials of other versions of the card
    new_trials: int
    seconds: float  # wall time of this call


def run_study(
    card: Card,
    options: StudyOptions,
    on_progress: Callable[[StudyProgress], None] = lambda progress: None,
) -> StudyResult:
    """Run the trials of a card that are missing, until the claim is decided.

    Results are looked at only after the numbers of seeds that the rules name. Finished
    trials are read, never repeated, so a killed study goes on where it was.

    Raises:
        SettingError: The budget is too small for one seed of each arm.
        RunError: Another process runs the same card, or a process died.
    """
    store = ResultStore(options.out, card, options.changes(card))
    store.create()
    start = time.monotonic()
    deadline = math.inf if options.minutes is None else start + 60 * options.minutes
    executor = options.make_executor()
    before = len(store.results())
    with lock_folder(store.folder):
        for seeds in planned_looks(card, options):
            _run_look(store, seeds, executor, deadline, options, on_progress)
            outcome = card_outcome(card, store.results())
            if outcome.is_final or time.monotonic() >= deadline:
                break
        store.write_table()
    results = store.results()
    return StudyResult(
        outcome=card_outcome(card, results),
        folder=store.folder,
        other_versions=store.other_versions(),
        new_trials=len(results) - before,
        seconds=time.monotonic() - start,
    )


def planned_looks(card: Card, options: StudyOptions) -> list[int]:
    """Return the numbers of seeds after which the results are looked at."""
    if card.exact:
        return [1]
    looks = sorted({look for c in card.comparisons for look in c.rule.looks})
    limit = options.seeds or (QUICK_SEEDS if options.quick else looks[-1])
    return [*(look for look in looks if look < limit), min(limit, looks[-1])]


def _run_look(
    store: ResultStore,
    seeds: int,
    executor: Executor,
    deadline: float,
    options: StudyOptions,
    on_progress: Callable[[StudyProgress], None],
) -> None:
    """Run the missing trials of the first `seeds` seeds, until the deadline."""
    card = store.card
    # All arms of a seed in a row: a study that ends early has complete seeds.
    trials = [store.trial(a.name, seed) for seed in range(seeds) for a in card.arms]
    missing = [trial for trial in trials if not store.is_finished(trial)]
    durations: list[float] = []
    jobs = options.jobs or cpu_count()

    def until_deadline() -> Iterator[Trial]:
        start = time.monotonic()
        for index, trial in enumerate(missing):
            expected = (time.monotonic() - start) / max(index - jobs + 1, 1)
            if time.monotonic() + (expected if index >= jobs else 0) > deadline:
                return
            yield trial

    if len(missing) == 1 and options.executor is None:
        executor = SerialExecutor()  # starting a process takes seconds
    for result in executor.run(until_deadline()):
        store.save(result)
        durations.append(result.seconds)
        left = len(missing) - len(durations)
        on_progress(
            StudyProgress(
                card=card,
                finished=len(trials) - left,
                planned=len(trials),
                arm=result.arm,
                seed=result.seed,
                seconds_left=left * sum(durations) / len(durations) / jobs,
            )
        )
