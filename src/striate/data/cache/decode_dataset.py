"""Decode and resize a data set: into the cache, into memory, or when needed.

A data set that fits into the cache is decoded once, and later runs map the cache files
into memory. A data set that fits only into memory is decoded in every run. For a larger
data set, only hashes are computed, and images are decoded for each batch
(`data.cache.lazy_images`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import DataError
from striate.core.preprocess_config import Preprocess
from striate.data.cache import free_memory as memory
from striate.data.cache.build_pack import PackedSet, build_packs
from striate.data.cache.cache_folder import Cache
from striate.data.cache.image_rows import PixelRows
from striate.data.cache.lazy_images import EncodedFiles, LazyPixels
from striate.data.decode.hashing import content_hash
from striate.data.decode.preprocess import batch_to_input, decode_at_sizes
from striate.data.scan import FileScan, Tick, read_in_order, with_progress
from striate.data.sources.source import Skipped, Source

BATCH = 32  # images that must fit memory at once to train at all


@dataclass(frozen=True, kw_only=True)
class DecodedSet:
    """Decoded images in the order of the source, and the files that cannot be used."""

    index: tuple[int, ...]  # index of each image in the source's records
    # (N, H, W, C) uint8, one entry for each image size
    pixels: tuple[PixelRows, ...] = field(repr=False)
    # content hash of each image, before any resizing
    contents: tuple[str, ...] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()  # quarantined files


def decode_images(
    source: Source,
    scan: FileScan,
    sizes: Sequence[Preprocess],
    cache: Cache | None = None,
    tick: Tick | None = None,
) -> DecodedSet:
    """Decode every readable image, and resize it to each of the given sizes."""
    if source.arrays is not None:
        return _from_arrays(source.arrays, scan, sizes)
    weight = sum(size.nbytes for size in sizes) * len(scan.readable)
    if cache and not scan.is_small and cache.fits(weight):
        try:
            return _from_packs(build_packs(source, scan, sizes, cache, tick), source)
        except OSError:
            pass  # the disk has less space than it reported: use no cache
    if memory.fits_in_memory(weight):
        return _decode_into_memory(source, scan, sizes, tick)
    return _lazy(source, scan, sizes, cache, tick)


def _from_arrays(
    arrays: np.ndarray, scan: FileScan, sizes: Sequence[Preprocess]
) -> DecodedSet:
    return DecodedSet(
        index=tuple(scan.readable),
        pixels=tuple(batch_to_input(arrays, size) for size in sizes),
        contents=tuple(content_hash(image) for image in arrays),
    )


def _from_packs(pack_set: PackedSet, source: Source) -> DecodedSet:
    first, scan = pack_set.packs[0], pack_set.scan
    index = [i for i in scan.readable if scan.hashes[i] not in first.errors]
    skipped = list(pack_set.lost.values())
    for i in scan.readable:
        if scan.hashes[i] in first.errors:
            reason, detail = first.errors[scan.hashes[i]]
            path = source.records[i].path
            skipped.append(Skipped(path=path, reason=reason, detail=detail))
    return DecodedSet(
        index=tuple(index),
        pixels=tuple(pack.pixels for pack in pack_set.packs),
        contents=first.content,
        skipped=tuple(skipped),
    )


def _decode_into_memory(
    source: Source, scan: FileScan, sizes: Sequence[Preprocess], tick: Tick | None
) -> DecodedSet:
    index = scan.readable
    shapes = [(len(index), *size.shape) for size in sizes]
    pixels_by_size = [torch.empty(shape, dtype=torch.uint8) for shape in shapes]
    positions: list[int] = []
    contents: list[str] = []
    skipped: list[Skipped] = []

    def read(i: int) -> tuple[tuple[Tensor, ...], str]:
        return decode_at_sizes(scan.payload(source, i), sizes)

    for i, row in with_progress(index, read_in_order(source, index, read), tick):
        if isinstance(row, Skipped):
            skipped.append(row)
            continue
        for pixels, image in zip(pixels_by_size, row[0], strict=True):
            pixels[len(positions)] = image
        contents.append(row[1])
        positions.append(i)
    return DecodedSet(
        index=tuple(positions),
        pixels=tuple(pixels[: len(positions)] for pixels in pixels_by_size),
        contents=tuple(contents),
        skipped=tuple(skipped),
    )


def _lazy(
    source: Source,
    scan: FileScan,
    sizes: Sequence[Preprocess],
    cache: Cache | None,
    tick: Tick | None,
) -> DecodedSet:
    """Return lazily decoded images; first decode every image once as a check."""
    _check_batch(sizes[-1])
    decoded = decode_images(source, scan, [sizes[0].at(1, 1)], cache, tick)
    originals = EncodedFiles(
        files=source.reader,
        paths=tuple(source.records[i].path for i in decoded.index),
        hashes=tuple(scan.hashes[i] for i in decoded.index),
    )
    return replace(decoded, pixels=tuple(LazyPixels(originals, s) for s in sizes))


def _check_batch(size: Preprocess) -> None:
    if not memory.fits_in_memory(BATCH * size.nbytes):
        free = memory.available_bytes() or 0
        what = f"a batch of {BATCH} images of {size.spec} does not fit into memory: "
        each = f"{size.nbytes / 2**30:.1f} GiB each, {free / 2**30:.1f} GiB free"
        raise DataError(f"{what}{each}", fix="choose a smaller --image-size")
