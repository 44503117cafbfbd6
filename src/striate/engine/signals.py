"""Stop signals: the first one ends the run after a step, the second one at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Ctrl-C, a terminal that closes, and a system or scheduler that wants its machine back.
STOP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


class StopRequest:
    """Record of the stop signal that has arrived, if any."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        """Return whether a stop signal has arrived."""
        return self.signal > 0

    @property
    def exit_code(self) -> int:
        """Return the exit code that shells expect after the signal: 130 for Ctrl-C.

        Example:
            >>> request = StopRequest()
            >>> request.signal = signal.SIGINT
            >>> request.exit_code
            130
        """
        return 128 + self.signal


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Context manager that records stop signals instead of ending the process.

    A signal that is already ignored (SIGHUP under `nohup`) stays ignored. Outside the
    main thread, where Python allows no handlers, signals keep their usual effect.

    Example:
        >>> with catch_stop_signals() as request:
        ...     signal.raise_signal(signal.SIGINT)
        ...     request()
        True
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    # None is a handler set outside Python, which must not be replaced.
    replaced = {n: h for n, h in handlers.items() if h not in (signal.SIG_IGN, None)}

    def handle(signum: int, frame: FrameType | None) -> None:
        request.signal = request.signal or signum
        # A terminal that closes sends SIGHUP twice, once from the shell and once from
        # the system, and it counts as one request.
        if signum != signal.SIGHUP:
            signal.signal(signum, replaced[signal.Signals(signum)])

    for signum in replaced:
        signal.signal(signum, handle)
    try:
        yield request
    finally:
        for signum, handler in replaced.items():
            signal.signal(signum, handler)
