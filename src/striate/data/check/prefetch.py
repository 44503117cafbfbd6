"""Prefetching: threads read remote files and tar members before they are needed.

Reading, unlike decoding, needs no sandbox: the same Python code has already listed the
files. A file that cannot be read in time becomes a finding, like any other unusable
file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from striate.data.check.image_stats import UnusableFile
from striate.data.decode.file_bytes import UndecodableError

READ_AHEAD = 4  # files read at the same time and kept in memory
TIMEOUT = 600.0  # seconds for one file; a whole shard may be downloaded again for it


class Prefetcher:
    """Reader of files by index; threads read the next few files in advance.

    Example:
        >>> prefetcher = Prefetcher(["a", "b"], str.encode)
        >>> prefetcher(0), prefetcher(1), prefetcher(0)
        (b'a', b'b', b'a')
    """

    def __init__(
        self,
        paths: Sequence[str],
        read: Callable[[str], bytes],
        timeout: float = TIMEOUT,
    ) -> None:
        self._paths, self._read, self._timeout = paths, read, timeout
        self._futures: dict[int, Future[bytes]] = {}
        self._next = 0

    def __call__(self, index: int) -> bytes | UnusableFile:
        """Return the bytes of a file, or the reason why it cannot be read."""
        while self._next < min(index + READ_AHEAD, len(self._paths)):
            self._start(self._next)
            self._next += 1
        if index not in self._futures:
            self._start(index)  # requested again: the worker that had it has died
        try:
            return self._futures.pop(index).result(self._timeout)
        except UndecodableError as error:
            return UnusableFile(reason=error.reason, detail=error.detail)
        except TimeoutError:
            detail = f"not read within {self._timeout:.0f} s"
            return UnusableFile(reason="too-slow", detail=detail)

    def _start(self, index: int) -> None:
        future: Future[bytes] = Future()

        def work() -> None:
            try:
                future.set_result(self._read(self._paths[index]))
            except BaseException as error:  # raised again in __call__
                future.set_exception(error)

        self._futures[index] = future
        # A daemon: a server that never answers must not keep the program from ending.
        threading.Thread(target=work, daemon=True).start()
