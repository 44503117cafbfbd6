"""Where a source's bytes lie: read a file, and tell cheaply whether it has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from striate.data.decode.file_bytes import read_file


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the system says of a file without reading it.

    `newest` is the latest of its times in nanoseconds, where known: a file written to
    a moment ago may be written to again within the same tick of the clock.
    """

    text: str
    size: int
    newest: int = 0


class Files(Protocol):
    """A place that images are read from, by the paths of its records."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            UndecodableError: It cannot be read; says why.
        """
        ...

    def stamp(self, path: str) -> Stamp | None:
        """Return the file's stamp, or None where it cannot be had."""
        ...

    def name(self, path: str) -> bytes:
        """Return the file's whole name, the same in every run."""
        ...


@dataclass(frozen=True)
class LocalFiles:
    """Files below a folder of this machine."""

    root: Path

    def read(self, path: str) -> bytes:
        """Return a regular file's bytes; pipes and devices are never opened."""
        return read_file(self.root / path)

    def stamp(self, path: str) -> Stamp | None:
        """Return size, both times and the inode: what an edit cannot leave alone.

        The time of change (ctime) cannot be set by programs, so that a tool which
        restores the time of modification is still seen.
        """
        try:
            found = os.stat(f"{self.root}/{path}")  # noqa: PTH116 - a third of the time
        except (OSError, ValueError):
            return None
        times = found.st_mtime_ns, found.st_ctime_ns
        text = f"{found.st_size} {times[0]} {times[1]} {found.st_ino}"
        return Stamp(text, found.st_size, max(times))

    def name(self, path: str) -> bytes:
        """Return the absolute path."""
        return os.fsencode(f"{self._absolute}/{path}")

    @cached_property
    def _absolute(self) -> str:
        return os.path.abspath(self.root)  # noqa: PTH100 - links stay
