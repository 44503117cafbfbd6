"""From files to 8-bit images at the input's size: mapped from the cache, or decoded.

Three ways, by size: what the cache may hold is decoded once into packs that later runs
map; what only memory can hold is decoded into it; of the rest no more than what
identifies each image is noted, and batches decode their own (`data.store.lazy`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from striate.core.errors import DataError
from striate.core.preprocess import Preprocess
from striate.data.cache import free_memory as memory
from striate.data.cache.build_pack import Packed, pack
from striate.data.cache.cache_folder import Cache
from striate.data.cache.lazy_images import FileOriginals, LazyPixels
from striate.data.cache.pixel_rows import Rows
from striate.data.decode.hashing import content_hash
from striate.data.decode.preprocess import batch_to_input, look_at_sizes
from striate.data.scan import Census, Tick, stream, ticked
from striate.data.sources.source import Skipped, Source

BATCH = 32  # images that must fit memory at once, or nothing can be learned


@dataclass(frozen=True, kw_only=True)
class Developed:
    """The usable images of a source, in its order, and those that are not.

    Args:
        index: Positions in the source's records.
        pixels: (N, H, W, C) uint8, at each size asked for.
        contents: Hash of each image, before any resizing.
        skipped: Quarantined files.
    """

    index: tuple[int, ...]
    pixels: tuple[Rows, ...] = field(repr=False)
    contents: tuple[str, ...] = field(repr=False)
    skipped: tuple[Skipped, ...] = ()


def develop(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    cache: Cache | None = None,
    tick: Tick | None = None,
) -> Developed:
    """Bring every sound image to each of the sizes.

    Args:
        source: Where the records come from.
        census: What `take_census` found.
        sizes: Preprocessings that differ in height and width only.
        cache: Where packs are kept; None does without.
        tick: Called with (done, all) now and then, for a progress bar.
    """
    if source.arrays is not None:
        return _from_arrays(source.arrays, census, sizes)
    weight = sum(size.nbytes for size in sizes) * len(census.sound)
    if cache and not census.small and cache.fits(weight):
        try:
            return _of_packs(pack(source, census, sizes, cache, tick), source)
        except OSError:
            pass  # the disk is fuller than it said: do without it
    if memory.fits(weight):
        return _decoded(source, census, sizes, tick)
    return _lazy(source, census, sizes, cache, tick)


def _from_arrays(
    arrays: np.ndarray, census: Census, sizes: Sequence[Preprocess]
) -> Developed:
    return Developed(
        index=tuple(census.sound),
        pixels=tuple(batch_to_input(arrays, size) for size in sizes),
        contents=tuple(content_hash(image) for image in arrays),
    )


def _of_packs(packed: Packed, source: Source) -> Developed:
    first, census = packed.packs[0], packed.census
    index = [i for i in census.sound if census.hashes[i] not in first.refused]
    skipped = list(packed.lost.values())
    for i in census.sound:
        if census.hashes[i] in first.refused:
            reason, detail = first.refused[census.hashes[i]]
            path = source.records[i].path
            skipped.append(Skipped(path=path, reason=reason, detail=detail))
    return Developed(
        index=tuple(index),
        pixels=tuple(one.pixels for one in packed.packs),
        contents=first.content,
        skipped=tuple(skipped),
    )


def _decoded(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    tick: Tick | None,
) -> Developed:
    """Decode everything into memory."""
    index = census.sound
    room = [torch.empty(len(index), *size.shape, dtype=torch.uint8) for size in sizes]
    kept: list[int] = []
    contents: list[str] = []
    skipped: list[Skipped] = []

    def read(i: int) -> tuple[tuple[Tensor, ...], str]:
        return look_at_sizes(census.payload(source, i), sizes)

    for i, row in ticked(index, stream(source, index, read), tick):
        if isinstance(row, Skipped):
            skipped.append(row)
            continue
        for pixels, image in zip(room, row[0], strict=True):
            pixels[len(kept)] = image
        contents.append(row[1])
        kept.append(i)
    return Developed(
        index=tuple(kept),
        pixels=tuple(pixels[: len(kept)] for pixels in room),
        contents=tuple(contents),
        skipped=tuple(skipped),
    )


def _lazy(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    cache: Cache | None,
    tick: Tick | None,
) -> Developed:
    """Look at every image and keep none: one point of each says it can be decoded."""
    _check_batch(sizes[-1])
    points = [sizes[0].at(1, 1)]
    found = develop(source, census, points, cache, tick)
    originals = FileOriginals(
        files=source.reader,
        paths=tuple(source.records[i].path for i in found.index),
        hashes=tuple(census.hashes[i] for i in found.index),
    )
    return Developed(
        index=found.index,
        pixels=tuple(LazyPixels(originals, size) for size in sizes),
        contents=found.contents,
        skipped=found.skipped,
    )


def _check_batch(size: Preprocess) -> None:
    if not memory.fits(BATCH * size.nbytes):
        free = memory.available_bytes() or 0
        each = f"{size.nbytes / 2**30:.1f} GiB each, {free / 2**30:.1f} GiB free"
        what = f"not even {BATCH} images of {size.spec} fit into memory: {each}"
        raise DataError(what, fix="choose a smaller --image-size")
