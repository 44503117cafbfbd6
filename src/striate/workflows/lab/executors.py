"""Run trials in this process, or in several processes of one thread each."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from multiprocessing.connection import wait as wait_for
from typing import Protocol

import torch

from striate.core.device import compute_environment
from striate.core.errors import RunError
from striate.core.torch_modes import own_torch_modes
from striate.workflows.lab.find_card import find_card
from striate.workflows.lab.store import TrialResult
from striate.workflows.lab.trial import Trial


def processor_name() -> str:
    """Return the name of the processor of this machine."""
    return compute_environment(torch.device("cpu"))["processor"]


class Executor(Protocol):
    """Runs trials and yields their results as they finish."""

    def run(self, trials: Iterable[Trial]) -> Iterator[TrialResult]:
        """Run the trials; takes the next one only when a process is free."""
        ...


def run_trial(trial: Trial) -> TrialResult:
    """Run a trial with one thread, and return its measurements.

    With one thread, the result does not depend on the number of trials at a time.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    try:
        with own_torch_modes():
            card = find_card(trial.card)
            measurements = card.measure(trial, card.arm(trial.arm))
    finally:
        torch.set_num_threads(threads)
    return TrialResult(
        arm=trial.arm,
        seed=trial.seed,
        measurements=measurements,
        seconds=time.process_time() - start,
        machine=f"{processor_name()}, torch {torch.__version__}",
        date=date.today().isoformat(),
    )


def end_with_parent() -> None:
    """End this process when the process that started it ends, even by a kill signal.

    Otherwise it would train to the end of its trial, and then wait forever.
    """
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            wait_for([parent.sentinel])
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class SerialExecutor:
    """Runs one trial after the other in this process."""

    def run(self, trials: Iterable[Trial]) -> Iterator[TrialResult]:
        """Run the trials in order."""
        return map(run_trial, trials)


class ProcessExecutor:
    """Runs up to `jobs` trials at a time, each in a process of its own.

    Args:
        jobs: Number of processes.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def run(self, trials: Iterable[Trial]) -> Iterator[TrialResult]:
        """Run the trials; yields results in the order in which they finish.

        Raises:
            RunError: A process died, for example because memory was exhausted.
        """
        context = multiprocessing.get_context("spawn")
        waiting = iter(trials)
        running: set[Future[TrialResult]] = set()
        pool = ProcessPoolExecutor(
            self.jobs, mp_context=context, initializer=end_with_parent
        )
        try:
            while True:
                while len(running) < self.jobs and (trial := next(waiting, None)):
                    running.add(pool.submit(run_trial, trial))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            what = "a process of the lab died, perhaps because memory was exhausted"
            fix = "run the same command again, with fewer --jobs; nothing is repeated"
            raise RunError(what, where="striate lab run", fix=fix) from error
        finally:
            for future in running:
                future.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
