"""Images decoded once: a file of 8-bit rows in the cache, mapped into memory.

A pack is a folder, keyed by what was decoded (the files' SHA-256, in order) and how
(the preprocessing's geometry), so that a changed file or setting is another pack, and
runs that share images share it. It is written beside and renamed, its marker last.
What an interrupted or an older pack holds is taken over instead of decoded again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import xxhash
from torch import Tensor

from striate.core.preprocess import Preprocess

# Of the fixed rules between file and pixels; another number is another pack.
RULES = 1
PIXELS, KNOWN, MARKER = "pixels.u8", "known.bin", "pack.json"
Refusals = dict[str, tuple[str, str]]
_ROW = np.dtype([("sha256", "S64"), ("content", "S24")])
# A stretch is made durable when so many rows or bytes wait; a killed build loses what
# waits and the stretch before it, at most.
_TOGETHER = 512
_WAITING = 1 << 25
_BUILDING = ".building-"


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Rows of 8-bit images and what they are.

    Args:
        folder: Where it lies.
        pixels: (N, H, W, C) uint8, private pages of the file.
        sha256: Each row's file.
        content: Each row's image.
        refused: Reason and detail of files that gave no image, by their SHA-256.
    """

    folder: Path
    pixels: Tensor = field(repr=False)
    sha256: tuple[str, ...] = field(repr=False)
    content: tuple[str, ...] = field(repr=False)
    refused: Refusals = field(default_factory=dict, repr=False)


def geometry_key(preprocess: Preprocess) -> str:
    """Return a name for how images are made.

    Example:
        >>> p = Preprocess(channels=1, height=8, width=8)
        >>> geometry_key(p) == geometry_key(p.enlarged(2))
        False
    """
    text = json.dumps({"rules": RULES, **preprocess.geometry}, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(text.encode())[:12]


def pack_key(preprocess: Preprocess, hashes: Sequence[str]) -> str:
    """Return a pack's name: how, and of what."""
    digest = xxhash.xxh3_128("\n".join(hashes).encode())
    return f"{geometry_key(preprocess)}-{digest.hexdigest()[:20]}"


def open_pack(folder: Path, verify: bool = True) -> Pack | None:
    """Map a finished pack, or return None where there is none that is whole.

    Args:
        folder: The pack.
        verify: Read all of it against its checksum, which also warms the pages that
            training is about to want.
    """
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        shape = tuple(marker["shape"])
        rows = np.fromfile(folder / KNOWN, _ROW)
        os.utime(folder / MARKER)  # the least recently used pack is the first to go
        pixels = _map(folder / PIXELS, shape)
        if len(rows) != shape[0] or (verify and checksum(pixels) != marker["xxh3"]):
            raise ValueError("damaged")
        return Pack(
            folder=folder,
            pixels=pixels,
            sha256=_words(rows["sha256"]),
            content=_words(rows["content"]),
            refused={key: (r, d) for key, r, d in marker["refused"]},
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


def _map(path: Path, shape: tuple[int, ...]) -> Tensor:
    size = int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != size:
        raise ValueError("cut short")
    if not size:
        return torch.empty(shape, dtype=torch.uint8)
    flat = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    return flat.view(shape)


def checksum(pixels: Tensor) -> str:
    """Return the checksum that a pack's marker holds of its pixels."""
    return xxhash.xxh3_64_hexdigest(pixels.numpy().reshape(-1).data)


def _words(cells: np.ndarray) -> tuple[str, ...]:
    return tuple(cells.astype(str).tolist())


class Builder:
    """Writes a pack row by row; nothing is visible under its name before `finish`.

    Args:
        root: The folder of packs.
        preprocess: How its rows are made.
    """

    def __init__(self, root: Path, preprocess: Preprocess) -> None:
        self._root = root
        self._preprocess = preprocess
        self._shape = preprocess.height, preprocess.width, preprocess.channels
        root.mkdir(parents=True, exist_ok=True)
        # The process stands in the name: who finds it can tell whether it still builds.
        start = f"{_BUILDING}{geometry_key(preprocess)}-"
        end = f"-{socket.gethostname()}-{os.getpid()}"
        self._beside = Path(tempfile.mkdtemp(end, start, root))
        self._pixels = (self._beside / PIXELS).open("wb")
        self._known = (self._beside / KNOWN).open("wb")
        self._digest = xxhash.xxh3_64()
        self._waiting: list[tuple[str, str]] = []
        self._most = min(_TOGETHER, max(1, _WAITING // preprocess.nbytes))
        # The disk is waited for on a thread of its own, while more is decoded.
        self._disk = ThreadPoolExecutor(1)
        self._settling: Future[None] | None = None
        self._count = 0

    def add(self, row: Tensor, sha256: str, content: str) -> None:
        """Append an image."""
        values = row.contiguous().numpy().reshape(-1).data
        self._pixels.write(values)
        self._digest.update(values)
        self._waiting.append((sha256, content))
        self._count += 1
        if len(self._waiting) >= self._most:
            self._settle()

    def _settle(self) -> None:
        """Have rows made durable, once those before them are."""
        self._settled()
        self._pixels.flush()
        self._settling = self._disk.submit(self._note, self._waiting)
        self._waiting = []

    def _note(self, rows: list[tuple[str, str]]) -> None:
        """Make rows durable, then say so: what `known` names is there."""
        os.fdatasync(self._pixels.fileno())
        np.array(rows, _ROW).tofile(self._known)
        self._known.flush()

    def _settled(self) -> None:
        """Wait for the disk.

        Raises:
            OSError: It refused.
        """
        if self._settling is not None:
            self._settling.result()

    def finish(self, hashes: Sequence[str], refused: Refusals) -> Path:
        """Write the marker and give the pack its name; another's is as good.

        Args:
            hashes: SHA-256 of every file that was decoded or refused, in order.
            refused: Why files gave no image.
        """
        self._settle()
        self._settled()
        os.fdatasync(self._known.fileno())
        self._close()
        marker = {
            "rules": RULES,
            "shape": [self._count, *self._shape],
            "xxh3": self._digest.hexdigest(),
            "refused": [[key, *words] for key, words in refused.items()],
        }
        with (self._beside / MARKER).open("w", encoding="utf-8") as file:
            json.dump(marker, file)
            file.flush()
            os.fsync(file.fileno())
        folder = self._root / pack_key(self._preprocess, hashes)
        try:
            os.replace(self._beside, folder)
        except OSError:  # it is there already: another run was sooner, or it is broken
            if open_pack(folder) is None:
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(self._beside, folder)
            shutil.rmtree(self._beside, ignore_errors=True)
        return folder

    def _close(self) -> None:
        self._disk.shutdown()  # what it is at, it ends
        self._pixels.close()
        self._known.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *stopped: object) -> None:
        # Stopped half-way, its rows stay: the next build takes them over.
        self._close()


class Donors:
    """Rows of other packs of one geometry, to be taken over instead of decoded.

    Args:
        root: The folder of packs.
        preprocess: The geometry.
        wanted: SHA-256 of the files that are to be decoded.
    """

    def __init__(self, root: Path, preprocess: Preprocess, wanted: set[str]) -> None:
        p = preprocess
        self._shape = p.height, p.width, p.channels
        self._rows: dict[str, tuple[Tensor, int, str]] = {}
        self._leftovers: list[Path] = []
        for folder in _of_geometry(root, geometry_key(p)):
            abandoned = folder.name.startswith(_BUILDING)
            if abandoned and not _is_abandoned(folder):
                continue
            with suppress(OSError, ValueError, RuntimeError):
                self._take(folder, wanted, abandoned)
            if abandoned:
                self._leftovers.append(folder)

    def _take(self, folder: Path, wanted: set[str], abandoned: bool) -> None:
        rows = np.fromfile(folder / KNOWN, _ROW)
        names, contents = _words(rows["sha256"]), _words(rows["content"])
        if wanted.isdisjoint(names):
            return
        if abandoned:  # the file may be longer than what is known to be whole
            size = len(rows) * int(np.prod(self._shape))
            path = str(folder / PIXELS)
            flat = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
            pixels = flat.view(len(rows), *self._shape)
        elif (pack := open_pack(folder)) is not None:
            pixels = pack.pixels
        else:
            return
        for i, (name, content) in enumerate(zip(names, contents, strict=True)):
            if name in wanted:
                self._rows[name] = pixels, i, content

    def get(self, sha256: str) -> tuple[Tensor, str] | None:
        """Return a file's row and content, where some pack has it."""
        if sha256 not in self._rows:
            return None
        pixels, i, content = self._rows[sha256]
        return pixels[i], content

    def clear(self) -> None:
        """Remove what abandoned builds left; their rows stand in a whole pack now."""
        for folder in self._leftovers:
            shutil.rmtree(folder, ignore_errors=True)


def _of_geometry(root: Path, key: str) -> Iterator[Path]:
    if root.is_dir():
        yield from sorted(root.glob(f"{key}-*"))
        yield from sorted(root.glob(f"{_BUILDING}{key}-*"))


def _is_abandoned(folder: Path) -> bool:
    host, _, number = folder.name.rpartition("-")
    if not host.endswith(socket.gethostname()):
        return False  # nobody can tell from here
    try:
        os.kill(int(number), 0)
    except (OSError, ValueError):
        return True
    return int(number) == os.getpid()


def weigh(root: Path) -> list[tuple[float, int, Path]]:
    """Return (last use, bytes, folder) of every pack, the longest unused first."""
    found: list[tuple[float, int, Path]] = []
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):
            sizes = [file.stat().st_size for file in folder.iterdir()]
            marker = folder / MARKER
            used = (marker if marker.exists() else folder).stat().st_mtime
            if marker.exists() or _is_abandoned(folder):
                found.append((used, sum(sizes), folder))
    return sorted(found, key=lambda item: item[:2])


def remove(folder: Path) -> None:
    """Take a pack away; runs that have it mapped keep its pages until they end."""
    with suppress(OSError):
        (folder / MARKER).unlink()  # first: what is half removed is no pack
    shutil.rmtree(folder, ignore_errors=True)


def describe(folder: Path) -> dict[str, Any]:
    """Return a pack's marker as it stands on the disk."""
    marker: dict[str, Any] = json.loads((folder / MARKER).read_bytes())
    return marker
