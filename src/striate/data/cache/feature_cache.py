"""Disk cache of features (outputs of a frozen network), one row per image.

A store is a folder in the cache. Its name is a hash of everything that a feature
depends on, except the image. Each row has a key, which identifies the image. Each
process appends to its own file (segment): first rows; then, once the rows are on the
disk, a key and a checksum for each row. Rows without a key are ignored. So a killed
process loses only seconds of work and leaves nothing to repair.
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
from striate.core.format import count_text
from striate.data.cache.decoded_images import MARKER
from striate.data.decode.hashing import checksum64

RULES = 1  # version of the rules from image to row; another version makes another store
ROWS, KEYS = ".rows", ".keys"
_RECORD = np.dtype([("key", "S64"), ("check", "<u8")])
_BYTES_PER_SYNC = 1 << 25  # bytes and seconds of work that a killed process may lose
_SECONDS_PER_SYNC = 2.0


@dataclass(frozen=True)
class FeatureRows:
    """Features of selected images in a feature store, mapped into memory."""

    segments: Sequence[np.ndarray] = field(repr=False)  # the mapped files
    # (N, 2) index of the segment, and of the row in the segment
    places: np.ndarray = field(repr=False)
    shape: tuple[int, ...]  # shape of one row

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Tensor) -> Tensor:
        """Return the rows at the given indices, (n, …) float32."""
        places = self.places[index.numpy()]
        rows = np.empty((len(places), *self.shape), np.float32)
        for number in np.unique(places[:, 0]):
            in_segment = places[:, 0] == number
            rows[in_segment] = self.segments[number][places[in_segment, 1]]
        return torch.from_numpy(rows)

    def load(self) -> Tensor:
        """Load all rows into memory as one tensor."""
        return self[torch.arange(len(self))]

    def take(self, index: Tensor) -> FeatureRows:
        """Select rows by index, without reading the rows from the disk."""
        return replace(self, places=self.places[index.numpy()])

    def columns(self, columns: slice) -> FeatureRows:
        """Select a range of columns; each row must be a vector."""
        mapped = tuple(segment[:, columns] for segment in self.segments)
        width = len(range(*columns.indices(self.shape[0])))
        return FeatureRows(mapped, self.places, (width,))


class FeatureStore:
    """Disk store for the features of one network, layer and preprocessing.

    Raises:
        StorageError: Reading or writing failed, or another store uses the folder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     store = FeatureStore(Path(root), {"network": "a"}, (2,))
        ...     store.add(["x", "y"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        ...     _ = store.rows(["x"])
        ...     again = FeatureStore(Path(root), {"network": "a"}, (2,))
        ...     "x" in store, again.rows(["y"]).load().tolist()
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
        self._row_by_key: dict[str, tuple[int, int, int]] = {}
        self._segment: _Segment | None = None
        self._write_marker(marker)
        for path in sorted(self.folder.glob(f"*{KEYS}")):
            self._read_segment(path)

    def _write_marker(self, marker: dict[str, Any]) -> None:
        with storage_errors(self.folder, 0):
            make_folder(self.folder)
        path = self.folder / MARKER
        if not path.exists():
            write_json(path, marker)
        elif read_json(path) != json.loads(json.dumps(marker)):
            what = "the folder has features of another network or preprocessing"
            raise StorageError(what, where=self.folder, fix="remove the folder")
        os.utime(path)  # the least recently used is removed first

    def _read_segment(self, keys_file: Path) -> None:
        """Map a segment (file of rows) into memory; rows without a key are ignored."""
        rows = keys_file.with_suffix(ROWS)
        try:
            written = keys_file.stat().st_size // _RECORD.itemsize
            records = np.fromfile(keys_file, _RECORD, written)
            count = min(written, rows.stat().st_size // self._width)
            if not count:
                return
            mapped = np.memmap(rows, np.float32, "r", shape=(count, *self.shape))
        except (OSError, ValueError):
            return
        number = len(self._segments)
        self._segments.append(mapped)
        for i, record in enumerate(records[:count]):
            self._row_by_key[record["key"].decode()] = number, i, int(record["check"])

    def __contains__(self, key: str) -> bool:
        """Return whether the row of a key exists and matches its checksum."""
        if self._segment is not None and key in self._segment.keys:
            return True
        if key not in self._row_by_key:
            return False
        number, row, check = self._row_by_key[key]
        return checksum64(self._segments[number][row].tobytes()) == check

    def add(self, keys: Sequence[str], rows: Tensor) -> None:
        """Append rows, (n, …) float32, with their keys.

        Raises:
            StorageError: Writing failed.
        """
        if self._segment is None:
            self._segment = _Segment(self.folder)
        with storage_errors(self.folder, rows.numel() * 4):
            self._segment.add(keys, rows.contiguous().numpy())
            os.utime(self.folder / MARKER)  # it is in use, even during a long pass

    def rows(self, keys: Sequence[str]) -> FeatureRows:
        """Return the rows of the given keys, all of which must exist.

        Raises:
            StorageError: Reading failed, or another process removed some rows.
        """
        if self._segment is not None:
            with storage_errors(self.folder, 0):
                self._read_segment(self._segment.close())
            self._segment = None
        missing = sum(key not in self._row_by_key for key in keys)
        if missing:
            what = (
                f"another process removed {count_text(missing, 'feature')} "
                "from the cache"
            )
            fix = "run the command again; if both runs need the cache, raise --cache-gb"
            raise StorageError(what, where=self.folder, fix=fix)
        places = np.array([self._row_by_key[key][:2] for key in keys], np.int64)
        return FeatureRows(self._segments, places.reshape(-1, 2), self.shape)


class _Segment:
    """File of feature rows that a single process writes (segment)."""

    def __init__(self, folder: Path) -> None:
        name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._path = folder / f"{name}{KEYS}"
        self._rows = self._path.with_suffix(ROWS).open("xb")
        self._keys = self._path.open("xb")
        self._pending: list[tuple[str, int]] = []
        self._bytes, self._last_sync = 0, time.monotonic()
        self.keys: set[str] = set()

    def add(self, keys: Sequence[str], rows: np.ndarray) -> None:
        """Append rows to the file; sync the file to the disk from time to time."""
        for key, row in zip(keys, rows, strict=True):
            payload = row.tobytes()
            self._rows.write(payload)
            self._pending.append((key, checksum64(payload)))
            self._bytes += len(payload)
        self.keys.update(keys)
        late = time.monotonic() - self._last_sync > _SECONDS_PER_SYNC
        if late or self._bytes >= _BYTES_PER_SYNC:
            self._sync()

    def _sync(self) -> None:
        """Sync the feature rows to the disk, then write and sync their keys."""
        _sync_file(self._rows)
        np.array(self._pending, _RECORD).tofile(self._keys)
        _sync_file(self._keys)
        self._pending, self._bytes = [], 0
        self._last_sync = time.monotonic()

    def close(self) -> Path:
        """Close the segment, and return the path of the file with the row keys."""
        self._sync()
        self._rows.close()
        self._keys.close()
        return self._path


def _sync_file(file: Any) -> None:
    file.flush()
    os.fdatasync(file.fileno())
