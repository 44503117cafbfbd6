"""What is known of files that were read before: their hash and header, by their stamp.

One SQLite file in the cache folder, which two runs may use at once. A file whose size,
times and inode are as they were is taken as unchanged and is not read again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from striate.data.sources.files import Stamp

# Clocks of file systems tick slowly (2 s on FAT, and servers' clocks differ): a file
# written to so shortly before it was read may have been written to again, unseen.
RACY = 2_000_000_000
LARGEST = 1 << 28  # bytes; a larger book of facts is begun anew
_ASKED = 500  # names a question, below SQLite's limit on every system

_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    name BLOB PRIMARY KEY, stamp TEXT NOT NULL, sha256 TEXT NOT NULL,
    height INTEGER, width INTEGER, channels INTEGER, reason TEXT, detail TEXT
) WITHOUT ROWID
"""
_COLUMNS = "name, stamp, sha256, height, width, channels, reason, detail"


@dataclass(frozen=True, slots=True)
class Fact:
    """A file's hash, and its header's sides and channels or why it has none."""

    sha256: str
    header: tuple[int, int, int] | None
    refusal: tuple[str, str] | None = None


class Facts:
    """The book of facts of one cache folder; where it cannot be used it is empty.

    Args:
        path: The SQLite file; made when first written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, asked: Mapping[bytes, Stamp]) -> dict[bytes, Fact]:
        """Return the facts of those files that are as they were."""
        found: dict[bytes, Fact] = {}
        names = list(asked)
        with suppress(sqlite3.Error), self._open() as book:
            for start in range(0, len(names), _ASKED):
                some = names[start : start + _ASKED]
                marks = ",".join("?" * len(some))
                query = f"SELECT {_COLUMNS} FROM files WHERE name IN ({marks})"  # noqa: S608
                for name, stamp, *rest in book.execute(query, some):
                    if stamp == asked[name].text:
                        found[name] = _fact(rest)
        return found

    def note(self, facts: Iterable[tuple[bytes, Stamp, Fact]]) -> None:
        """Write down what was found; files changed a moment ago are left out."""
        now = time.time_ns()
        rows = [_row(*fact) for fact in facts if fact[1].newest + RACY < now]
        if not rows:
            return
        marks = ",".join("?" * len(_COLUMNS.split(",")))
        with suppress(sqlite3.Error, OSError), self._open(write=True) as book:
            book.executemany(f"INSERT OR REPLACE INTO files VALUES ({marks})", rows)  # noqa: S608

    @contextmanager
    def _open(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        if not write and not self._path.exists():
            raise sqlite3.OperationalError("no book yet")
        if write:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._begin_anew_if_broken()
        with closing(sqlite3.connect(self._path, timeout=20)) as book, book:
            if write:
                book.execute(_TABLE)
            yield book

    def _begin_anew_if_broken(self) -> None:
        if not self._path.exists():
            return
        try:
            sound = self._path.stat().st_size <= LARGEST
            if sound:
                with closing(sqlite3.connect(self._path, timeout=20)) as book:
                    book.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            sound = isinstance(error, sqlite3.OperationalError)  # busy, not broken
        if not sound:
            self._path.unlink(missing_ok=True)


def _fact(cells: Sequence[object]) -> Fact:
    sha256, height, width, channels, reason, detail = cells
    if reason is not None:
        return Fact(str(sha256), None, (str(reason), str(detail)))
    return Fact(str(sha256), (int(str(height)), int(str(width)), int(str(channels))))


def _row(name: bytes, stamp: Stamp, fact: Fact) -> tuple[object, ...]:
    sides = fact.header or (None, None, None)
    words = fact.refusal or (None, None)
    return name, stamp.text, fact.sha256, *sides, *words
