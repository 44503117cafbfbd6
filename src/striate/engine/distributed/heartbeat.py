"""What a process is doing, as it says so itself, and whether it gets on with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMPUTING = "computing"
WAITING = "waiting"  # for the other ranks, in an exchange
BUSY = "busy"  # reading, writing: the disk or the network may take its time
FINISHED = "left"
# A disk that hangs is given up by those who read from it after two minutes.
BUSY_PATIENCE = 150.0
_IDLE = 0.02  # of a processor; less is standing still


class Heartbeat:
    """Where the main thread is; written by it, read by the watch.

    Args:
        patience: Seconds without a sign of computing that are not yet a fault.
        clock: Seconds that never go backwards.
        used: Seconds of processor time that the work has taken.

    Example:
        >>> pulse = Heartbeat(10.0)
        >>> with pulse.at(WAITING, "the gradients of step 3"):
        ...     str(pulse)
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
        return f"{self.kind}: {self.doing}"

    @property
    def kind(self) -> str:
        """Return COMPUTING, WAITING, BUSY or LEFT."""
        return self._state[0]

    @property
    def doing(self) -> str:
        """Return what it is doing, in words."""
        return self._state[1]

    @property
    def since(self) -> float:
        """Return for how many seconds it has been at that."""
        return self._clock() - self._state[2]

    @contextmanager
    def at(self, kind: str, doing: str) -> Iterator[None]:
        """Be at something; afterwards at what was before."""
        before = self._state
        self._state = (kind, doing, self._clock())
        try:
            yield
        finally:
            self._state = (before[0], before[1], self._clock())

    def leave(self) -> None:
        """Say that no sign will come any more, and that this is no fault."""
        self._state = (FINISHED, "done", self._clock())

    def stands_still(self, watching: float) -> bool:
        """Say whether nothing has been computed for longer than patience allows.

        A step may take any time as long as it takes processor time; waiting for the
        others is not standing still.

        Args:
            watching: Processor time of the thread that asks, which is not the work's.
        """
        now, used, state = self._clock(), self._used() - watching, self._state
        since, before = self._mark[2], self._mark[1]
        moved = used - before > _IDLE * max(now - since, 0.5)
        if moved or state is not self._mark[0] or state[0] in (WAITING, FINISHED):
            self._mark = (state, used, now)
            return False
        allowed = self._patience if state[0] == COMPUTING else BUSY_PATIENCE
        return now - since > allowed
