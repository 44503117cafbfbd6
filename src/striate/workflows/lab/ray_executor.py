"""Run trials on a Ray cluster: one task for each trial, on any of its machines."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from striate.core.errors import RunError, SettingError
from striate.workflows.lab.executors import run_trial
from striate.workflows.lab.store import TrialResult
from striate.workflows.lab.trial import Trial

MAX_RETRIES = 2  # of a task whose machine was lost


class RayExecutor:
    """Runs each trial as a Ray task with one processor core.

    Args:
        address: `host:port` of the cluster, or `auto` for the cluster of this machine.
        gpus: Number of GPUs of a trial; a fraction shares a GPU.
    """

    def __init__(self, address: str, gpus: float = 0) -> None:
        self.address = address
        self.gpus = gpus

    def run(self, trials: Iterable[Trial]) -> Iterator[TrialResult]:
        """Run the trials; yields results in the order in which they finish.

        If a machine is lost, only its trials are run again, on another machine.

        Raises:
            SettingError: Ray is not installed, or another version of striate is on a
                machine of the cluster.
            RunError: There is no cluster at the address, or a trial was lost too often.
        """
        ray = _import_ray()
        _connect(ray, self.address)
        try:
            yield from self._run(ray, trials)
        finally:
            ray.shutdown()

    def _run(self, ray: Any, trials: Iterable[Trial]) -> Iterator[TrialResult]:
        task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=MAX_RETRIES)(
            run_checked_trial
        )
        slots = max(int(ray.cluster_resources().get("CPU", 1)), 1)
        waiting = iter(trials)
        running: list[Any] = []
        while True:
            while len(running) < slots and (trial := next(waiting, None)):
                running.append(task.remote(trial, version("striate")))
            if not running:
                return
            done, running = ray.wait(running, num_returns=1)
            try:
                results = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise _cause(error) from error
            except ray.exceptions.RayError as error:
                what = f"a trial was lost on the cluster: {str(error).splitlines()[0]}"
                fix = "run the same command again; finished trials are not repeated"
                raise RunError(what, where=self.address, fix=fix) from error
            yield from results


def run_checked_trial(trial: Trial, expected: str) -> TrialResult:
    """Run a trial on a machine of the cluster, if it has the expected version.

    Raises:
        SettingError: The machine has another version of striate.
    """
    if (installed := version("striate")) != expected:
        what = f"a machine has striate {installed}, and this one has {expected}"
        fix = "install the same version on all machines"
        raise SettingError(what, where=os.uname().nodename, fix=fix)
    return run_trial(trial)


def _cause(error: Any) -> Exception:
    """Return our own error inside an error of Ray, or a short one."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, SettingError | RunError):
        return cause
    lines = [line for line in str(error).splitlines() if line.strip()]
    what = f"a trial failed on the cluster: {lines[-1] if lines else error}"
    return RunError(what, where="Ray", fix="run the card without --ray-address")


def _import_ray() -> Any:
    # Both are read at the import: no usage statistics, no changed signal handlers.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        what = "Ray is not installed"
        fix = "pip install 'striate[ray]', or leave out --ray-address"
        raise SettingError(what, where="--ray-address", fix=fix) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = f"there is no usable Ray cluster at '{address}': {first}"
        fix = "start one with `ray start --head`, or leave out --ray-address"
        raise RunError(what, where="--ray-address", fix=fix) from error
