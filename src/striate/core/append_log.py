"""An append-only text file that can be truncated to a saved offset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from striate.core.files import make_folder, storage_errors, sync_folder, write_all

CHUNK = 1 << 20


class AppendLog:
    r"""Append-only text file whose length and hash can be saved and checked later.

    Args:
        path: The file; created if it does not exist.
        offset: Saved result of `offset`; the file is truncated to this length. None
            truncates the file to zero bytes.

    Raises:
        StorageError: The file could not be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     log = AppendLog(Path(folder, "log.txt"))
        ...     log.append("before")
        ...     offset = log.offset()
        ...     log.append("after")
        ...     log.close()
        ...     prefix_matches(log.path, offset), AppendLog(log.path, offset).close()
        ...     log.path.read_text()
        (True, None)
        'before\n'
    """

    def __init__(self, path: Path, offset: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._buffer: list[str] = []
        with storage_errors(path, 0):
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._digest, self._bytes = _digest(self._handle, _length(offset))
                os.ftruncate(self._handle, self._bytes)
                sync_folder(path.parent)
            except BaseException:
                os.close(self._handle)
                raise

    def append(self, line: str) -> None:
        """Add a line, given without newline, to the write buffer."""
        self._buffer.append(line)

    def flush(self) -> None:
        """Write the buffered lines to the file, where they survive a killed process."""
        payload = "".join(f"{line}\n" for line in self._buffer).encode()
        self._buffer.clear()
        with storage_errors(self.path, len(payload)):
            write_all(self._handle, payload)
        self._digest.update(payload)
        self._bytes += len(payload)

    def offset(self) -> dict[str, Any]:
        """Sync the file to the disk and return its length and SHA-256."""
        self.flush()
        with storage_errors(self.path, 0):
            os.fsync(self._handle)
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Write the buffer and close the file."""
        try:
            self.flush()
        finally:
            os.close(self._handle)


def prefix_matches(path: Path, offset: Mapping[str, Any]) -> bool:
    """Return whether the start of a file has the saved length and SHA-256."""
    try:
        with path.open("rb", buffering=0) as file:
            digest, length = _digest(file.fileno(), _length(offset))
    except OSError:
        return False
    return {"bytes": length, "sha256": digest.hexdigest()} == dict(offset)


def _length(offset: Mapping[str, Any] | None) -> int:
    return int(offset["bytes"]) if offset else 0


def _digest(handle: int, size: int) -> tuple[Any, int]:
    """Read up to `size` bytes; return the SHA-256 object and the number of bytes."""
    digest, length = hashlib.sha256(), 0
    while chunk := os.read(handle, min(CHUNK, size - length)):
        digest.update(chunk)
        length += len(chunk)
    return digest, length
