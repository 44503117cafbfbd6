"""Scan of a source: read every file once for its hash and image header."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from striate.core.cpu_count import cpu_count
from striate.core.read_ahead import results_in_order
from striate.data.decode.decode import ImageHeader, read_header, without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import file_hash
from striate.data.file_index import FileFacts, FileIndex
from striate.data.sources.source import Record, Skipped, Source

T = TypeVar("T")
Tick = Callable[[int, int], None]

# A set of so few bytes is decoded faster than a cache is opened.
SMALL_SET = 4 << 20
CHANGED, MISSING = "changed-since-scan", "missing"
TWO_LABELS = "two-labels"  # the same image with several labels
SPAN = 16  # files a thread takes at a time


@dataclass(frozen=True, kw_only=True)
class FileScan:
    """Header and hash of every file, in the order of the source's records."""

    # height, width and channels, or the reason why a file cannot be used
    headers: tuple[ImageHeader | Skipped, ...] = field(repr=False)
    # SHA-256 of each file; empty if the file could not be read
    hashes: tuple[str, ...] = field(repr=False)
    size: int = 0  # total size of all files in bytes, as far as known

    @property
    def readable(self) -> list[int]:
        """Return the indices of files that have an image header."""
        return [i for i, h in enumerate(self.headers) if isinstance(h, ImageHeader)]

    @property
    def skipped(self) -> list[Skipped]:
        """Return the files without a readable image header."""
        return [header for header in self.headers if isinstance(header, Skipped)]

    def without(self, lost: Mapping[int, Skipped]) -> FileScan:
        """Return a copy of the scan in which the given files are unusable."""
        headers = (lost.get(i, header) for i, header in enumerate(self.headers))
        return replace(self, headers=tuple(headers))

    def check_hashes(self, source: Source, given_hashes: Mapping[str, str]) -> FileScan:
        """Return the scan without files whose hash differs from `given_hashes`."""
        changed: dict[int, Skipped] = {}
        for i in self.readable:
            path = source.records[i].path
            before, now = given_hashes.get(path, ""), self.hashes[i]
            if before and now and before != now:
                detail = _difference(before, now)
                changed[i] = Skipped(path=path, reason=CHANGED, detail=detail)
        return self.without(changed)

    def payload(self, source: Source, i: int) -> bytes:
        """Return the bytes of file i; refuse a file that changed since the scan.

        Raises:
            UndecodableError: The file cannot be read, or has changed since the scan.
        """
        return check_unchanged(source.payload(i), self.hashes[i])

    @property
    def is_small(self) -> bool:
        """Return whether the data set is too small to profit from a cache."""
        return self.size < SMALL_SET


def scan_files(source: Source, index: FileIndex | None = None) -> FileScan:
    """Scan every file of a source; use the index instead of reading unchanged files."""
    if source.arrays is not None:
        height, width, channels = source.arrays.shape[1:]
        headers = (ImageHeader(height, width, channels),) * len(source.records)
        return FileScan(headers=headers, hashes=("",) * len(headers))
    files = source.reader
    stamps = [files.stamp(record.path) for record in source.records]
    size = sum(stamp.size for stamp in stamps if stamp)
    database = index if size >= SMALL_SET else None
    names = [files.name(record.path) for record in source.records]
    stamp_by_name = {n: s for n, s in zip(names, stamps, strict=True) if s is not None}
    indexed = database.lookup(stamp_by_name) if database else {}

    def read(i: int) -> FileFacts:
        return indexed.get(names[i]) or _read(source.payload(i))

    facts = list(read_in_order(source, range(len(names)), read))
    if database:
        database.update(
            (name, stamp, fact)
            for name, stamp, fact in zip(names, stamps, facts, strict=True)
            if name not in indexed and stamp and isinstance(fact, FileFacts)
        )
    return FileScan(
        headers=tuple(_header(source, i, fact) for i, fact in enumerate(facts)),
        hashes=tuple("" if isinstance(f, Skipped) else f.sha256 for f in facts),
        size=size,
    )


def check_unchanged(payload: bytes, sha256: str) -> bytes:
    """Return `payload` if its SHA-256 matches; raise an error otherwise."""
    now = file_hash(payload)
    if now != sha256:
        raise UndecodableError(CHANGED, _difference(sha256, now))
    return payload


def _difference(before: str, now: str) -> str:
    return f"the SHA-256 was {before[:12]}… and is now {now[:12]}…"


def with_progress(
    index: Sequence[int], rows: Iterator[T], tick: Tick | None
) -> Iterator[tuple[int, T]]:
    """Yield (index, result) pairs, and call `tick` to report the progress."""
    for count, pair in enumerate(zip(index, rows, strict=True)):
        if tick and count % 64 == 0:
            tick(count, len(index))
        yield pair


def _read(payload: bytes) -> FileFacts:
    sha256 = file_hash(payload)
    try:
        header = read_header(payload)
    except UndecodableError as error:
        return FileFacts(sha256, None, (error.reason, error.detail))
    return FileFacts(sha256, (header.height, header.width, header.channels))


def _header(source: Source, i: int, fact: FileFacts | Skipped) -> ImageHeader | Skipped:
    if isinstance(fact, Skipped):
        return fact
    if fact.header is not None:
        height, width, channels = fact.header
        return ImageHeader(height, width, channels)
    reason, detail = fact.refusal or ("damaged", "")
    return Skipped(path=source.records[i].path, reason=reason, detail=detail)


def read_in_order(
    source: Source, index: Sequence[int], read: Callable[[int], T]
) -> Iterator[T | Skipped]:
    """Yield `read(i)` or the error for each index, in order; threads read ahead."""

    def attempt(i: int) -> T | Skipped:
        try:
            return read(i)
        except UndecodableError as error:
            return Skipped.of(source.records[i].path, error)

    def spans() -> Iterator[Callable[[], list[T | Skipped]]]:
        start = 0
        while start < len(index):
            # Short spans at the end: no thread is left alone with a long one.
            span = max(1, min(SPAN, (len(index) - start) // (4 * workers)))
            yield partial(list, map(attempt, index[start : start + span]))
            start += span

    # Decoders release the interpreter lock, so threads are enough. Spans keep the
    # overhead small; the queue bounds how many decoded images wait.
    workers = cpu_count()
    with (
        without_pillow_warnings(),
        ThreadPoolExecutor(workers) as pool,
        closing(results_in_order(pool, spans(), 2 * workers)) as results,
    ):
        for rows in results:
            yield from rows


def label_conflicts(
    records: Sequence[Record], contents: Sequence[str]
) -> dict[int, Skipped]:
    """Return, by index, a `Skipped` for each image that occurs with several labels.

    The correct label is unknown, so all of these images are quarantined. Images of a
    given test split stay, because a published test set is never changed.
    """
    copies_by_content: dict[str, dict[int, Record]] = {}
    for k, content in enumerate(contents):
        if records[k].split != "test":
            copies_by_content.setdefault(content, {})[k] = records[k]
    conflicts: dict[int, Skipped] = {}
    for copies in copies_by_content.values():
        if len({record.label for record in copies.values()}) < 2:
            continue
        for k, record in copies.items():
            other = next(r for r in copies.values() if r.label != record.label)
            detail = f"'{record.label}' here, '{other.label}' in {other.path}"
            conflicts[k] = Skipped(path=record.path, reason=TWO_LABELS, detail=detail)
    return conflicts
