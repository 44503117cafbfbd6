"""Ctrl-C: the first asks the loop to finish its step, the second stops at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def polite_interrupt() -> Iterator[Callable[[], bool]]:
    """Yield a question: has the user asked to stop?

    Outside the main thread, where Python allows no signal handlers, Ctrl-C keeps its
    usual meaning and the answer is always no.

    Example:
        >>> with polite_interrupt() as asked:
        ...     signal.raise_signal(signal.SIGINT)
        ...     asked()
        True
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
