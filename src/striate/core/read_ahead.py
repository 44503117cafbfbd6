"""Run calls ahead of time on threads or processes, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")


def results_in_order(
    pool: Executor,
    calls: Iterable[Callable[[], T]],
    ahead: int,
    timeout: float | None = None,
) -> Generator[T, None, None]:
    """Yield the results of calls in order; submit up to `ahead` calls in advance.

    Raises:
        TimeoutError: A result took longer than `timeout` seconds.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor(2) as pool:
        ...     list(results_in_order(pool, ["a".upper, "b".upper], ahead=1))
        ['A', 'B']
    """
    waiting: deque[Future[T]] = deque()
    try:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) > ahead:
                yield waiting.popleft().result(timeout)
        while waiting:
            yield waiting.popleft().result(timeout)
    finally:
        for future in waiting:
            future.cancel()
