"""A file that grows line by line, and can be cut back to where it was known good."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from striate.core.files import make_folder, storage_errors, sync_folder, write_all

CHUNK = 1 << 20


class Lines:
    r"""Keeps lines until `flush`; `mark` syncs them and says what is there.

    Args:
        path: The file; made if it is not there.
        mark: Cut the file back to what `mark` once said; else it begins empty.

    Raises:
        StorageError: The disk refused.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     lines = Lines(Path(folder, "log.txt"))
        ...     lines.add("kept")
        ...     mark = lines.mark()
        ...     lines.add("written after the mark")
        ...     lines.close()
        ...     holds(lines.path, mark), Lines(lines.path, mark).close()
        ...     lines.path.read_text()
        (True, None)
        'kept\n'
    """

    def __init__(self, path: Path, mark: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self._waiting: list[str] = []
        with storage_errors(path, 0):
            make_folder(path.parent)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._digest, self._bytes = _digest(self._handle, _length(mark))
                os.ftruncate(self._handle, self._bytes)
                sync_folder(path.parent)
            except BaseException:
                os.close(self._handle)
                raise

    def add(self, line: str) -> None:
        """Take a line, without its end."""
        self._waiting.append(line)

    def flush(self) -> None:
        """Hand the lines to the system: from here on a killed process keeps them."""
        payload = "".join(f"{line}\n" for line in self._waiting).encode()
        self._waiting.clear()
        with storage_errors(self.path, len(payload)):
            write_all(self._handle, payload)
        self._digest.update(payload)
        self._bytes += len(payload)

    def mark(self) -> dict[str, Any]:
        """Bring everything to the disk; return length and SHA-256 of what is there."""
        self.flush()
        with storage_errors(self.path, 0):
            os.fsync(self._handle)
        return {"bytes": self._bytes, "sha256": self._digest.hexdigest()}

    def close(self) -> None:
        """Hand over what waits, and let go of the file."""
        try:
            self.flush()
        finally:
            os.close(self._handle)


def holds(path: Path, mark: Mapping[str, Any]) -> bool:
    """Say whether a file still begins with what `mark` said it held."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        digest, length = _digest(handle, _length(mark))
    finally:
        os.close(handle)
    return {"bytes": length, "sha256": digest.hexdigest()} == dict(mark)


def _length(mark: Mapping[str, Any] | None) -> int:
    return int(mark["bytes"]) if mark else 0


def _digest(handle: int, wanted: int) -> tuple[Any, int]:
    """Read so many bytes, or as many as there are; return their digest and number."""
    digest, length = hashlib.sha256(), 0
    while chunk := os.read(handle, min(CHUNK, wanted - length)):
        digest.update(chunk)
        length += len(chunk)
    return digest, length
