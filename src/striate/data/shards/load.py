"""From shards to parts: held like any set where they fit, else streamed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from striate.core.errors import SettingError
from striate.core.preprocess import MAX_WHITE_LEVEL, Preprocess
from striate.data.cache import free_memory as memory
from striate.data.cache.cache_folder import Cache, PassingFolder, open_cache
from striate.data.cache.lazy_images import LazyPixels
from striate.data.choose_preprocess import choose_for
from striate.data.decode.preprocess import statistics
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.shards.index import Nearby, ShardOriginals
from striate.data.shards.stream import LazyPaths, LazyRows, Stream, open_stream
from striate.data.shards.tars import shard_names
from striate.data.sources.files import Stamp
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Record, Source
from striate.data.split.hash_split import SplitConfig
from striate.data.subset import Subset

# More are streamed even where they would fit: records in memory take a kilobyte each.
HELD = 200_000
UNCACHED = 10 << 30  # bytes of remote shards kept while a run lasts, without a cache


def load_shards(
    data: str | Path,
    *,
    preprocess: Preprocess | None,
    deal: SplitConfig,
    settings: Mapping[str, Any],
    most_held: int = HELD,
) -> ImageData:
    """Load tar shards, by path, pattern or address.

    Args:
        data: As for `load_data`.
        preprocess: The network's own, or None to choose it.
        deal: How images without a part get one.
        settings: Of `load_data`.
        most_held: Images up to which the set may be held like any other.

    Raises:
        DataError: The shards do not admit training; says why.
    """
    _check(deal, settings)
    store = open_cache(settings["cache"], settings["cache_gb"])
    stream = _open(data, store, settings, preprocess, deal)
    preprocess = preprocess or _choose(stream, settings)
    weight = preprocess.nbytes * stream.count
    fits = memory.fits(weight) or (store is not None and store.fits(weight))
    name, origin = name_of(data), origin_of(data)
    if stream.count <= most_held and fits:
        source = source_of(stream, name)
        own = {key: settings[key] for key in ("margin", "workers", "cache", "cache_gb")}
        held = load_data(source, preprocess=preprocess, tick=settings["tick"], **own)
        # Its records came with their parts; the deal that gave them is the one to note.
        return replace(held, origin=origin, deal=deal)
    return _streamed(stream, preprocess, name, origin, deal, settings["workers"])


def shard_source(data: str | Path) -> Source:
    """Return shards as a source of records, for judging and looking."""
    defaults: dict[str, Any] = {"background": 255, "white_level": MAX_WHITE_LEVEL}
    store = open_cache()
    return source_of(_open(data, store, defaults, None, SplitConfig()), name_of(data))


def _open(
    data: str | Path,
    store: Cache | None,
    settings: Mapping[str, Any],
    preprocess: Preprocess | None,
    deal: SplitConfig,
) -> Stream:
    if store is not None:
        folder, nearby = store.folder, Nearby(store.folder / "shards", store.limit)
    else:
        own = PassingFolder()
        folder, nearby = own.path, Nearby(own.path / "shards", UNCACHED, own)
    rules = preprocess or settings
    find = vars(rules) if isinstance(rules, Preprocess) else rules
    return open_stream(
        # As `origin_of` has them: read again, an image has the same path.
        shard_names(origin_of(data)),
        index=folder / "index",
        nearby=nearby,
        deal=deal,
        background=find["background"],
        white_level=find["white_level"],
    )


def _choose(stream: Stream, settings: Mapping[str, Any]) -> Preprocess:
    keys = ("resize", "background", "white_level", "jpeg", "image_size", "in_chans")
    return choose_for(
        stream.least if stream.least == stream.most else None,
        stream.channels,
        normalize=(settings["normalize"], settings["mean"], settings["std"]),
        **{key: settings[key] for key in keys},
    )


def _streamed(
    stream: Stream,
    preprocess: Preprocess,
    name: str,
    origin: str,
    deal: SplitConfig,
    workers: int,
) -> ImageData:
    parts = {
        part: Subset(
            pixels=LazyPixels(
                originals, preprocess, workers=workers, forgiving=part == "train"
            ),
            labels=stream.numbers[part],
            paths=LazyPaths(originals),
            blocks=stream.blocks[part],
        )
        for part, originals in stream.originals.items()
    }
    measured = not preprocess.mean
    if measured:
        mean, std = statistics(parts["train"].pixels)
        preprocess = replace(preprocess, mean=mean, std=std)
    return ImageData(
        name=name,
        origin=origin,
        labels=stream.labels,
        preprocess=preprocess,
        parts=parts,
        rows=LazyRows(stream),
        quarantined=stream.skipped,
        deal=deal,
        measured=measured,
    )


def _check(deal: SplitConfig, settings: Mapping[str, Any]) -> None:
    """Refuse what takes a look at all images at once."""
    for name, asked in (
        ("fraction", deal.fraction < 1),
        ("exact", deal.exact),
        ("split", settings["split"] is not None),
    ):
        if asked:
            what = f"shards are dealt image by image, without --{name}"
            fix = "give fewer shards, or a folder of images"
            raise SettingError(what, where=f"--{name}", fix=fix)


@dataclass(frozen=True)
class ShardFiles:
    """The images of shards by the paths of their records."""

    places: Mapping[str, tuple[ShardOriginals, int]] = field(repr=False)

    def read(self, path: str) -> bytes:
        """Return an image's bytes."""
        originals, i = self.places[path]
        return originals.payload(i)

    def stamp(self, path: str) -> Stamp:
        """Return the checksum that the shard's index holds: it is known to be true."""
        originals, i = self.places[path]
        row = originals.row(i)
        return Stamp(f"{int(row['check'])}", int(row["size"]))

    def name(self, path: str) -> bytes:
        """Return shard and place."""
        return f"shard {path}".encode("utf-8", "surrogateescape")


def source_of(stream: Stream, name: str) -> Source:
    """Return a stream's images as records, each with the part it was dealt."""
    rows = LazyRows(stream)
    places: dict[str, tuple[ShardOriginals, int]] = {}
    for originals in stream.originals.values():
        for i, path in enumerate(LazyPaths(originals)):
            places[path] = originals, i
    return Source(
        name=name,
        records=tuple(Record(path=r.path, label=r.label, part=r.part) for r in rows),
        labels=stream.labels,
        files=ShardFiles(places),
        quarantined=stream.skipped,
    )


def name_of(data: str | Path) -> str:
    """Return what a set in shards is called, short enough for a run's name."""
    last = str(data).rstrip("/").rpartition("/")[2]
    return last.partition("{")[0].removesuffix(".tar").rstrip("-_.") or "shards"


def origin_of(data: str | Path) -> str:
    """Return where shards can be found again: an address, or an absolute path."""
    # Braces are no part of a path, but os.path does not mind them.
    return str(data) if is_remote(data) else os.path.abspath(data)  # noqa: PTH100
