"""What shards hold, written down shard by shard: an index that never is in memory.

Every image is decoded once to know it by its content and that it can be decoded. The
index of a shard is kept in the cache under the shard's stamp, so that a scan that was
stopped goes on, and a shard that has changed alone is scanned again.
"""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from striate.core.cpu_count import cpu_count
from striate.core.errors import DataError
from striate.core.files import write_bytes, write_json
from striate.data.decode.decode import examine, unwarned
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import check_hash
from striate.data.shards.tars import Member, members
from striate.data.sources.files import LocalFiles, Stamp
from striate.data.sources.remote import RemoteFiles, fetch, is_remote, short_key
from striate.data.sources.source import Skipped

AHEAD = 64  # shards remembered as asked for; more than are mixed at a time
AHEAD_BYTES = 1 << 28  # of a shard; of larger ones the images are larger, too
# Of an image: shard, bytes from–to, class, checksum of the bytes, what it shows.
ROW = np.dtype(
    [
        ("shard", "<u4"),
        ("offset", "<u8"),
        ("size", "<u4"),
        ("label", "<u4"),
        ("check", "<u8"),
        ("content", "S24"),
    ]
)
RULES = 1  # another number, and indices are made again
_TOGETHER = 256  # images decoded at a time


@dataclass(frozen=True, kw_only=True)
class Shard:
    """What is known of a shard, but for its rows, which stay on the disk."""

    name: str
    count: int
    labels: tuple[str, ...]
    least: tuple[int, int]
    most: tuple[int, int]
    channels: int
    rows_file: Path
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)

    def rows(self) -> np.ndarray:
        """Return the rows, mapped; `label` counts in this shard's own labels."""
        if not self.count:
            return np.empty(0, ROW)
        return np.memmap(self.rows_file, ROW, "r")


class Nearby:
    """Shards as local files: those of this machine, and copies of others.

    Args:
        folder: Where copies lie.
        limit: Bytes of copies to keep; the longest unused go first.
        owner: What removes the folder when it is collected; held, not used.
    """

    def __init__(self, folder: Path, limit: int, owner: object = None) -> None:
        self._folder = folder
        self._limit = limit
        self._owner = owner
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_folder"], state["_limit"])  # type: ignore[misc]

    def path(self, name: str) -> Path:
        """Return a local file with a shard's bytes.

        Raises:
            DataError: It cannot be had.
        """
        if not is_remote(name):
            return Path(name)
        copy = self._folder / f"{short_key(name)}.tar"
        with self._lock:
            if not copy.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                fetch(name, copy)
                self._drop(copy)
            with suppress(OSError):
                os.utime(copy)
        return copy

    def forget(self, name: str) -> None:
        """Remove the copy of a shard that is another now."""
        if is_remote(name):
            (self._folder / f"{short_key(name)}.tar").unlink(missing_ok=True)

    def _drop(self, new: Path) -> None:
        found = [path for path in self._folder.glob("*.tar") if path != new]
        found.sort(key=lambda path: path.stat().st_mtime)
        held = new.stat().st_size + sum(path.stat().st_size for path in found)
        while found and held > self._limit:
            oldest = found.pop(0)
            held -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)


def stamp_of(name: str) -> Stamp | None:
    """Return a shard's stamp, or None where the place tells none."""
    if is_remote(name):
        return RemoteFiles(name).stamp("")
    return LocalFiles(Path("/")).stamp(os.path.abspath(name).lstrip("/"))  # noqa: PTH100


def scan_shard(
    name: str, folder: Path, nearby: Nearby, background: int, white_level: int
) -> Shard:
    """Return what a shard holds, from its index where that is still true.

    Args:
        name: Path or address.
        folder: Where indices lie.
        nearby: Gives its bytes.
        background: As for `examine`.
        white_level: Likewise.

    Raises:
        DataError: It is not a tar file, or cannot be had.
    """
    rules = f"{RULES} {background} {white_level}"
    key = short_key(f"{Path(name).resolve() if not is_remote(name) else name}\n{rules}")
    rows_file, marker = folder / f"{key}.rows", folder / f"{key}.json"
    stamp = stamp_of(name)
    known = _read_marker(marker, rows_file)
    if known is None or stamp is None or known["stamp"] != stamp.text:
        if known is not None:
            nearby.forget(name)
        known = _scan(nearby.path(name), rows_file, background, white_level)
        known["stamp"] = stamp.text if stamp else ""
        write_json(marker, known)
    return Shard(
        name=name,
        count=known["count"],
        labels=tuple(known["labels"]),
        least=tuple(known["least"]),
        most=tuple(known["most"]),
        channels=known["channels"],
        rows_file=rows_file,
        skipped=tuple(
            Skipped(path=f"{name}/{path}", reason=reason, detail=detail)
            for path, reason, detail in known["skipped"]
        ),
    )


def _read_marker(marker: Path, rows: Path) -> dict[str, Any] | None:
    try:
        known: dict[str, Any] = json.loads(marker.read_bytes())
        whole = rows.stat().st_size == known["count"] * ROW.itemsize
    except (OSError, ValueError, KeyError):
        return None
    return known if whole else None


def _scan(
    path: Path, target: Path, background: int, white_level: int
) -> dict[str, Any]:
    skipped: list[Skipped] = []
    labels: dict[str, int] = {}
    rows = []
    sides: list[tuple[int, int]] = []
    channels = 1
    with path.open("rb") as file, unwarned(), ThreadPoolExecutor(cpu_count()) as pool:

        def look(member: Member, payload: bytes) -> tuple[Any, ...] | Skipped:
            try:
                seen = examine(payload, background, white_level, lambda *_: (1, 1))
            except UndecodableError as error:
                words = {"reason": error.reason, "detail": error.detail}
                return Skipped(path=member.name, **words)
            return check_hash(payload), seen.content, seen.sides, seen.pixels.shape[-1]

        found = members(path, skipped)
        while some := list(islice(found, _TOGETHER)):
            payloads = [os.pread(file.fileno(), m.size, m.offset) for m in some]
            for member, told in zip(some, pool.map(look, some, payloads), strict=True):
                if isinstance(told, Skipped):
                    skipped.append(told)
                    continue
                check, content, whole, depth = told
                number = labels.setdefault(member.label, len(labels))
                rows.append((0, member.offset, member.size, number, check, content))
                sides.append(whole)
                channels = max(channels, depth)
    write_bytes(target, np.array(rows, ROW).tobytes())
    return {
        "count": len(rows),
        "labels": list(labels),
        "least": [min((s[k] for s in sides), default=0) for k in (0, 1)],
        "most": [max((s[k] for s in sides), default=0) for k in (0, 1)],
        "channels": channels,
        "skipped": [[s.path, s.reason, s.detail] for s in skipped],
    }


@dataclass(frozen=True)
class ShardOriginals:
    """Images of shards by the rows of an index file.

    Args:
        index: Rows of one part, on the disk.
        shards: Names, by the number in a row.
        nearby: Gives their bytes.
        owner: The folder of the index, which goes when nobody holds it; not used.
    """

    index: Path
    shards: tuple[str, ...] = field(repr=False)
    nearby: Nearby = field(repr=False)
    owner: object = field(default=None, repr=False, compare=False)
    _ahead: set[int] = field(default_factory=set, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # The process that began with this holds the owner; its helpers need not.
        return type(self), (self.index, self.shards, self.nearby)

    def __len__(self) -> int:
        return self.index.stat().st_size // ROW.itemsize

    def payload(self, i: int) -> bytes:
        """Return the bytes of image i, which must be those that were scanned.

        Raises:
            UndecodableError: The shard is gone or has changed.
        """
        row = self.row(i)
        try:
            with self.nearby.path(self.shards[int(row["shard"])]).open("rb") as file:
                self._read_ahead(file.fileno(), int(row["shard"]))
                payload = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
        except FileNotFoundError:
            raise UndecodableError("missing", "the shard is gone") from None
        except (OSError, DataError) as error:
            raise UndecodableError("unreadable", str(error)) from None
        if check_hash(payload) != int(row["check"]):
            detail = "the bytes of the shard are others now"
            raise UndecodableError("changed-since-scan", detail)
        return payload

    def _read_ahead(self, file: int, shard: int) -> None:
        """Ask for all of a shard at once: its images are wanted soon, in any order.

        A tenth sooner where the disk is a fast one and nothing of the shard is in
        memory; a disk that seeks would read image by image.
        """
        if shard in self._ahead or not hasattr(os, "posix_fadvise"):
            return
        if len(self._ahead) >= AHEAD:
            self._ahead.clear()
        self._ahead.add(shard)
        if os.fstat(file).st_size <= AHEAD_BYTES:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)

    def row(self, i: int) -> Any:
        """Return row i; the file is opened for it, so that nothing stays mapped."""
        with self.index.open("rb") as file:
            raw = os.pread(file.fileno(), ROW.itemsize, i * ROW.itemsize)
        return np.frombuffer(raw, ROW)[0]

    def path(self, i: int) -> str:
        """Return `shard#offset`, which names an image for good."""
        row = self.row(i)
        return f"{self.shards[int(row['shard'])]}#{int(row['offset'])}"
