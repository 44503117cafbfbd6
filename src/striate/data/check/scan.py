"""Scan of a data source: decode every file once and measure every image."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from striate.data.check.fingerprint import THUMB
from striate.data.check.image_stats import (
    ExaminedImage,
    ImageStats,
    UnusableFile,
    examine_pixels,
)
from striate.data.check.sandbox import WORKER, examine_files, examine_payloads
from striate.data.decode.decode import ImageFileInfo
from striate.data.sources.source import Record, Skipped, Source

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageItem:
    """A usable image of a data set: its record, statistics and file data."""

    record: Record
    stats: ImageStats
    nature: ImageFileInfo | None
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class ScanResult:
    """Result of the scan of a data source."""

    source: Source  # the scanned source
    items: tuple[ImageItem, ...]  # the usable images, in the source's order
    thumbs: np.ndarray = field(repr=False)  # (N, 32, 32) gray thumbnails
    unusable: tuple[Skipped, ...] = ()  # files that are not usable images
    # file hashes of the unusable files, by path
    unusable_hashes: dict[str, str] = field(default_factory=dict, repr=False)


class CloseupStore:
    """Context manager: temporary file with a small gray copy (close-up) per image."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="striate-")  # noqa: SIM115
        self._index: list[tuple[int, tuple[int, int]]] = []
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, closeup: np.ndarray) -> None:
        """Append the close-up of the next image."""
        height, width = closeup.shape
        self._index.append((self._end, (height, width)))
        self._file.write(closeup.tobytes())
        self._end += closeup.size

    def flush(self) -> None:
        """Flush the file after the last image."""
        self._file.flush()

    def __call__(self, position: int) -> np.ndarray:
        """Return the close-up of the image at an index."""
        start, (height, width) = self._index[position]
        data = os.pread(self._file.fileno(), height * width, start)
        return np.frombuffer(data, np.uint8).reshape(height, width)


def scan_source(
    source: Source,
    closeups: CloseupStore,
    *,
    tick: Tick | None = None,
    workers: int | None = None,
) -> ScanResult:
    """Decode and measure every image of a source.

    Example:
        >>> from striate.data.sources.source import from_arrays
        >>> gray = np.zeros((2, 20, 20), np.uint8)
        >>> with CloseupStore() as closeups:
        ...     len(scan_source(from_arrays("toy", gray, ["a", "b"]), closeups).items)
        2
    """
    items: list[ImageItem] = []
    thumbs = np.empty((len(source.records), THUMB, THUMB), np.uint8)
    unusable: list[Skipped] = []
    hashes: dict[str, str] = {}
    if source.arrays is None:
        results = examine_records(source, source.records, workers=workers)
    else:
        results = map(examine_pixels, source.arrays)
    for count, (record, result) in enumerate(zip(source.records, results, strict=True)):
        if isinstance(result, UnusableFile):
            skip = Skipped(path=record.path, reason=result.reason, detail=result.detail)
            unusable.append(skip)
            hashes[record.path] = result.sha256
        else:
            thumbs[len(items)] = result.thumb
            closeups.add(result.view)
            item = ImageItem(
                record=record,
                stats=result.stats,
                nature=result.nature,
                sha256=result.sha256,
                size=result.size,
            )
            items.append(item)
        if tick and count % 32 == 0:
            tick(count, len(source.records))
    closeups.flush()
    return ScanResult(
        source=source,
        items=tuple(items),
        thumbs=thumbs[: len(items)],
        unusable=tuple(unusable),
        unusable_hashes=hashes,
    )


def examine_records(
    source: Source,
    records: Sequence[Record],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
) -> Iterator[ExaminedImage | UnusableFile]:
    """Decode and measure the files of the given records; yield results in order."""
    if source.files is None:
        paths = [file_of(source, record) for record in records]
        return examine_files(paths, workers=workers, program=program)
    names, read = [record.path for record in records], source.files.read
    return examine_payloads(names, read, workers=workers, program=program)


def file_of(source: Source, record: Record) -> Path:
    """Return the path of a record's file, for a source of local files."""
    return (source.root or Path()) / record.path
