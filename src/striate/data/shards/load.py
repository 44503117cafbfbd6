"""Load tar shards into the cache or memory if they fit, else stream them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.core.errors import SettingError
from striate.core.preprocess_config import MAX_WHITE_LEVEL, Preprocess
from striate.data.cache import free_memory
from striate.data.cache.cache_folder import Cache, TemporaryFolder, open_cache
from striate.data.cache.lazy_images import LazyPixels
from striate.data.channel_stats import channel_mean_std
from striate.data.choose_preprocess import choose_preprocess_for
from striate.data.config import DataConfig
from striate.data.image_data import ImageData
from striate.data.shards.index import LocalShards, ShardImages
from striate.data.shards.stream import (
    LazyPaths,
    LazySplitRows,
    ShardStream,
    open_shard_stream,
)
from striate.data.shards.tars import shard_names
from striate.data.sources.files import Stamp
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Record, Source
from striate.data.split.hash_split import SplitConfig
from striate.data.subset import Subset

# More images are streamed even where they would fit: a record in memory takes 1 kB.
MOST_HELD = 200_000
UNCACHED = 10 << 30  # maximum bytes of downloads during a run without a cache


@dataclass(frozen=True, kw_only=True)
class Shards:
    """Tar shards that were scanned and split, ready to be loaded or streamed."""

    stream: ShardStream  # index of the shards' images, on the disk
    # preprocessing of the images, given or chosen from the images
    preprocess: Preprocess
    name: str  # short name of the data set
    origin: str  # address or absolute path of the shards
    split_config: SplitConfig  # split settings for images without a split
    fits: bool  # whether the cache or memory can hold all of them

    def as_source(self) -> Source:
        """Return a source with one record for each image, including its split."""
        return stream_source(self.stream, self.name)

    def streamed(self, workers: int) -> ImageData:
        """Return a data set whose images are decoded when a batch needs them."""
        stream, preprocess = self.stream, self.preprocess
        subsets = {
            split: Subset(
                pixels=LazyPixels(
                    originals,
                    preprocess,
                    workers=workers,
                    replace_lost=split == "train",
                ),
                labels=stream.numbers[split],
                paths=LazyPaths(originals),
                blocks=stream.blocks[split],
            )
            for split, originals in stream.originals.items()
        }
        measured = not preprocess.mean
        if measured:
            mean, std = channel_mean_std(subsets["train"].pixels)
            preprocess = replace(preprocess, mean=mean, std=std)
        return ImageData(
            name=self.name,
            origin=self.origin,
            labels=stream.labels,
            preprocess=preprocess,
            subsets=subsets,
            rows=LazySplitRows(stream),
            quarantined=stream.skipped,
            split_config=self.split_config,
            measured=measured,
        )


def open_shards(
    data: str | Path,  # path, pattern or address of the shards
    config: DataConfig,  # settings of reading and preprocessing
    split_config: SplitConfig,  # split settings for images without a split
    # Use this preprocessing instead of the settings in `config`.
    preprocess: Preprocess | None = None,
) -> Shards:
    """Scan and split tar shards, given by path, pattern or address.

    Raises:
        DataError: The shards cannot be used for training.
    """
    _check(split_config, config)
    store = open_cache(config.cache, config.cache_gb)
    levels = config.background_or_white, config.white_level_or_full
    if preprocess is not None:
        levels = preprocess.background, preprocess.white_level
    stream = _open(
        data, store, split_config, background=levels[0], white_level=levels[1]
    )
    sizes = stream.min_sides if stream.min_sides == stream.max_sides else None
    preprocess = preprocess or choose_preprocess_for(sizes, stream.channels, config)
    weight = preprocess.nbytes * stream.count
    fits = free_memory.fits_in_memory(weight) or bool(store and store.fits(weight))
    return Shards(
        stream=stream,
        preprocess=preprocess,
        name=shards_name(data),
        origin=shards_origin(data),
        split_config=split_config,
        fits=stream.count <= MOST_HELD and fits,
    )


def shard_source(data: str | Path) -> Source:
    """Return a source of the images in shards, for evaluation or inspection."""
    stream = _open(data, open_cache(), SplitConfig())
    return stream_source(stream, shards_name(data))


def _open(
    data: str | Path,
    store: Cache | None,
    split_config: SplitConfig,
    *,
    background: int = 255,
    white_level: int = MAX_WHITE_LEVEL,
) -> ShardStream:
    if store is not None:
        folder = store.folder
        local_shards = LocalShards(folder / "shards", store.limit)
    else:
        temporary = TemporaryFolder()
        folder = temporary.path
        local_shards = LocalShards(folder / "shards", UNCACHED, temporary)
    return open_shard_stream(
        # Absolute, so that images have the same paths when they are read again.
        shard_names(shards_origin(data)),
        index=folder / "index",
        local_shards=local_shards,
        split_config=split_config,
        background=background,
        white_level=white_level,
    )


def _check(split_config: SplitConfig, config: DataConfig) -> None:
    """Raise an error for settings that shards do not support."""
    for name, is_set in (
        ("fraction", split_config.fraction < 1),
        ("exact", split_config.exact),
        ("split", config.split is not None),
    ):
        if is_set:
            what = f"--{name} is not supported for shards (images are split one by one)"
            fix = f"leave out --{name}, or use a folder of images"
            raise SettingError(what, where=f"--{name}", fix=fix)


@dataclass(frozen=True)
class ShardFiles:
    """Reader of images in scanned shards, by record path."""

    places: Mapping[str, tuple[ShardImages, int]] = field(repr=False)

    def read(self, path: str) -> bytes:
        """Return the bytes of an image."""
        originals, i = self.places[path]
        return originals.payload(i)

    def stamp(self, path: str) -> Stamp:
        """Return the checksum and size of an image, from the index of its shard."""
        originals, i = self.places[path]
        row = originals.row(i)
        return Stamp(f"{int(row['check'])}", int(row["size"]))

    def name(self, path: str) -> bytes:
        """Return the unique name of an image: its shard and offset."""
        return f"shard {path}".encode("utf-8", "surrogateescape")


def stream_source(stream: ShardStream, name: str) -> Source:
    """Return a source of the images of a shard stream, with their splits."""
    rows = LazySplitRows(stream)
    places = {
        path: (originals, i)
        for originals in stream.originals.values()
        for i, path in enumerate(LazyPaths(originals))
    }
    return Source(
        name=name,
        records=tuple(Record(path=r.path, label=r.label, split=r.split) for r in rows),
        labels=stream.labels,
        files=ShardFiles(places),
        quarantined=stream.skipped,
    )


def shards_name(data: str | Path) -> str:
    """Return a short name for a set of shards."""
    last = str(data).rstrip("/").rpartition("/")[2]
    return last.partition("{")[0].removesuffix(".tar").rstrip("-_.") or "shards"


def shards_origin(data: str | Path) -> str:
    """Return the address or the absolute path of the shards."""
    # A pattern with braces is not a path, but os.path accepts it.
    return str(data) if is_remote(data) else os.path.abspath(data)  # noqa: PTH100
