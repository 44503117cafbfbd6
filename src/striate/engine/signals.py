"""Being asked to stop: the first time between steps, the second time at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, a terminal that closes, and a system or scheduler that wants its machine back.
STOP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class StopRequest:
    """Answers whether someone has asked to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        """Say whether someone has."""
        return self.signal > 0

    @property
    def exit_code(self) -> int:
        """Return what a shell expects of a program that a signal ended: 130 of Ctrl-C.

        Example:
            >>> asked = StopRequest()
            >>> asked.signal = signal.SIGINT
            >>> asked.exit_code
            130
        """
        return 128 + self.signal


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Yield a question: has someone asked to stop?

    A signal that is ignored, as `nohup` has SIGHUP be, stays ignored. Outside the main
    thread, where Python allows no handlers, signals keep their usual meaning and the
    answer is always no.

    Example:
        >>> with catch_stop_signals() as asked:
        ...     signal.raise_signal(signal.SIGINT)
        ...     asked()
        True
    """
    asked = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    found = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    kept = (signal.SIG_IGN, None)  # None: set outside Python, and not ours to replace
    before = {n: handler for n, handler in found.items() if handler not in kept}

    def note(number: int, frame: FrameType | None) -> None:
        asked.signal = asked.signal or number
        # Who closes a terminal sends SIGHUP twice, the shell's and the system's, and
        # means it once.
        if number != signal.SIGHUP:
            signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
