"""From what the user typed to parts ready for training, every file accounted for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from striate.core.class_names import ClassNames
from striate.core.device import paused_gc
from striate.core.errors import DataError, SettingError
from striate.core.preprocess import MAX_WHITE_LEVEL, Preprocess
from striate.data.cache.cache_folder import AUTO, DEFAULT_GB, open_cache
from striate.data.cache.lazy_images import LazyPixels
from striate.data.cache.materialize import Developed, develop
from striate.data.cache.pixel_rows import Rows, some
from striate.data.channel_stats import channel_mean_std
from striate.data.choose_preprocess import choose_preprocess
from striate.data.find_source import find_source
from striate.data.given_split import apply_split, missing_files
from striate.data.image_data import ImageData
from striate.data.scan import Census, Tick, take_census, two_labels
from striate.data.shards.load import open_shards
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Skipped, Source
from striate.data.split.assign import assign
from striate.data.split.coverage import (
    check_classes,
    check_counts,
    split_order,
    warnings_of,
)
from striate.data.split.fraction import spared
from striate.data.split.hash_split import SplitConfig
from striate.data.split.jpeg_copies import united
from striate.data.split.split_file import Earlier, SplitRow, read_earlier
from striate.data.subset import Subset


def load_data(
    data: str | Path | Source,
    *,
    image_size: int | tuple[int, int] | None = None,
    in_chans: int | None = None,
    resize: str = "stretch",
    background: int = 255,
    white_level: int = MAX_WHITE_LEVEL,
    jpeg: str = "reduced",
    normalize: str = "data",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.25,
    fraction: float = 1.0,
    folds: int | None = None,
    fold: int | None = None,
    split: str | Path | None = None,
    exact: bool = False,
    seed: int = 0,
    margin: float = 1.0,
    workers: int = 0,
    cache: str = AUTO,
    cache_gb: float = DEFAULT_GB,
    preprocess: Preprocess | None = None,
    given_split: Mapping[str, str] | None = None,
    given_hashes: Mapping[str, str] | None = None,
    tick: Tick | None = None,
) -> ImageData:
    """Read images, check them, and split them where they are not.

    Args:
        data: A named set, a folder, a CSV, IDX files, or a source of arrays.
        image_size: Input side or (height, width) in pixels; the images' own size
            where they all share one, else 64.
        in_chans: 1 or 3; gray where every image is gray.
        resize: `stretch`, `crop` or `pad`, see `Preprocess`.
        background: Gray level under transparency and padding.
        white_level: The 16-bit gray value that becomes 255.
        jpeg: `reduced` or `full`, see `Preprocess`.
        normalize: `data` measures mean and deviation on the training split, `imagenet`
            takes those of public weights, `none` gives v/255.
        mean: Use these instead, one a channel or one for all; with `std`.
        std: Likewise.
        val_fraction: Share for validation of all images that have no part.
        test_fraction: Share for the test, where no test split is given.
        fraction: Train on this share of the training split, alike in every class.
        folds: Deal so many folds for cross-validation.
        fold: The one to judge, counted from 0: it is the test split, or validation
            where a test is given.
        split: A run folder, or a CSV of paths and parts, whose images stay where
            they are; only new ones are dealt.
        exact: Hold each class's shares to the image; then adding images can move
            old ones.
        seed: Deals the split.
        margin: Also hold training images at so many times the input's sides, for
            crops to be cut from.
        workers: Processes that decode, for sets that neither cache nor memory hold.
        cache: `auto`, `off`, or a folder to keep decoded images in.
        cache_gb: The most it may hold, in 10⁹ bytes.
        preprocess: Use this, whole, in place of the settings above.
        given_split: Parts by path, as an earlier `split.csv` had them.
        given_hashes: SHA-256 by path, likewise; changed files are quarantined.
        tick: Called with (done, all) while decoding.

    Raises:
        DataError: The data does not admit training; says why and what to do.
        SettingError: The shares or folds cannot be.

    Example:
        >>> digits = load_data("digits", exact=True)
        >>> {name: len(split) for name, split in digits.subsets.items()}
        {'train': 1078, 'val': 269, 'test': 450}
    """
    settings = dict(locals())  # as they were given
    shares = {"val": val_fraction, "test": test_fraction, "fraction": fraction}
    split_config = SplitConfig(**shares, folds=folds, fold=fold, exact=exact, seed=seed)
    earlier = _earlier(split, split_config)
    if not isinstance(data, Source) and is_shards(data):
        return _load_shards(data, split_config, settings)
    with paused_gc():
        source = data if isinstance(data, Source) else find_source(data)
        return _load(source, _origin(data), split_config, earlier, settings)


def _load_shards(
    data: str | Path, split_config: SplitConfig, settings: Mapping[str, Any]
) -> ImageData:
    """Load tar shards like any other set where they fit, else stream them."""
    shards = open_shards(data, split_config, settings)
    if not shards.fits:
        return shards.streamed(settings["workers"])
    keys = ("margin", "workers", "cache", "cache_gb", "tick")
    loaded = load_data(
        shards.as_source(),
        preprocess=shards.preprocess,
        **{key: settings[key] for key in keys},
    )
    # The records carry their splits; `split_config` is what made them.
    return replace(loaded, origin=shards.origin, split_config=split_config)


def _load(
    source: Source,
    origin: str,
    split_config: SplitConfig,
    earlier: Earlier | None,
    settings: Mapping[str, Any],
) -> ImageData:
    """Scan, decode, leave out, split: the steps of `load_data` in order."""
    skipped: list[Skipped] = []
    if (split_by_path := settings["given_split"]) is not None:
        skipped = missing_files(source, split_by_path)
        source = apply_split(source, split_by_path)
    store = open_cache(settings["cache"], settings["cache_gb"])
    before = settings["given_hashes"] or {}
    census = take_census(source, store.facts if store else None).compared(
        source, before
    )
    skipped += census.skipped
    _check_any(census.sound, skipped, source)
    preprocess = settings["preprocess"] or _chosen(census, settings)
    sizes = [preprocess]
    if settings["margin"] > 1:
        sizes.append(preprocess.enlarged(settings["margin"]))
    found = develop(source, census, sizes, store, settings["tick"])
    skipped += found.skipped
    found, kept = _sound(source, census, found, preprocess, skipped)
    split_up = _split_up(
        source,
        census,
        found,
        kept,
        skipped,
        preprocess,
        split_config,
        earlier,
        settings["workers"],
    )
    return replace(split_up, origin=origin)


def _sound(
    source: Source,
    census: Census,
    found: Developed,
    preprocess: Preprocess,
    skipped: list[Skipped],
) -> tuple[Developed, list[int]]:
    """Return what was developed, and which of it stands under one label only.

    The others join `skipped`.
    """
    _check_any(found.index, skipped, source)
    contents = united(source, census, found.index, found.contents, preprocess)
    found = replace(found, contents=tuple(contents))
    given_splits = [source.records[i].split for i in found.index]
    conflicts = two_labels(source, found.index, found.contents, given_splits)
    skipped += conflicts.values()
    kept = [k for k in range(len(found.index)) if k not in conflicts]
    _check_any(kept, skipped, source)
    return found, kept


def _split_up(
    source: Source,
    census: Census,
    found: Developed,
    kept: Sequence[int],
    skipped: Sequence[Skipped],
    preprocess: Preprocess,
    split_config: SplitConfig,
    earlier: Earlier | None,
    workers: int,
) -> ImageData:
    """Give the images at `kept` in `found` their parts, and say what came of it."""
    records = [source.records[found.index[k]] for k in kept]
    contents = [found.contents[k] for k in kept]
    check_counts(record.label for record in records)
    assigned = assign(records, contents, split_config, earlier)
    left_out = assigned.left_out
    labels = check_classes(assigned.rows, source.labels, assigned.dealt)
    kept = [kept[i] for i in assigned.stays]
    hashes = [census.hashes[found.index[k]] for k in kept]
    rows = [
        replace(row, sha256=sha256) if sha256 else row
        for row, sha256 in zip(spared(assigned.rows, split_config), hashes, strict=True)
    ]
    subsets = {
        name: _subset(found, kept, rows, labels, name, workers)
        for name in split_order({row.split for row in rows})
    }
    measured = not preprocess.mean
    if measured:
        means, stds = channel_mean_std(subsets["train"].pixels)
        preprocess = replace(preprocess, mean=means, std=stds)
    return ImageData(
        name=source.name,
        origin="",
        labels=labels,
        preprocess=preprocess,
        subsets=subsets,
        rows=tuple(rows),
        quarantined=(*source.quarantined, *skipped),
        ignored=(*source.ignored, *left_out),
        warnings=(*source.warnings, *warnings_of(rows, left_out)),
        notes=assigned.notes,
        split_config=split_config,
        earlier=str(earlier.origin.resolve()) if earlier else "",
        measured=measured,
    )


def _earlier(split: str | Path | None, split_config: SplitConfig) -> Earlier | None:
    if split is None:
        return None
    if split_config.folds:
        fix = "leave out --folds and --fold, or --split"
        what = "an earlier split has its parts; it cannot be dealt into folds"
        raise SettingError(what, where="--split", fix=fix)
    return read_earlier(split)


def _chosen(census: Census, settings: Mapping[str, Any]) -> Preprocess:
    keys = ("image_size", "in_chans", "resize", "background", "white_level", "jpeg")
    return choose_preprocess(
        census,
        normalize=(settings["normalize"], settings["mean"], settings["std"]),
        **{key: settings[key] for key in keys},
    )


def _origin(data: str | Path | Source) -> str:
    """Return where the data can be read again: a name or an absolute path, or ''."""
    if isinstance(data, Source):
        return ""
    if is_remote(str(data)):
        return str(data)
    found = str(data) not in NAMED and Path(data).exists()
    return str(Path(data).resolve()) if found else str(data)


def _check_any(
    usable: Sequence[int], skipped: Sequence[Skipped], source: Source
) -> None:
    if usable:
        return
    reasons = Counter(skip.reason for skip in skipped)
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = f"; the first: {skipped[0].path} ({skipped[0].detail})" if skipped else ""
    what = f"no usable images among {len(source.records)} files: {counts}{first}"
    raise DataError(what, where=source.root, fix="give PNG, JPEG or other images")


def _subset(
    found: Developed,
    kept: Sequence[int],
    rows: Sequence[SplitRow],
    labels: ClassNames,
    name: str,
    workers: int,
) -> Subset:
    number = {label: i for i, label in enumerate(labels.names)}
    members = [row for row in rows if row.split == name]
    sizes = [
        _pixels(found, kept, rows, name, size) for size in range(len(found.pixels))
    ]
    for pixels in sizes:
        if isinstance(pixels, LazyPixels):
            pixels.workers, pixels.forgiving = workers, name == "train"
    return Subset.of(
        sizes[0],
        [number[row.label] for row in members],
        [row.path for row in members],
        sizes[1] if len(sizes) > 1 and name == "train" else None,
    )


def _pixels(
    found: Developed,
    kept: Sequence[int],
    rows: Sequence[SplitRow],
    name: str,
    size: int,
) -> Rows:
    chosen = [k for k, row in zip(kept, rows, strict=True) if row.split == name]
    if size:  # crops are read where they stand: a copy would gain nothing
        return some(found.pixels[size], chosen, most=0)
    return some(found.pixels[size], chosen)


def load_labeled(
    data: str | Path | Source,
    preprocess: Preprocess,
    labels: ClassNames,
    split: str | None = None,
    *,
    cache: str = AUTO,
    cache_gb: float = DEFAULT_GB,
) -> tuple[Subset, tuple[Skipped, ...]]:
    """Read labeled images for judging a trained network; classes match by name.

    Args:
        data: As for `load_data`.
        preprocess: The network's own.
        labels: The network's own.
        split: Only images of this given part; all where None.
        cache: As for `load_data`.
        cache_gb: Likewise.

    Returns:
        The images, and the files that could not be used.

    Raises:
        DataError: Nothing usable, or a class that the network does not know.
    """
    source = data if isinstance(data, Source) else find_source(data)
    wanted = [r for r in source.records if split is None or r.split == split]
    if not wanted:
        raise DataError(f"'{source.name}' has no {split} split", where=source.root)
    strange = sorted({r.label for r in wanted} - set(labels.names))
    if strange:
        what = f"classes that the network does not know: {', '.join(strange[:5])}"
        fix = f"it knows: {', '.join(labels.names[:20])}"
        raise DataError(what, where=source.root, fix=fix)
    source = apply_split(source, {r.path: split or "test" for r in wanted})
    store = open_cache(cache, cache_gb)
    census = take_census(source, store.facts if store else None)
    found = develop(source, census, [preprocess], store)
    skipped = (*source.quarantined, *census.skipped, *found.skipped)
    _check_any(found.index, skipped, source)
    records = [source.records[i] for i in found.index]
    numbers = [labels.index(record.label) for record in records]
    paths = [record.path for record in records]
    return Subset.of(found.pixels[0], numbers, paths), skipped
