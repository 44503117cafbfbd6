"""Index of the images in tar shards: one index file per shard, with a row per image.

Every image is decoded once, to check and hash the image. The cache keeps the index of a
shard with the shard's size and times. So an interrupted scan continues where it
stopped, and only shards that have changed are scanned again.
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
from striate.data.decode.decode import decode_image, without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import checksum64
from striate.data.shards.tars import TarMember, tar_members
from striate.data.sources.files import LocalFiles, Stamp
from striate.data.sources.remote import RemoteFiles, download_file, is_remote, short_key
from striate.data.sources.source import Skipped

# Shards whose read-ahead is remembered; more than are shuffled at a time.
READ_AHEAD_SHARDS = 64
READ_AHEAD_BYTES = 1 << 28  # of a shard; images of larger shards are large themselves
# Of an image: shard, position of its bytes, class, checksum of the bytes, image hash.
ROW = np.dtype(
    [
        *(("shard", "<u4"), ("offset", "<u8"), ("size", "<u4")),
        *(("label", "<u4"), ("check", "<u8"), ("content", "S24")),
    ]
)
RULES = 2  # version of the index; another version is built again
_IMAGES_PER_CHUNK = 256  # images decoded at a time


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Summary of a scanned shard; the index rows of its images stay on the disk."""

    name: str
    count: int
    labels: tuple[str, ...]
    min_sides: tuple[int, int]
    max_sides: tuple[int, int]
    channels: int
    rows_file: Path
    skipped: tuple[Skipped, ...] = field(default=(), repr=False)

    def rows(self) -> np.ndarray:
        """Return memory-mapped index rows; `row['label']` is an index into `labels`."""
        if not self.count:
            return np.empty(0, ROW)
        return np.memmap(self.rows_file, ROW, "r")


class LocalShards:
    """Access to shards as local files; remote shards are downloaded to a folder.

    Downloads take at most `limit` bytes; the least recently used are removed first.
    """

    def __init__(self, folder: Path, limit: int, owner: object = None) -> None:
        self._folder, self._limit = folder, limit
        self._owner = owner  # removes the folder when it is garbage-collected
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_folder": self._folder, "_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_folder"], state["_limit"])  # type: ignore[misc]

    def path(self, name: str) -> Path:
        """Return the path of a shard; a remote shard is downloaded first.

        Raises:
            DataError: The shard cannot be downloaded.
        """
        if not is_remote(name):
            return Path(name)
        copy = self._folder / f"{short_key(name)}.tar"
        with self._lock:
            if not copy.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                download_file(name, copy)
                self._remove_old_copies(copy)
            with suppress(OSError):
                os.utime(copy)
        return copy

    def remove_copy(self, name: str) -> None:
        """Remove the download of a shard that has changed."""
        if is_remote(name):
            (self._folder / f"{short_key(name)}.tar").unlink(missing_ok=True)

    def _remove_old_copies(self, new_copy: Path) -> None:
        copies = [path for path in self._folder.glob("*.tar") if path != new_copy]
        copies.sort(key=lambda path: path.stat().st_mtime)
        size = new_copy.stat().st_size + sum(path.stat().st_size for path in copies)
        while copies and size > self._limit:
            oldest = copies.pop(0)
            size -= oldest.stat().st_size
            oldest.unlink(missing_ok=True)


def shard_stamp(name: str) -> Stamp | None:
    """Return the size and times of a shard, or None if they are unknown."""
    if is_remote(name):
        return RemoteFiles(name).stamp("")
    return LocalFiles(Path("/")).stamp(os.path.abspath(name).lstrip("/"))  # noqa: PTH100


def scan_shard(
    name: str,
    folder: Path,
    local_shards: LocalShards,
    background: int,
    white_level: int,
) -> Shard:
    """Scan a shard; read the stored index instead if the shard has not changed.

    Raises:
        DataError: The shard is not a tar file, or cannot be read.
    """
    rules = f"{RULES} {background} {white_level}"
    key = short_key(f"{Path(name).resolve() if not is_remote(name) else name}\n{rules}")
    rows_file, marker = folder / f"{key}.rows", folder / f"{key}.json"
    stamp = shard_stamp(name)
    info = _read_marker(marker, rows_file)
    if info is None or stamp is None or info["stamp"] != stamp.text:
        if info is not None:
            local_shards.remove_copy(name)
        info = _scan(local_shards.path(name), rows_file, background, white_level)
        info["stamp"] = stamp.text if stamp else ""
        write_json(marker, info)
    return Shard(
        name=name,
        count=info["count"],
        labels=tuple(info["labels"]),
        min_sides=tuple(info["least"]),
        max_sides=tuple(info["most"]),
        channels=info["channels"],
        rows_file=rows_file,
        skipped=tuple(
            Skipped(path=f"{name}/{path}", reason=reason, detail=detail)
            for path, reason, detail in info["skipped"]
        ),
    )


def _read_marker(marker: Path, rows: Path) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = json.loads(marker.read_bytes())
        is_complete = rows.stat().st_size == info["count"] * ROW.itemsize
    except (OSError, ValueError, KeyError):
        return None
    return info if is_complete else None


def _scan(
    path: Path, target: Path, background: int, white_level: int
) -> dict[str, Any]:
    skipped: list[Skipped] = []
    labels: dict[str, int] = {}
    rows = []
    sides: list[tuple[int, int]] = []
    channels = 1

    def decode_member(member: TarMember, payload: bytes) -> tuple[Any, ...] | Skipped:
        try:
            image = decode_image(payload, background, white_level, lambda *_: (1, 1))
        except UndecodableError as error:
            return Skipped.of(member.name, error)
        return checksum64(payload), image.content, image.sides, image.pixels.shape[-1]

    with (
        path.open("rb") as file,
        without_pillow_warnings(),
        ThreadPoolExecutor(cpu_count()) as pool,
    ):
        all_members = tar_members(path, skipped)
        while chunk := list(islice(all_members, _IMAGES_PER_CHUNK)):
            payloads = [os.pread(file.fileno(), m.size, m.offset) for m in chunk]
            results = pool.map(decode_member, chunk, payloads)
            for member, result in zip(chunk, results, strict=True):
                if isinstance(result, Skipped):
                    skipped.append(result)
                    continue
                check, content, sides_of_image, image_channels = result
                number = labels.setdefault(member.label, len(labels))
                rows.append((0, member.offset, member.size, number, check, content))
                sides.append(sides_of_image)
                channels = max(channels, image_channels)
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
class ShardImages:
    """Encoded images in shards, located by the rows of an index file."""

    index: Path  # index file with the rows of one split
    # names of the shards; an index row refers to a shard by number
    shards: tuple[str, ...] = field(repr=False)
    local_shards: LocalShards = field(repr=False)  # provider of local copies of shards
    # object that removes the index when garbage-collected; kept referenced
    owner: object = field(default=None, repr=False, compare=False)
    _requested: set[int] = field(default_factory=set, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # The parent process references the owner; worker processes need not.
        return type(self), (self.index, self.shards, self.local_shards)

    def __len__(self) -> int:
        return self.index.stat().st_size // ROW.itemsize

    def payload(self, i: int) -> bytes:
        """Return the bytes of image i; refuse an image that changed since the scan.

        Raises:
            UndecodableError: The shard is missing or has changed.
        """
        row = self.row(i)
        try:
            shard = self.local_shards.path(self.shards[int(row["shard"])])
            with shard.open("rb") as file:
                self._read_ahead(file.fileno(), int(row["shard"]))
                payload = os.pread(file.fileno(), int(row["size"]), int(row["offset"]))
        except FileNotFoundError:
            raise UndecodableError("missing", "the shard does not exist") from None
        except (OSError, DataError) as error:
            raise UndecodableError("unreadable", str(error)) from None
        if checksum64(payload) != int(row["check"]):
            detail = "the bytes in the shard have changed"
            raise UndecodableError("changed-since-scan", detail)
        return payload

    def _read_ahead(self, file: int, shard: int) -> None:
        """Ask the operating system to load a whole shard before its images are read.

        On a fast disk this saves a tenth of the time if the shard is not in memory; a
        hard disk would otherwise seek for each image.
        """
        if shard in self._requested or not hasattr(os, "posix_fadvise"):
            return
        if len(self._requested) >= READ_AHEAD_SHARDS:
            self._requested.clear()
        self._requested.add(shard)
        if os.fstat(file).st_size <= READ_AHEAD_BYTES:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_WILLNEED)

    def row(self, i: int) -> Any:
        """Return row i of the index file, which is not kept open or memory-mapped."""
        with self.index.open("rb") as file:
            raw = os.pread(file.fileno(), ROW.itemsize, i * ROW.itemsize)
        return np.frombuffer(raw, ROW)[0]

    def path(self, i: int) -> str:
        """Return `shard#offset`, the permanent name of image i."""
        row = self.row(i)
        return f"{self.shards[int(row['shard'])]}#{int(row['offset'])}"
