"""Heartbeat: the activity of a rank's main thread, and whether it makes progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMPUTING = "computing"
WAITING = "waiting"  # for the other ranks, in an exchange
BUSY = "busy"  # reading, writing: the disk or the network may take its time
FINISHED = "left"
# Reads from a hanging disk give up after two minutes.
BUSY_PATIENCE = 150.0
_IDLE = 0.02  # share of a CPU core; less is no progress


class Heartbeat:
    """Activity of the main thread; set by it, read by the watchdog.

    Args:
        patience: Seconds without computing that are not yet a fault.
        clock: Monotonic clock in seconds.
        used: CPU seconds used by the process.

    Example:
        >>> heartbeat = Heartbeat(10.0)
        >>> with heartbeat.activity(WAITING, "the gradients of step 3"):
        ...     str(heartbeat)
        'waiting: the gradients of step 3'
    """

    def __init__(
        self,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._used = used
        self._state: tuple[str, str, float] = (BUSY, "reading or writing", clock())
        self._mark = (self._state, used(), clock())

    def __str__(self) -> str:
        return f"{self.kind}: {self.description}"

    @property
    def kind(self) -> str:
        """Return COMPUTING, WAITING, BUSY or FINISHED."""
        return self._state[0]

    @property
    def description(self) -> str:
        """Return a description of the activity."""
        return self._state[1]

    @property
    def seconds(self) -> float:
        """Return the seconds since the activity began."""
        return self._clock() - self._state[2]

    @contextmanager
    def activity(self, kind: str, description: str) -> Iterator[None]:
        """Context manager: set an activity, and the earlier one afterwards."""
        before = self._state
        self._state = (kind, description, self._clock())
        try:
            yield
        finally:
            self._state = (before[0], before[1], self._clock())

    def finish(self) -> None:
        """Record that the rank has finished, so that silence is no fault."""
        self._state = (FINISHED, "done", self._clock())

    def is_stuck(self, watchdog_time: float) -> bool:
        """Return whether nothing was computed for longer than patience allows.

        A step may take any time as long as it uses CPU time; waiting for the other
        ranks is not being stuck.

        Args:
            watchdog_time: CPU seconds of the watchdog thread, which do not count.
        """
        now, used, state = self._clock(), self._used() - watchdog_time, self._state
        seconds, before = self._mark[2], self._mark[1]
        progressed = used - before > _IDLE * max(now - seconds, 0.5)
        if progressed or state is not self._mark[0] or state[0] in (WAITING, FINISHED):
            self._mark = (state, used, now)
            return False
        patience = self._patience if state[0] == COMPUTING else BUSY_PATIENCE
        return now - seconds > patience
