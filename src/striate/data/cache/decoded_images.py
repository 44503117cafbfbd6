"""Disk cache of decoded images: memory-mapped files (packs) of 8-bit pixels.

The decoded images of a data set form a pack: a folder whose name is a hash of the files
(their SHA-256, in order) and of the resize settings. So a changed file or setting gives
another pack, and runs on the same images share one pack. A pack is written to a
temporary folder, its marker file last, and then renamed. Rows of an interrupted or
older pack are reused instead of decoded again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
import xxhash
from torch import Tensor

from striate.core.preprocess_config import Preprocess

# Version of the fixed rules from file to pixels; another version makes another pack.
RULES = 2
PIXELS, HASHES, MARKER = "pixels.u8", "hashes.bin", "pack.json"
DecodeErrors = dict[str, tuple[str, str]]
_ROW = np.dtype([("sha256", "S64"), ("content", "S24")])
# Rows are synced to the disk when so many rows or bytes are pending. A killed build
# loses the pending rows and those of the sync before, at most.
_ROWS_PER_SYNC = 512
_BYTES_PER_SYNC = 1 << 25
_BUILDING = ".building-"


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Decoded images of a data set (a pack), mapped into memory."""

    folder: Path  # folder of the pack
    # (N, H, W, C) uint8, private memory map of the file
    pixels: Tensor = field(repr=False)
    sha256: tuple[str, ...] = field(repr=False)  # SHA-256 of the image file of each row
    # content hash of the image of each row
    content: tuple[str, ...] = field(repr=False)
    # reason and detail for each undecodable file, by SHA-256
    errors: DecodeErrors = field(default_factory=dict, repr=False)


def geometry_key(preprocess: Preprocess) -> str:
    """Return a hash of all preprocessing settings that affect the 8-bit pixels.

    Example:
        >>> p = Preprocess(channels=1, height=8, width=8)
        >>> geometry_key(p) == geometry_key(p.enlarged(2))
        False
    """
    text = json.dumps({"rules": RULES, **preprocess.geometry}, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode())[:12]


def pack_key(preprocess: Preprocess, hashes: Sequence[str]) -> str:
    """Return the folder name of a pack: a hash of the settings and of the files."""
    digest = xxhash.xxh3_128("\n".join(hashes).encode())
    return f"{geometry_key(preprocess)}-{digest.hexdigest()[:20]}"


def open_pack(folder: Path) -> Pack | None:
    """Map a pack into memory; return None if the pack is missing or damaged.

    Comparing all pixels with the checksum also loads them for the training.
    """
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        shape = tuple(marker["shape"])
        rows = np.fromfile(folder / HASHES, _ROW)
        os.utime(folder / MARKER)  # the least recently used pack is removed first
        pixels = _map_file(folder / PIXELS, shape)
        if len(rows) != shape[0] or pack_checksum(pixels) != marker["xxh3"]:
            raise ValueError("damaged")
        return Pack(
            folder=folder,
            pixels=pixels,
            sha256=_strings(rows["sha256"]),
            content=_strings(rows["content"]),
            errors={key: (r, d) for key, r, d in marker["errors"]},
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _map_file(path: Path, shape: tuple[int, ...]) -> Tensor:
    size = int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != size:
        raise ValueError("truncated")
    if not size:
        return torch.empty(shape, dtype=torch.uint8)
    flat = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return flat.view(shape)


def pack_checksum(pixels: Tensor) -> str:
    """Return the checksum of the pixels, in the format of the marker file."""
    return xxhash.xxh3_64_hexdigest(pixels.numpy().reshape(-1).data)


def _strings(cells: np.ndarray) -> tuple[str, ...]:
    return tuple(cells.astype(str).tolist())


class PackBuilder:
    """Writer that adds images to a pack one by one; `finish` makes the pack visible."""

    def __init__(self, root: Path, preprocess: Preprocess) -> None:
        self._root = root
        self._preprocess = preprocess
        self._shape = preprocess.height, preprocess.width, preprocess.channels
        root.mkdir(parents=True, exist_ok=True)
        # The name has the process in it: others can tell whether it is still building.
        start = f"{_BUILDING}{geometry_key(preprocess)}-"
        end = f"-{socket.gethostname()}-{os.getpid()}"
        self._folder = Path(tempfile.mkdtemp(end, start, root))
        self._pixels = (self._folder / PIXELS).open("wb")
        self._hashes_file = (self._folder / HASHES).open("wb")
        self._digest = xxhash.xxh3_64()
        self._pending: list[tuple[str, str]] = []
        rows_of_limit = _BYTES_PER_SYNC // preprocess.nbytes
        self._rows_per_sync = min(_ROWS_PER_SYNC, max(1, rows_of_limit))
        # A thread waits for the disk while more images are decoded.
        self._disk = ThreadPoolExecutor(1)
        self._sync: Future[None] | None = None
        self._count = 0

    def add(self, row: Tensor, sha256: str, content: str) -> None:
        """Append the pixels and hashes of one image."""
        values = row.contiguous().numpy().reshape(-1).data
        self._pixels.write(values)
        self._digest.update(values)
        self._pending.append((sha256, content))
        self._count += 1
        if len(self._pending) >= self._rows_per_sync:
            self._flush()

    def _flush(self) -> None:
        """Start writing the buffered images to the disk, in the background."""
        self._wait_for_sync()
        self._pixels.flush()
        self._sync = self._disk.submit(self._sync_rows, self._pending)
        self._pending = []

    def _sync_rows(self, rows: list[tuple[str, str]]) -> None:
        """Sync the pixels to the disk, then write the hashes of these images."""
        os.fdatasync(self._pixels.fileno())
        np.array(rows, _ROW).tofile(self._hashes_file)
        self._hashes_file.flush()

    def _wait_for_sync(self) -> None:
        """Wait until the background write to the disk has finished."""
        if self._sync is not None:
            self._sync.result()

    def finish(self, hashes: Sequence[str], errors: DecodeErrors) -> Path:
        """Write the marker file, rename the folder of the pack, and return its path."""
        self._flush()
        self._wait_for_sync()
        os.fdatasync(self._hashes_file.fileno())
        self._close()
        marker = {
            "rules": RULES,
            "shape": [self._count, *self._shape],
            "xxh3": self._digest.hexdigest(),
            "errors": [[key, *error] for key, error in errors.items()],
        }
        with (self._folder / MARKER).open("w", encoding="utf-8") as file:
            json.dump(marker, file)
            file.flush()
            os.fsync(file.fileno())
        folder = self._root / pack_key(self._preprocess, hashes)
        try:
            os.replace(self._folder, folder)
        except OSError:  # it already exists: another run was faster, or it is damaged
            if open_pack(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(self._folder, folder)
            shutil.rmtree(self._folder, ignore_errors=True)
        return folder

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()  # after an interruption the rows stay: the next build reuses them

    def _close(self) -> None:
        self._disk.shutdown()  # after the running sync
        self._pixels.close()
        self._hashes_file.close()


class ReusableRows:
    """Decoded images of existing packs, reused for a pack that is being built."""

    def __init__(self, root: Path, preprocess: Preprocess, needed: set[str]) -> None:
        p = preprocess
        self._shape = p.height, p.width, p.channels
        self._rows: dict[str, tuple[Tensor, int, str]] = {}
        self._abandoned_builds: list[Path] = []
        key = geometry_key(p)
        builds = sorted(root.glob(f"{_BUILDING}{key}-*"))
        for folder in (*sorted(root.glob(f"{key}-*")), *builds):
            is_abandoned_build = folder.name.startswith(_BUILDING)
            if is_abandoned_build and not _is_abandoned(folder):
                continue
            with suppress(OSError, ValueError, RuntimeError):
                self._add_rows(folder, needed, is_abandoned_build)
            if is_abandoned_build:
                self._abandoned_builds.append(folder)

    def _add_rows(
        self, folder: Path, needed: set[str], is_abandoned_build: bool
    ) -> None:
        rows = np.fromfile(folder / HASHES, _ROW)
        hashes, contents = _strings(rows["sha256"]), _strings(rows["content"])
        if needed.isdisjoint(hashes):
            return
        if is_abandoned_build:  # the file may be longer than the rows that are complete
            size = len(rows) * int(np.prod(self._shape))
            path = str(folder / PIXELS)
            flat = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
            pixels = flat.view(len(rows), *self._shape)
        elif (pack := open_pack(folder)) is not None:
            pixels = pack.pixels
        else:
            return
        for i, (name, content) in enumerate(zip(hashes, contents, strict=True)):
            if name in needed:
                self._rows[name] = pixels, i, content

    def get(self, sha256: str) -> tuple[Tensor, str] | None:
        """Return pixels and content hash of a file, or None if no pack has the file."""
        if sha256 not in self._rows:
            return None
        pixels, i, content = self._rows[sha256]
        return pixels[i], content

    def clear(self) -> None:
        """Remove the folders of interrupted builds, which are no longer needed."""
        for folder in self._abandoned_builds:
            shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    host, _, number = folder.name.rpartition("-")
    if not host.endswith(socket.gethostname()):
        return False  # processes of other hosts cannot be checked
    try:
        os.kill(int(number), 0)
    except (OSError, ValueError):
        return True
    return int(number) == os.getpid()


def list_packs(root: Path) -> list[tuple[float, int, Path]]:
    """Return (last use, bytes, folder) of every pack, the least recently used first."""
    packs: list[tuple[float, int, Path]] = []
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):
            sizes = [file.stat().st_size for file in folder.iterdir()]
            marker = folder / MARKER
            last_use = (marker if marker.exists() else folder).stat().st_mtime
            if marker.exists() or _is_abandoned(folder):
                packs.append((last_use, sum(sizes), folder))
    return sorted(packs, key=lambda item: item[:2])


def remove_pack(folder: Path) -> None:
    """Remove a pack; running programs that mapped the pack can still read it."""
    with suppress(OSError):
        (folder / MARKER).unlink()  # first: a pack that is half removed has no marker
    shutil.rmtree(folder, ignore_errors=True)
