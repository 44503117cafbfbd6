"""Make the packs of a set: take over what other packs hold, decode the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from torch import Tensor

from striate.core.preprocess import Preprocess
from striate.data.cache.cache_folder import Cache
from striate.data.cache.decoded_images import (
    Builder,
    Donors,
    Pack,
    Refusals,
    open_pack,
    pack_key,
)
from striate.data.decode.file_bytes import UndecodableError
from striate.data.decode.preprocess import look_at_sizes
from striate.data.scan import Census, Tick, stream, ticked
from striate.data.sources.source import Skipped, Source

_TRIES = 3  # files that change while they are decoded, again and again


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Packs of one set, one a size, and files that are no longer as scanned."""

    packs: tuple[Pack, ...]
    census: Census
    lost: dict[int, Skipped] = field(default_factory=dict)


def pack(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    cache: Cache,
    tick: Tick | None = None,
) -> Packed:
    """Map the packs of a set, made first where they are not there.

    Raises:
        OSError: The disk refused, or the files do not keep still.
    """
    lost: dict[int, Skipped] = {}
    for _ in range(_TRIES):
        hashes = [census.hashes[i] for i in census.sound]
        found = [open_pack(cache.packs / pack_key(size, hashes)) for size in sizes]
        lacking = [size for size, one in zip(sizes, found, strict=True) if one is None]
        if not lacking:
            packs = tuple(one for one in found if one is not None)
            return Packed(packs=packs, census=census, lost=lost)
        cache.make_room(sum(size.nbytes * len(hashes) for size in lacking))
        lost |= _build(source, census, lacking, cache, tick)
        census = census.without(lost)
    raise OSError("the images change while they are read")


def _build(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    cache: Cache,
    tick: Tick | None,
) -> dict[int, Skipped]:
    """Write a pack for each size; return the files that are no longer as scanned."""
    index = census.sound
    wanted = {census.hashes[i] for i in index}
    donors = [Donors(cache.packs, size, wanted) for size in sizes]
    lost: dict[int, Skipped] = {}
    refused: Refusals = {}
    with ExitStack() as open_files:
        builders = [
            open_files.enter_context(Builder(cache.packs, size)) for size in sizes
        ]
        read = _reader(source, census, sizes, donors)
        for i, row in ticked(index, stream(source, index, read), tick):
            match row:
                case Skipped():
                    lost[i] = row
                case str(reason), str(detail):
                    refused[census.hashes[i]] = reason, detail
                case images, content:
                    for builder, image in zip(builders, images, strict=True):
                        builder.add(image, census.hashes[i], content)
        hashes = [census.hashes[i] for i in index if i not in lost]
        for builder in builders:
            builder.finish(hashes, refused)
    for donor in donors:
        donor.clear()
    return lost


Row = tuple[tuple[Tensor, ...], str] | tuple[str, str]


def _reader(
    source: Source,
    census: Census,
    sizes: Sequence[Preprocess],
    donors: Sequence[Donors],
) -> Callable[[int], Row]:
    def read(i: int) -> Row:
        given = [donor.get(census.hashes[i]) for donor in donors]
        had = [row for row in given if row is not None]
        if len(had) == len(donors):
            return tuple(image for image, _ in had), had[0][1]
        payload = census.payload(source, i)
        try:
            return look_at_sizes(payload, sizes)
        except UndecodableError as error:
            return error.reason, error.detail

    return read
