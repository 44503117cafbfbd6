"""Race of functions: interleaved rounds, processor time and wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

ROUNDS = 9
# Seconds of one timing: a shorter call is repeated. The clock and the first caches
# then weigh less than 1 %.
MIN_SECONDS = 0.004

Runner = Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class RaceTimes:
    """Seconds of one call of a function, by round."""

    wall: tuple[float, ...]  # elapsed time
    cpu: tuple[float, ...]  # processor time of all threads of this process

    @property
    def wall_seconds(self) -> float:
        """Return the median elapsed time."""
        return median(self.wall)

    @property
    def cpu_seconds(self) -> float:
        """Return the median processor time."""
        return median(self.cpu)


@dataclass(frozen=True, kw_only=True)
class PreparedRace:
    """Warmed-up functions, the time of a call, and the number of calls in a round."""

    runners: Mapping[str, Runner]
    seconds: Mapping[str, float]  # elapsed time of a call

    def calls(self, name: str) -> int:
        """Return how often a function is called in a round."""
        return max(1, round(MIN_SECONDS / max(self.seconds[name], 1e-9)))

    @property
    def round_seconds(self) -> float:
        """Return the expected elapsed time of one round."""
        return sum(s * self.calls(name) for name, s in self.seconds.items())

    def run(self, rounds: int = ROUNDS) -> dict[str, RaceTimes]:
        """Return the times of all functions; each round runs every function in turn.

        Every second round runs in the opposite order: a change in the speed of the
        machine meets all functions alike.
        """
        times: dict[str, list[tuple[float, float]]] = {n: [] for n in self.runners}
        for number in range(rounds):
            names = list(self.runners)
            for name in names if number % 2 else reversed(names):
                times[name].append(_timed(self.runners[name], self.calls(name)))
        return {
            name: RaceTimes(
                wall=tuple(wall for wall, _ in pairs),
                cpu=tuple(cpu for _, cpu in pairs),
            )
            for name, pairs in times.items()
        }


def prepare_race(runners: Mapping[str, Runner]) -> PreparedRace:
    """Warm up functions and measure how long a call takes.

    Example:
        >>> race = prepare_race({"a": lambda: sum(range(99)), "b": lambda: None})
        >>> times = race.run(rounds=7)
        >>> len(times["a"].cpu), times["a"].cpu_seconds > times["b"].cpu_seconds
        (7, True)
    """
    seconds = {}
    for name, runner in runners.items():
        runner()
        wall, _ = _timed(runner, 1)
        if wall < MIN_SECONDS:  # the second call is still slower than all later calls
            wall, _ = _timed(runner, 3)
        seconds[name] = wall
    return PreparedRace(runners=runners, seconds=seconds)


def _timed(runner: Runner, count: int) -> tuple[float, float]:
    """Return the elapsed time and the processor time of one call, in seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        runner()
    elapsed, used = time.perf_counter() - wall, time.process_time() - cpu
    return elapsed / count, used / count
