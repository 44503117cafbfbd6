"""One pass over a source: every file looked at once, every image measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from striate.data.check.fingerprint import THUMB
from striate.data.check.measure import Examined, Facts, Refused, examine_pixels
from striate.data.check.sandbox import WORKER, examine_files, examine_payloads
from striate.data.decode.decode import ImageFileInfo
from striate.data.sources.source import Record, Skipped, Source

Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A usable image of a set: where it stands, what it is, its file's hash."""

    record: Record
    facts: Facts
    nature: ImageFileInfo | None
    sha256: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a pass found.

    Args:
        source: What was looked at.
        items: The usable images, in the source's order.
        thumbs: (N, 32, 32) gray thumbnails.
        refused: Files that are no usable images, with their hashes by path.
    """

    source: Source
    items: tuple[Item, ...]
    thumbs: np.ndarray = field(repr=False)
    refused: tuple[Skipped, ...] = ()
    refused_hashes: dict[str, str] = field(default_factory=dict, repr=False)


class Views:
    """Close-ups on disk, in a file without a name; used as a context manager."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="striate-")  # noqa: SIM115
        self._places: list[tuple[int, tuple[int, int]]] = []
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, view: np.ndarray) -> None:
        """Keep the next image's close-up."""
        height, width = view.shape
        self._places.append((self._end, (height, width)))
        self._file.write(view.tobytes())
        self._end += view.size

    def done(self) -> None:
        """Say that all have been added."""
        self._file.flush()

    def __call__(self, position: int) -> np.ndarray:
        """Return an image's close-up."""
        start, (height, width) = self._places[position]
        held = os.pread(self._file.fileno(), height * width, start)
        return np.frombuffer(held, np.uint8).reshape(height, width)


def survey(
    source: Source,
    views: Views,
    *,
    tick: Tick | None = None,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
) -> Survey:
    """Look at every record of a source once.

    Args:
        source: What to look at.
        views: Takes the close-ups in; closing it is the caller's.
        tick: Called with (done, all) now and then.
        workers: Decoding processes.
        program: Their command.

    Example:
        >>> from striate.data.sources.source import from_arrays
        >>> gray = np.zeros((2, 20, 20), np.uint8)
        >>> with Views() as views:
        ...     len(survey(from_arrays("toy", gray, ["a", "b"]), views).items)
        2
    """
    items: list[Item] = []
    thumbs = np.empty((len(source.records), THUMB, THUMB), np.uint8)
    refused: list[Skipped] = []
    hashes: dict[str, str] = {}
    answers = _answers(source, workers, program)
    for done, (record, answer) in enumerate(zip(source.records, answers, strict=True)):
        if isinstance(answer, Refused):
            skip = Skipped(path=record.path, reason=answer.reason, detail=answer.detail)
            refused.append(skip)
            hashes[record.path] = answer.sha256
        else:
            thumbs[len(items)] = answer.thumb
            views.add(answer.view)
            items.append(_item(record, answer))
        if tick and done % 32 == 0:
            tick(done, len(source.records))
    views.done()
    return Survey(
        source=source,
        items=tuple(items),
        thumbs=thumbs[: len(items)],
        refused=tuple(refused),
        refused_hashes=hashes,
    )


def _answers(
    source: Source, workers: int | None, program: Sequence[str]
) -> Iterator[Examined | Refused]:
    if source.arrays is not None:
        return map(examine_pixels, source.arrays)
    return examine_records(source, source.records, workers=workers, program=program)


def examine_records(
    source: Source,
    records: Sequence[Record],
    *,
    workers: int | None = None,
    program: Sequence[str] = WORKER,
) -> Iterator[Examined | Refused]:
    """Yield what the files of some records are, wherever they lie.

    Args:
        source: Whose files they are; it has files.
        records: Some of its records.
        workers: Decoding processes.
        program: Their command.
    """
    if source.files is None:
        paths = [file_of(source, record) for record in records]
        return examine_files(paths, workers=workers, program=program)
    names, read = [record.path for record in records], source.files.read
    return examine_payloads(names, read, workers=workers, program=program)


def file_of(source: Source, record: Record) -> Path:
    """Return where a record's file is, of a source of files of this machine."""
    return (source.root or Path()) / record.path


def _item(record: Record, answer: Examined) -> Item:
    return Item(
        record=record,
        facts=answer.facts,
        nature=answer.nature,
        sha256=answer.sha256,
        size=answer.size,
    )
