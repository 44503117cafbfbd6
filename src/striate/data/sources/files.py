"""Read image files, and detect changed files without reading them again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from striate.data.decode.file_bytes import read_file


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size and times of a file, to detect changes without reading it.

    `newest` is the latest of its times in nanoseconds, where known. A file that was
    written a moment ago may be written again within the same tick of the clock.
    """

    text: str
    size: int
    newest: int = 0


class Files(Protocol):
    """Interface for reading image files by the paths of their records."""

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            UndecodableError: The file cannot be read.
        """
        ...

    def stamp(self, path: str) -> Stamp | None:
        """Return the stamp (size and times) of a file, or None if it is unknown."""
        ...

    def name(self, path: str) -> bytes:
        """Return the full name of a file, which is the same in every run."""
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Reader of local files in a folder."""

    root: Path

    def read(self, path: str) -> bytes:
        """Return the bytes of a regular file; never open a pipe or a device."""
        return read_file(self.root / path)

    def stamp(self, path: str) -> Stamp | None:
        """Return the size, times and inode of a file, which detect every change.

        Programs cannot set the time of change (ctime). So edits by a tool that restores
        the time of modification are detected, too.
        """
        try:
            status = os.stat(f"{self.root}/{path}")  # noqa: PTH116 - a third of the time
        except (OSError, ValueError):
            return None
        times = status.st_mtime_ns, status.st_ctime_ns
        text = f"{status.st_size} {times[0]} {times[1]} {status.st_ino}"
        return Stamp(text, status.st_size, max(times))

    def name(self, path: str) -> bytes:
        """Return the absolute path of a file."""
        return os.fsencode(f"{self._absolute}/{path}")

    @cached_property
    def _absolute(self) -> str:
        return os.path.abspath(self.root)  # noqa: PTH100 - symbolic links are kept
