"""Every file of a source is read once: its hash, its header, or why it has none."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from striate.core.cpu_count import cpu_count
from striate.data.decode.decode import Header, read_header, unwarned
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.hashing import file_hash
from striate.data.file_index import Fact, Facts
from striate.data.sources.files import Stamp
from striate.data.sources.source import Skipped, Source

T = TypeVar("T")
Tick = Callable[[int, int], None]

# A set of so few bytes is decoded sooner than a cache is opened.
SMALL = 4 << 20
CHANGED, MISSING = "changed-since-scan", "missing"
SPAN = 16  # files a thread takes at a time


@dataclass(frozen=True, kw_only=True)
class Census:
    """What the headers say, in the order of a source's records.

    Args:
        headers: Sides and channels, or why a file cannot be used.
        hashes: SHA-256 of each file, empty where it could not be read.
        size: Bytes of all files, as far as known.
    """

    headers: tuple[Header | Skipped, ...] = field(repr=False)
    hashes: tuple[str, ...] = field(repr=False)
    size: int = 0

    @property
    def sound(self) -> list[int]:
        """Return the positions of files whose headers are sound."""
        return [
            i for i, header in enumerate(self.headers) if isinstance(header, Header)
        ]

    @property
    def skipped(self) -> list[Skipped]:
        """Return the files that have no sound header."""
        return [header for header in self.headers if isinstance(header, Skipped)]

    def without(self, lost: Mapping[int, Skipped]) -> Census:
        """Return the census with some files lost since."""
        headers = (lost.get(i, header) for i, header in enumerate(self.headers))
        return replace(self, headers=tuple(headers))

    def compared(self, source: Source, given: Mapping[str, str]) -> Census:
        """Return the census with files left out whose hash is not the one given."""
        changed: dict[int, Skipped] = {}
        for i in self.sound:
            path = source.records[i].path
            before, now = given.get(path, ""), self.hashes[i]
            if before and now and before != now:
                detail = _difference(before, now)
                changed[i] = Skipped(path=path, reason=CHANGED, detail=detail)
        return self.without(changed)

    def payload(self, source: Source, i: int) -> bytes:
        """Return the bytes of a file, which must be those that were scanned.

        Raises:
            UndecodableError: It cannot be read, or it has changed since.
        """
        return unchanged(source.payload(i), self.hashes[i])

    @property
    def small(self) -> bool:
        """Tell whether the set is too small for a cache to save time."""
        return self.size < SMALL


def take_census(source: Source, index: Facts | None = None) -> Census:
    """Read every file, or take from the index what is known of unchanged ones."""
    if source.arrays is not None:
        height, width, channels = source.arrays.shape[1:]
        headers = (Header(height, width, channels),) * len(source.records)
        return Census(headers=headers, hashes=("",) * len(headers))
    files = source.reader
    stamps = [files.stamp(record.path) for record in source.records]
    size = sum(stamp.size for stamp in stamps if stamp)
    book = index if size >= SMALL else None
    names = [files.name(record.path) for record in source.records]
    asked = {n: s for n, s in zip(names, stamps, strict=True) if s is not None}
    known = book.known(asked) if book else {}

    def read(i: int) -> Fact:
        return known.get(names[i]) or _read(source.payload(i))

    found = list(stream(source, range(len(names)), read))
    if book:
        book.note(_new(names, stamps, found, known))
    return Census(
        headers=tuple(_header(source, i, fact) for i, fact in enumerate(found)),
        hashes=tuple("" if isinstance(f, Skipped) else f.sha256 for f in found),
        size=size,
    )


def unchanged(payload: bytes, sha256: str) -> bytes:
    """Return the bytes of a file, which must have this hash.

    Raises:
        UndecodableError: They are others now.
    """
    now = file_hash(payload)
    if now != sha256:
        raise UndecodableError(CHANGED, _difference(sha256, now))
    return payload


def _difference(before: str, now: str) -> str:
    return f"its SHA-256 was {before[:12]}… and is {now[:12]}…"


def ticked(
    index: Sequence[int], rows: Iterator[T], tick: Tick | None
) -> Iterator[tuple[int, T]]:
    """Pair positions with what came of them, telling how far it got."""
    for done, pair in enumerate(zip(index, rows, strict=True)):
        if tick and done % 64 == 0:
            tick(done, len(index))
        yield pair


def _read(payload: bytes) -> Fact:
    sha256 = file_hash(payload)
    try:
        header = read_header(payload)
    except UndecodableError as error:
        return Fact(sha256, None, (error.reason, error.detail))
    return Fact(sha256, (header.height, header.width, header.channels))


def _header(source: Source, i: int, fact: Fact | Skipped) -> Header | Skipped:
    if isinstance(fact, Skipped):
        return fact
    if fact.header is not None:
        return Header(*fact.header)
    reason, detail = fact.refusal or ("damaged", "")
    return Skipped(path=source.records[i].path, reason=reason, detail=detail)


def _new(
    names: Sequence[bytes],
    stamps: Sequence[Stamp | None],
    found: Sequence[Fact | Skipped],
    known: dict[bytes, Fact],
) -> Iterator[tuple[bytes, Stamp, Fact]]:
    for name, stamp, fact in zip(names, stamps, found, strict=True):
        if name not in known and stamp is not None and isinstance(fact, Fact):
            yield name, stamp, fact


def stream(
    source: Source, index: Sequence[int], read: Callable[[int], T]
) -> Iterator[T | Skipped]:
    """Yield read(i), or why it failed, in order, a few files ahead on threads."""

    def attempt(i: int) -> T | Skipped:
        try:
            return read(i)
        except UndecodableError as error:
            path = source.records[i].path
            return Skipped(path=path, reason=error.reason, detail=error.detail)

    def several(span: Sequence[int]) -> list[T | Skipped]:
        return [attempt(i) for i in span]

    # Decoders release the interpreter lock, so threads are enough. Spans keep the cost
    # of handing over small; the queue bounds how many decoded images wait.
    workers = cpu_count()
    waiting: deque[Future[list[T | Skipped]]] = deque()
    with unwarned(), ThreadPoolExecutor(workers) as pool:
        try:
            start = 0
            while start < len(index):
                # Short spans in the end: no thread is left with the last long one.
                span = max(1, min(SPAN, (len(index) - start) // (4 * workers)))
                waiting.append(pool.submit(several, index[start : start + span]))
                start += span
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def two_labels(
    source: Source,
    index: Sequence[int],
    contents: Sequence[str],
    splits: Sequence[str | None],
) -> dict[int, Skipped]:
    """Return positions in `index` whose content also stands under another label.

    Nobody can know which label is right, so all of them are quarantined; those of a
    given test split stay, because a published test set is never changed.
    """
    labels = [source.records[i].label for i in index]
    seen: dict[str, list[int]] = {}
    for k, content in enumerate(contents):
        seen.setdefault(content, []).append(k)
    conflicts: dict[int, Skipped] = {}
    for twins in seen.values():
        open_twins = [k for k in twins if splits[k] != "test"]
        if len({labels[k] for k in open_twins}) < 2:
            continue
        for k in open_twins:
            other = next(j for j in open_twins if labels[j] != labels[k])
            path = source.records[index[k]].path
            twin = source.records[index[other]].path
            detail = f"'{labels[k]}' here, '{labels[other]}' in {twin}"
            conflicts[k] = Skipped(path=path, reason="two-labels", detail=detail)
    return conflicts
