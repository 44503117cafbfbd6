"""Build the disk cache (pack) of a data set's decoded images; reuse older packs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from striate.core.preprocess_config import Preprocess
from striate.data.cache.cache_folder import Cache
from striate.data.cache.decoded_images import (
    DecodeErrors,
    Pack,
    PackBuilder,
    ReusableRows,
    open_pack,
    pack_key,
)
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import decode_at_sizes
from striate.data.scan import FileScan, Tick, read_in_order, with_progress
from striate.data.sources.source import Skipped, Source

_TRIES = 3  # then files keep changing while they are decoded


@dataclass(frozen=True, kw_only=True)
class PackedSet:
    """Cached decoded images of a data set: one pack for each image size."""

    packs: tuple[Pack, ...]
    scan: FileScan
    lost: dict[int, Skipped] = field(default_factory=dict)


def build_packs(
    source: Source,
    scan: FileScan,
    sizes: Sequence[Preprocess],
    cache: Cache,
    tick: Tick | None = None,
) -> PackedSet:
    """Return the memory-mapped packs of a data set; build missing packs first.

    Raises:
        OSError: Reading or writing failed, or the image files keep changing.
    """
    lost: dict[int, Skipped] = {}
    for _ in range(_TRIES):
        hashes = [scan.hashes[i] for i in scan.readable]
        opened = [open_pack(cache.packs / pack_key(size, hashes)) for size in sizes]
        packs = tuple(pack for pack in opened if pack is not None)
        if len(packs) == len(sizes):
            return PackedSet(packs=packs, scan=scan, lost=lost)
        missing = [s for s, pack in zip(sizes, opened, strict=True) if pack is None]
        cache.make_room(sum(size.nbytes * len(hashes) for size in missing))
        lost |= _build(source, scan, missing, cache, tick)
        scan = scan.without(lost)
    raise OSError("the image files change while they are read")


def _build(
    source: Source,
    scan: FileScan,
    sizes: Sequence[Preprocess],
    cache: Cache,
    tick: Tick | None,
) -> dict[int, Skipped]:
    """Write a pack for each image size; return files that changed since the scan."""
    index = scan.readable
    hashes_needed = {scan.hashes[i] for i in index}
    reusable = [ReusableRows(cache.packs, size, hashes_needed) for size in sizes]
    lost: dict[int, Skipped] = {}
    errors: DecodeErrors = {}

    def read(i: int) -> tuple[tuple[Tensor, ...], str] | tuple[str, str]:
        stored = [rows_of_size.get(scan.hashes[i]) for rows_of_size in reusable]
        reused = [row for row in stored if row is not None]
        if len(reused) == len(reusable):
            return tuple(image for image, _ in reused), reused[0][1]
        payload = scan.payload(source, i)
        try:
            return decode_at_sizes(payload, sizes)
        except UndecodableError as error:
            return error.reason, error.detail

    with ExitStack() as open_files:
        builders = [
            open_files.enter_context(PackBuilder(cache.packs, size)) for size in sizes
        ]
        for i, row in with_progress(index, read_in_order(source, index, read), tick):
            match row:
                case Skipped():
                    lost[i] = row
                case str(reason), str(detail):
                    errors[scan.hashes[i]] = reason, detail
                case images, content:
                    for builder, image in zip(builders, images, strict=True):
                        builder.add(image, scan.hashes[i], content)
        hashes = [scan.hashes[i] for i in index if i not in lost]
        for builder in builders:
            builder.finish(hashes, errors)
    for rows_of_size in reusable:
        rows_of_size.clear()
    return lost
