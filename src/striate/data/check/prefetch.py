"""Files that lie elsewhere, read on threads a few ahead of who asks for them.

Reading is no decoding: what reads them is Python that the set was found by, so it needs
no process of its own. What it cannot read, or not in time, is a finding like any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from striate.data.check.measure import Refused
from striate.data.decode.file_bytes import UndecodableError

TOGETHER = 4  # files read at a time, and held until they are asked for
LONGEST = 600.0  # seconds for one file; a whole shard may have to come for it again


class Ahead:
    """Files by their numbers, asked for in order or again; no more than a few are held.

    Args:
        paths: As `read` takes them.
        read: Returns a file's bytes, or raises `UndecodableError`.
        longest: Seconds that a file is waited for.

    Example:
        >>> ahead = Ahead(["a", "b"], str.encode)
        >>> ahead(0), ahead(1), ahead(0)
        (b'a', b'b', b'a')
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[str], bytes],
        longest: float = LONGEST,
    ) -> None:
        self._paths, self._read, self._longest = paths, read, longest
        self._begun: dict[int, Future[bytes]] = {}
        self._next = 0

    def __call__(self, index: int) -> bytes | Refused:
        """Return a file's bytes, or why there are none."""
        while self._next < min(index + TOGETHER, len(self._paths)):
            self._begin(self._next)
            self._next += 1
        if index not in self._begun:
            self._begin(index)  # it was asked for before: who had it has died
        try:
            return self._begun.pop(index).result(self._longest)
        except UndecodableError as error:
            return Refused(reason=error.reason, detail=error.detail)
        except TimeoutError:
            detail = f"not read within {self._longest:.0f} s"
            return Refused(reason="too-slow", detail=detail)

    def _begin(self, index: int) -> None:
        future: Future[bytes] = Future()

        def work() -> None:
            try:
                future.set_result(self._read(self._paths[index]))
            except BaseException as error:  # raised where it is asked for
                future.set_exception(error)

        self._begun[index] = future
        # A daemon: a place that never answers must not keep the program from ending.
        threading.Thread(target=work, daemon=True).start()
