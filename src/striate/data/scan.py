"""One strict pass over a source: headers first, then every pixel, nothing dropped."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import DataError
from striate.core.spec import Preprocess
from striate.data.decode import Header, UndecodableError, decode, read_header, unwarned
from striate.data.fingerprint import content_hash
from striate.data.preprocess import batch_to_input, to_input
from striate.data.sources.source import Skipped, Source

T = TypeVar("T")
Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """The usable pictures of a source, in its order, and those that are not.

    Args:
        index: Positions in the source's records.
        pixels: (N, H, W, C) uint8, at the network's input size.
        contents: Hash of each picture's own pixels, before any resizing.
        skipped: Quarantined files.
    """

    index: tuple[int, ...]
    pixels: Tensor = field(repr=False)
    contents: tuple[str, ...] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()


def read_headers(source: Source) -> list[Header | Skipped]:
    """Return each record's size and channels, or why it has none."""
    if source.arrays is not None:
        height, width, channels = source.arrays.shape[1:]
        return [Header(height, width, channels)] * len(source.records)

    def header(i: int) -> Header:
        return read_header(source.payload(i))

    return _attempt(source, range(len(source.records)), header)


def read_pixels(
    source: Source,
    index: Sequence[int],
    preprocess: Preprocess,
    tick: Tick | None = None,
) -> Scanned:
    """Decode the records at `index` strictly and bring them to the input size.

    Args:
        source: Where the records come from.
        index: Positions of records whose headers are sound.
        preprocess: Channels, size and resize mode.
        tick: Called with (done, all) now and then, for a progress bar.

    Raises:
        DataError: The decoded set would not fit this machine's memory.
    """
    shape = (len(index), preprocess.height, preprocess.width, preprocess.channels)
    _check_memory(shape)
    if source.arrays is not None:
        return _from_arrays(source.arrays, index, preprocess)
    pixels = torch.empty(shape, dtype=torch.uint8)

    def read(i: int) -> tuple[Tensor, str]:
        raw = decode(source.payload(i), preprocess.background)
        return to_input(raw, preprocess), content_hash(raw)

    kept: list[int] = []
    contents: list[str] = []
    skipped: list[Skipped] = []
    for done, (i, result) in enumerate(
        zip(index, _stream(source, index, read), strict=True)
    ):
        if isinstance(result, Skipped):
            skipped.append(result)
        else:
            pixels[len(kept)] = result[0]
            contents.append(result[1])
            kept.append(i)
        if tick and done % 64 == 0:
            tick(done, len(index))
    return Scanned(
        index=tuple(kept),
        pixels=pixels[: len(kept)],
        contents=tuple(contents),
        skipped=tuple(skipped),
    )


def _from_arrays(
    arrays: np.ndarray, index: Sequence[int], preprocess: Preprocess
) -> Scanned:
    chosen = arrays if len(index) == len(arrays) else arrays[list(index)]
    return Scanned(
        index=tuple(index),
        pixels=batch_to_input(chosen, preprocess),
        contents=tuple(content_hash(picture) for picture in chosen),
    )


def _attempt(
    source: Source, index: Sequence[int], read: Callable[[int], T]
) -> list[T | Skipped]:
    return list(_stream(source, index, read))


def _stream(
    source: Source, index: Sequence[int], read: Callable[[int], T]
) -> Iterator[T | Skipped]:
    """Yield read(i), or why it failed, in order, a few files ahead on threads."""

    def attempt(i: int) -> T | Skipped:
        try:
            return read(i)
        except UndecodableError as error:
            path = source.records[i].path
            return Skipped(path=path, reason=error.reason, detail=error.detail)

    # Decoders release the interpreter lock, so threads are enough. Chunks bound how
    # many decoded pictures wait.
    workers = os.cpu_count() or 1
    with unwarned(), ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(index), chunk := 32 * workers):
            yield from pool.map(attempt, index[start : start + chunk])


def _check_memory(shape: tuple[int, ...]) -> None:
    needed = int(np.prod(shape, dtype=np.int64))
    free = _available_bytes()
    if free is not None and needed > 0.6 * free:
        sizes = f"{needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free"
        what = f"{shape[0]:,} pictures of {shape[1]}×{shape[2]} do not fit: {sizes}"
        raise DataError(what, fix="choose a smaller --image-size, or fewer pictures")


def _available_bytes() -> int | None:
    try:
        # Free pages alone would not count what caches give back when asked.
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def two_labels(
    source: Source, scanned: Scanned, parts: Sequence[str | None]
) -> dict[int, Skipped]:
    """Return positions in `scanned` whose content also stands under another label.

    Nobody can know which label is right, so all of them are quarantined; those of a
    given test part stay, because a published test set is never changed.
    """
    labels = [source.records[i].label for i in scanned.index]
    seen: dict[str, list[int]] = {}
    for k, content in enumerate(scanned.contents):
        seen.setdefault(content, []).append(k)
    conflicts: dict[int, Skipped] = {}
    for twins in seen.values():
        open_twins = [k for k in twins if parts[k] != "test"]
        if len({labels[k] for k in open_twins}) < 2:
            continue
        for k in open_twins:
            other = next(j for j in open_twins if labels[j] != labels[k])
            path = source.records[scanned.index[k]].path
            twin = source.records[scanned.index[other]].path
            detail = f"'{labels[k]}' here, '{labels[other]}' in {twin}"
            conflicts[k] = Skipped(path=path, reason="two-labels", detail=detail)
    return conflicts


def common_shape(headers: Sequence[Header]) -> tuple[int, int] | None:
    """Return the (height, width) that all pictures share, if they do."""
    sizes = {(h.height, h.width) for h in headers}
    return sizes.pop() if len(sizes) == 1 else None


def common_channels(headers: Sequence[Header]) -> int:
    """Return 1 where every picture is grey, else the largest channel count."""
    return max(Counter(h.channels for h in headers))
