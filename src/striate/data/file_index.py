"""Index of files read in earlier runs, so that unchanged files are not read again.

The index is one SQLite file in the cache folder; two runs may use it at once. A file
with the same size, times and inode counts as unchanged.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.data.decode.heic import NEEDS_PACKAGE
from striate.data.sources.files import Stamp

# Clocks of file systems are coarse (2 s on FAT, and servers' clocks differ): a file
# that was written so few nanoseconds ago may be written again with the same time.
MIN_AGE = 2_000_000_000
MAX_INDEX_BYTES = 1 << 28  # bytes; a larger index is deleted and started again
HEADER_RULES = 2  # version of the rules from file to header; others are read again
_NAMES_PER_QUERY = 500  # below the limit of SQLite on every system

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL,
    height INTEGER, width INTEGER, channels INTEGER, reason TEXT, detail TEXT
) WITHOUT ROWID
"""
_COLUMNS = "name, stamp, sha256, height, width, channels, reason, detail"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Stored SHA-256 of a file, with its image header or why the header is missing."""

    sha256: str
    header: tuple[int, int, int] | None
    refusal: tuple[str, str] | None = None

    @property
    def cells(self) -> tuple[object, ...]:
        """Return header and error as values for the last five columns of the table."""
        return *(self.header or (None,) * 3), *(self.refusal or (None,) * 2)

    @property
    def needs_package(self) -> bool:
        """Return whether the file can be read if another package is installed."""
        return self.refusal is not None and self.refusal[0] == NEEDS_PACKAGE


class FileIndex:
    """SQLite index of scanned files, in a cache folder; empty if SQLite fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lookup(self, stamps: Mapping[bytes, Stamp]) -> dict[bytes, FileFacts]:
        """Return stored hash and header of files with unchanged size and times."""
        facts: dict[bytes, FileFacts] = {}
        names = list(stamps)
        with suppress(sqlite3.Error), self._open() as database:
            for start in range(0, len(names), _NAMES_PER_QUERY):
                chunk = names[start : start + _NAMES_PER_QUERY]
                marks = ",".join("?" * len(chunk))
                query = f"SELECT {_COLUMNS} FROM files WHERE name IN ({marks})"  # noqa: S608
                for name, stamp, *rest in database.execute(query, chunk):
                    if stamp == _versioned(stamps[name]):
                        facts[name] = _facts_of(rest)
        return facts

    def update(self, facts: Iterable[tuple[bytes, Stamp, FileFacts]]) -> None:
        """Store hash and header of files; skip files that changed a moment ago."""
        now = time.time_ns()
        rows = [
            (name, _versioned(stamp), fact.sha256, *fact.cells)
            for name, stamp, fact in facts
            # A file that needs a package is readable as soon as that is installed.
            if stamp.newest + MIN_AGE < now and not fact.needs_package
        ]
        if not rows:
            return
        marks = ",".join("?" * len(_COLUMNS.split(",")))
        with suppress(sqlite3.Error, OSError), self._open(write=True) as database:
            database.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", rows)  # noqa: S608

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        if not write and not self._path.exists():
            raise sqlite3.OperationalError("the index file does not exist yet")
        if write:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._remove_if_broken()
        with closing(sqlite3.connect(self._path, timeout=20)) as database, database:
            if write:
                database.execute(_TABLE)
            yield database

    def _remove_if_broken(self) -> None:
        if not self._path.exists():
            return
        try:
            usable = self._path.stat().st_size <= MAX_INDEX_BYTES
            if usable:
                with closing(sqlite3.connect(self._path, timeout=20)) as database:
                    database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            usable = isinstance(error, sqlite3.OperationalError)  # busy, not broken
        if not usable:
            self._path.unlink(missing_ok=True)


def _versioned(stamp: Stamp) -> str:
    return f"{stamp.text} {HEADER_RULES}"


def _facts_of(cells: Sequence[Any]) -> FileFacts:
    sha256, height, width, channels, reason, detail = cells
    if reason is not None:
        return FileFacts(sha256, None, (reason, detail))
    return FileFacts(sha256, (height, width, channels))
