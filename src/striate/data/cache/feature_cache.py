"""What a frozen network made of images: rows on the disk, by what they are made of.

A store is a folder among the packs, keyed by everything that its rows depend on but the
image; a row is keyed by its image. Each process appends to a segment of its own:
rows first, then, once they are on the disk, a record of key and checksum for each. What
has no record is not there, so a kill leaves nothing to repair and loses seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import StorageError
from striate.core.files import make_folder, read_json, storage_errors, write_json
from striate.data.cache.decoded_images import MARKER
from striate.data.decode.hashing import check_hash

RULES = 1  # between images and rows; another number is another store
ROWS, KNOWN = ".rows", ".known"
_RECORD = np.dtype([("key", "S64"), ("check", "<u8")])
_WAITING = 1 << 25  # bytes that a kill may lose at most, and seconds
_SECONDS = 2.0


@dataclass(frozen=True)
class FeatureRows:
    """Rows of a store in an order of their own, mapped into memory.

    Args:
        segments: The mapped files.
        places: (N, 2) segment and row of each.
        shape: Of one row.
    """

    segments: Sequence[np.ndarray] = field(repr=False)
    places: np.ndarray = field(repr=False)
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the rows of an index, (n, …) float32."""
        places = self.places[index.numpy()]
        found = np.empty((len(places), *self.shape), np.float32)
        for number in np.unique(places[:, 0]):
            mine = places[:, 0] == number
            found[mine] = self.segments[number][places[mine, 1]]
        return torch.from_numpy(found)

    def whole(self) -> Tensor:
        """Return all of them, in memory."""
        return self[torch.arange(len(self))]

    def take(self, index: Tensor) -> FeatureRows:
        """Return some of the rows, not read yet."""
        return replace(self, places=self.places[index.numpy()])

    def columns(self, some: slice) -> FeatureRows:
        """Return some of the numbers of each row, which must be a vector."""
        mapped = tuple(segment[:, some] for segment in self.segments)
        width = len(range(*some.indices(self.shape[0])))
        return FeatureRows(mapped, self.places, (width,))


class FeatureStore:
    """Rows of one network, cut and preprocessing.

    Args:
        root: The folder of packs.
        facts: Everything that a row depends on but its image.
        shape: Of one row.

    Raises:
        StorageError: The disk refused, or the folder is of another store.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     store = FeatureStore(Path(root), {"network": "a"}, (2,))
        ...     store.add(["x", "y"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        ...     _ = store.rows(["x"])
        ...     again = FeatureStore(Path(root), {"network": "a"}, (2,))
        ...     "x" in store, again.rows(["y"]).whole().tolist()
        (True, [[3.0, 4.0]])
    """

    def __init__(
        self, root: Path, facts: Mapping[str, Any], shape: tuple[int, ...]
    ) -> None:
        self.shape = tuple(shape)
        self._width = int(np.prod(self.shape, dtype=np.int64)) * 4
        marker = {"rules": RULES, "shape": list(self.shape), "facts": dict(facts)}
        text = json.dumps(marker, sort_keys=True).encode()
        name = hashlib.blake2b(text, digest_size=16).hexdigest()
        self.folder = root / f"features-{name}"
        self._segments: list[np.ndarray] = []
        self._known: dict[str, tuple[int, int, int]] = {}
        self._mine: _Segment | None = None
        self._begin(marker)
        for path in sorted(self.folder.glob(f"*{KNOWN}")):
            self._take(path)

    def _begin(self, marker: dict[str, Any]) -> None:
        with storage_errors(self.folder, 0):
            make_folder(self.folder)
        path = self.folder / MARKER
        if not path.exists():
            write_json(path, marker)
        elif read_json(path) != json.loads(json.dumps(marker)):
            what = "these features are of another network or preprocessing"
            raise StorageError(what, where=self.folder, fix="remove the folder")
        os.utime(path)  # the longest unused goes first

    def _take(self, known: Path) -> None:
        """Map a segment as far as its records go; what lies beyond is not there."""
        rows = known.with_suffix(ROWS)
        try:
            whole = known.stat().st_size // _RECORD.itemsize
            records = np.fromfile(known, _RECORD, whole)
            count = min(whole, rows.stat().st_size // self._width)
            if not count:
                return
            mapped = np.memmap(rows, np.float32, "r", shape=(count, *self.shape))
        except (OSError, ValueError):
            return
        number = len(self._segments)
        self._segments.append(mapped)
        for i, record in enumerate(records[:count]):
            self._known[record["key"].decode()] = number, i, int(record["check"])

    def __contains__(self, key: str) -> bool:
        """Say whether a row is there and as it was written."""
        if self._mine is not None and key in self._mine.keys:
            return True
        if key not in self._known:
            return False
        number, row, check = self._known[key]
        return check_hash(self._segments[number][row].tobytes()) == check

    def add(self, keys: Sequence[str], rows: Tensor) -> None:
        """Append rows, (n, …) float32.

        Raises:
            StorageError: The disk refused.
        """
        if self._mine is None:
            self._mine = _Segment(self.folder)
        with storage_errors(self.folder, rows.numel() * 4):
            self._mine.add(keys, rows.contiguous().numpy())
            os.utime(self.folder / MARKER)  # a long pass is no long unused store

    def rows(self, keys: Sequence[str]) -> FeatureRows:
        """Return the rows of some keys, all of which must be there.

        Raises:
            StorageError: The disk refused.
        """
        if self._mine is not None:
            with storage_errors(self.folder, 0):
                self._take(self._mine.close())
            self._mine = None
        gone = sum(key not in self._known for key in keys)
        if gone:
            what = f"{gone:,} features are gone: another process made room in the cache"
            fix = "run it again; with a larger --cache-gb both find room"
            raise StorageError(what, where=self.folder, fix=fix)
        places = np.array([self._known[key][:2] for key in keys], np.int64)
        return FeatureRows(self._segments, places.reshape(-1, 2), self.shape)


class _Segment:
    """The file that one process appends to."""

    def __init__(self, folder: Path) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._path = folder / f"{name}{KNOWN}"
        self._rows = self._path.with_suffix(ROWS).open("xb")
        self._known = self._path.open("xb")
        self._waiting: list[tuple[str, int]] = []
        self._bytes, self._since = 0, time.monotonic()
        self.keys: set[str] = set()

    def add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Append rows; make what waits durable when it is time to."""
        for key, row in zip(keys, rows, strict=True):
            payload = row.tobytes()
            self._rows.write(payload)
            self._waiting.append((key, check_hash(payload)))
            self._bytes += len(payload)
        self.keys.update(keys)
        late = time.monotonic() - self._since > _SECONDS
        if late or self._bytes >= _WAITING:
            self._settle()

    def _settle(self) -> None:
        """Bring rows to the disk, then say so."""
        _synced(self._rows)
        np.array(self._waiting, _RECORD).tofile(self._known)
        _synced(self._known)
        self._waiting, self._bytes = [], 0
        self._since = time.monotonic()

    def close(self) -> Path:
        """End the segment and return its records' path."""
        self._settle()
        self._rows.close()
        self._known.close()
        return self._path


def _synced(file: Any) -> None:
    file.flush()
    os.fdatasync(file.fileno())
