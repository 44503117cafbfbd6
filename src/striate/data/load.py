"""Load a data set: find, scan, decode and split the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from striate.core.class_names import ClassNames
from striate.core.device import paused_gc
from striate.core.errors import DataError, SettingError
from striate.core.preprocess_config import MAX_WHITE_LEVEL, Preprocess
from striate.data.cache.cache_folder import AUTO, DEFAULT_GB, open_cache
from striate.data.cache.decode_dataset import DecodedSet
from striate.data.cache.image_rows import PixelRows, take_rows
from striate.data.cache.lazy_images import LazyPixels
from striate.data.channel_stats import channel_mean_std
from striate.data.choose_preprocess import choose_preprocess
from striate.data.find_source import find_source
from striate.data.given_split import apply_split, missing_files
from striate.data.image_data import ImageData
from striate.data.scan import FileScan, Tick, label_conflicts
from striate.data.shards.load import open_shards
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Skipped, Source
from striate.data.split.assign import assign_splits
from striate.data.split.fraction import mark_spare
from striate.data.split.hash_split import SplitConfig
from striate.data.split.jpeg_copies import merge_jpeg_hashes
from striate.data.split.split_checks import (
    check_classes,
    check_counts,
    split_order,
    split_warnings,
)
from striate.data.split.split_file import EarlierSplit, SplitRow, read_split
from striate.data.subset import Subset
from striate.data.torch_dataset.decode_source import (
    dataset_facts,
    dataset_preprocess,
    decode_source,
    scan_images,
)
from striate.data.torch_dataset.source import TorchData, open_data


def load_data(
    data: str | Path | Source | TorchData,
    *,
    val: TorchData | None = None,
    test: TorchData | None = None,
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
    """Load images, check the files, and split the images into train, val and test.

    Args:
        data: A named data set, a folder, a CSV, IDX files, tar shards, a `Source`, or
            a torch `Dataset` or `DataLoader` of images with integer labels.
        val: `Dataset` or `DataLoader` of the validation split.
        test: `Dataset` or `DataLoader` of the test split.
        image_size: Input height and width in pixels: one number or (height, width).
            Default: the size of the images if all have the same size, else 64.
        in_chans: 1 (gray) or 3 (RGB); default: 1 if every image is gray.
        resize: `stretch`, `crop` or `pad`, see `Preprocess`.
        background: Gray level (0 to 255) of padding and behind transparent pixels.
        white_level: The 16-bit gray value that becomes 255.
        jpeg: `reduced` or `full`, see `Preprocess`.
        normalize: `data` measures mean and standard deviation on the training split,
            `imagenet` uses the ImageNet values, `none` only divides by 255.
        mean: Use this mean instead, one per channel or one for all; needs `std`.
        std: Use this standard deviation instead.
        val_fraction: Fraction of the images without a given split, for validation.
        test_fraction: Fraction of the images for testing, if no test split is given.
        fraction: Train on this fraction of the training split, equal in every class.
        folds: Number of folds for cross-validation.
        fold: The fold to evaluate, counted from 0. It becomes the test split, or the
            validation split where a test split is given.
        split: A run folder, or a CSV of paths and splits. Images in it keep their
            split; only new images are assigned a split.
        exact: Split each class by exact counts. Adding images can then move old images
            to another split.
        seed: Random seed of the split.
        margin: Also store training images at this multiple of the input size, for
            random crops.
        workers: Number of decoding processes, for sets too large for cache and memory.
        cache: `auto`, `off`, or a folder for decoded images.
        cache_gb: Maximum size of the cache, in 10⁹ bytes.
        preprocess: Use this preprocessing instead of the settings above.
        given_split: Dictionary from path to split, from an earlier `split.csv`.
        given_hashes: Dictionary from path to SHA-256, from the same file; changed files
            are quarantined.
        tick: Progress callback, called with (done, total) while decoding.

    Raises:
        DataError: The data cannot be used for training.
        SettingError: The fractions or folds are not possible.

    Example:
        >>> digits = load_data("digits", exact=True)
        >>> {name: len(split) for name, split in digits.subsets.items()}
        {'train': 1078, 'val': 269, 'test': 450}
    """
    settings = dict(locals())  # the settings as the caller gave them
    shares = {"val": val_fraction, "test": test_fraction, "fraction": fraction}
    split_config = SplitConfig(**shares, folds=folds, fold=fold, exact=exact, seed=seed)
    earlier = _read_earlier(split, split_config)
    data = open_data(data, val, test, settings)
    if not isinstance(data, Source) and is_shards(data):
        return _load_shards(data, split_config, settings)
    with paused_gc():
        source = data if isinstance(data, Source) else find_source(data)
        return _load(source, _origin(data), split_config, earlier, settings)


def _load_shards(
    data: str | Path, split_config: SplitConfig, settings: Mapping[str, Any]
) -> ImageData:
    """Load tar shards if they fit into the cache or memory, else stream them."""
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
    earlier: EarlierSplit | None,
    settings: Mapping[str, Any],
) -> ImageData:
    """Scan, decode, filter and split the images of a source."""
    skipped: list[Skipped] = []
    if (split_by_path := settings["given_split"]) is not None:
        skipped = missing_files(source, split_by_path)
        source = apply_split(source, split_by_path)
    store = open_cache(settings["cache"], settings["cache_gb"])
    scan = scan_images(source, store.file_index if store else None)
    scan = scan.check_hashes(source, settings["given_hashes"] or {})
    skipped += scan.skipped
    _check_any(scan.readable, skipped, source)
    preprocess = settings["preprocess"] or dataset_preprocess(source, settings)
    preprocess = preprocess or _choose(scan, settings)
    sizes = [preprocess]
    if settings["margin"] > 1 and not preprocess.is_float:
        sizes.append(preprocess.enlarged(settings["margin"]))
    decoded = decode_source(source, scan, sizes, store, settings["tick"])
    skipped += decoded.skipped
    decoded, rows_kept = _without_conflicts(source, scan, decoded, preprocess, skipped)
    split_up = _split_up(
        source,
        scan,
        decoded,
        rows_kept,
        skipped,
        preprocess,
        split_config,
        earlier,
        settings["workers"],
    )
    return replace(split_up, origin=origin, **dataset_facts(source, split_up))


def _without_conflicts(
    source: Source,
    scan: FileScan,
    decoded: DecodedSet,
    preprocess: Preprocess,
    skipped: list[Skipped],
) -> tuple[DecodedSet, list[int]]:
    """Return the decoded set, and the indices of images without label conflicts.

    Images with conflicting labels are appended to `skipped`.
    """
    _check_any(decoded.index, skipped, source)
    contents = merge_jpeg_hashes(
        source, scan, decoded.index, decoded.contents, preprocess
    )
    decoded = replace(decoded, contents=tuple(contents))
    given_splits = [source.records[i].split for i in decoded.index]
    conflicts = label_conflicts(source, decoded.index, decoded.contents, given_splits)
    skipped += conflicts.values()
    rows_kept = [k for k in range(len(decoded.index)) if k not in conflicts]
    _check_any(rows_kept, skipped, source)
    return decoded, rows_kept


def _split_up(
    source: Source,
    scan: FileScan,
    decoded: DecodedSet,
    rows_kept: Sequence[int],
    skipped: Sequence[Skipped],
    preprocess: Preprocess,
    split_config: SplitConfig,
    earlier: EarlierSplit | None,
    workers: int,
) -> ImageData:
    """Assign splits to the selected images, and return the loaded data set."""
    records = [source.records[decoded.index[k]] for k in rows_kept]
    contents = [decoded.contents[k] for k in rows_kept]
    check_counts(record.label for record in records)
    assigned = assign_splits(records, contents, split_config, earlier)
    left_out = assigned.left_out
    labels = check_classes(assigned.rows, source.labels, assigned.held_out)
    rows_kept = [rows_kept[i] for i in assigned.positions]
    hashes = [scan.hashes[decoded.index[k]] for k in rows_kept]
    rows = [
        replace(row, sha256=sha256) if sha256 else row
        for row, sha256 in zip(
            mark_spare(assigned.rows, split_config), hashes, strict=True
        )
    ]
    subsets = {
        name: _subset(decoded, rows_kept, rows, labels, name, workers)
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
        warnings=(*source.warnings, *split_warnings(rows, left_out)),
        notes=assigned.notes,
        split_config=split_config,
        earlier_split=str(earlier.origin.resolve()) if earlier else "",
        measured=measured,
    )


def _read_earlier(
    split: str | Path | None, split_config: SplitConfig
) -> EarlierSplit | None:
    if split is None:
        return None
    if split_config.folds:
        fix = "leave out --folds and --fold, or leave out --split"
        what = "an earlier split cannot be divided into folds"
        raise SettingError(what, where="--split", fix=fix)
    return read_split(split)


def _choose(scan: FileScan, settings: Mapping[str, Any]) -> Preprocess:
    keys = ("image_size", "in_chans", "resize", "background", "white_level", "jpeg")
    return choose_preprocess(
        scan,
        normalize=(settings["normalize"], settings["mean"], settings["std"]),
        **{key: settings[key] for key in keys},
    )


def _origin(data: str | Path | Source) -> str:
    """Return a name or absolute path to load the data again; '' for a `Source`."""
    if isinstance(data, Source):
        return ""
    if is_remote(str(data)):
        return str(data)
    exists = str(data) not in NAMED and Path(data).exists()
    return str(Path(data).resolve()) if exists else str(data)


def _check_any(
    usable: Sequence[int], skipped: Sequence[Skipped], source: Source
) -> None:
    if usable:
        return
    reasons = Counter(skip.reason for skip in skipped)
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    first = f"; the first: {skipped[0].path} ({skipped[0].detail})" if skipped else ""
    what = f"no usable images among {len(source.records)} files: {counts}{first}"
    raise DataError(what, where=source.root, fix="use PNG, JPEG or other image files")


def _subset(
    decoded: DecodedSet,
    rows_kept: Sequence[int],
    rows: Sequence[SplitRow],
    labels: ClassNames,
    name: str,
    workers: int,
) -> Subset:
    number = {label: i for i, label in enumerate(labels.names)}
    members = [row for row in rows if row.split == name]
    sizes = [
        _pixels(decoded, rows_kept, rows, name, size)
        for size in range(len(decoded.pixels))
    ]
    for pixels in sizes:
        if isinstance(pixels, LazyPixels):
            pixels.workers = workers or pixels.workers
            pixels.replace_lost = name == "train"
    return Subset.of(
        sizes[0],
        [number[row.label] for row in members],
        [row.path for row in members],
        sizes[1] if len(sizes) > 1 and name == "train" else None,
    )


def _pixels(
    decoded: DecodedSet,
    rows_kept: Sequence[int],
    rows: Sequence[SplitRow],
    name: str,
    size: int,
) -> PixelRows:
    picked = [k for k, row in zip(rows_kept, rows, strict=True) if row.split == name]
    if size:  # crops are read in place: a copy would gain nothing
        return take_rows(decoded.pixels[size], picked, max_bytes=0)
    return take_rows(decoded.pixels[size], picked)


def load_labeled(
    data: str | Path | Source | TorchData,
    preprocess: Preprocess,
    labels: ClassNames,
    split: str | None = None,
    *,
    cache: str = AUTO,
    cache_gb: float = DEFAULT_GB,
) -> tuple[Subset, tuple[Skipped, ...]]:
    """Load labeled images to evaluate a trained network; match classes by name.

    Args:
        data: Data set, as in `load_data`.
        preprocess: The preprocessing of the network.
        labels: The classes of the network.
        split: Load only images of this given split; None loads all images.
        cache: `auto`, `off`, or a folder for decoded images.
        cache_gb: Maximum size of the cache, in 10⁹ bytes.

    Returns:
        The images, and the files that could not be used.

    Raises:
        DataError: No image is usable, or the network was not trained on a class.
    """
    source = open_data(data)
    source = source if isinstance(source, Source) else find_source(source)
    records = [r for r in source.records if split is None or r.split == split]
    if not records:
        raise DataError(f"'{source.name}' has no {split} split", where=source.root)
    unknown = sorted({r.label for r in records} - set(labels.names))
    if unknown:
        what = f"the network lacks these classes: {', '.join(unknown[:5])}"
        fix = f"the network has these classes: {', '.join(labels.names[:20])}"
        raise DataError(what, where=source.root, fix=fix)
    source = apply_split(source, {r.path: split or "test" for r in records})
    store = open_cache(cache, cache_gb)
    scan = scan_images(source, store.file_index if store else None)
    decoded = decode_source(source, scan, [preprocess], store)
    skipped = (*source.quarantined, *scan.skipped, *decoded.skipped)
    _check_any(decoded.index, skipped, source)
    usable = [source.records[i] for i in decoded.index]
    numbers = [labels.index(record.label) for record in usable]
    paths = [record.path for record in usable]
    return Subset.of(decoded.pixels[0], numbers, paths), skipped
