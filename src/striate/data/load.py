"""Load a data set: find, scan, decode and split the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Unpack

from striate.core.class_names import ClassNames
from striate.core.device import paused_gc
from striate.core.errors import DataError, SettingError
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.core.synonyms import unknown_setting_error
from striate.data.cache.cache_folder import AUTO, DEFAULT_GB, open_cache
from striate.data.cache.decode_dataset import DecodedSet
from striate.data.cache.image_rows import take_rows
from striate.data.cache.lazy_images import LazyPixels
from striate.data.channel_stats import channel_mean_std
from striate.data.choose_preprocess import choose_preprocess
from striate.data.config import DataConfig
from striate.data.config_types import DataSettings
from striate.data.find_source import find_source
from striate.data.given_split import apply_split, missing_files
from striate.data.image_data import ImageData
from striate.data.load_options import LoadOptions
from striate.data.scan import TWO_LABELS, FileScan, label_conflicts
from striate.data.shards.load import open_shards
from striate.data.shards.tars import is_shards
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Skipped, Source
from striate.data.split.assign import assign_splits
from striate.data.split.fraction import mark_unused
from striate.data.split.hash_split import SplitConfig
from striate.data.split.jpeg_copies import merge_jpeg_hashes
from striate.data.split.split_checks import (
    check_classes,
    check_counts,
    label_notes,
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
    config: DataConfig | None = None,
    *,
    val: TorchData | None = None,
    test: TorchData | None = None,
    exact: bool = False,
    options: LoadOptions | None = None,
    **overrides: Unpack[DataSettings],
) -> ImageData:
    """Load images, check the files, and split the images into train, val and test.

    Args:
        data: A named data set, a folder, a CSV, IDX files, tar shards, a `Source`, or
            a torch `Dataset` or `DataLoader` of images with integer labels.
        config: Settings of reading, preprocessing and splitting (default: those of
            `DataConfig`).
        val: `Dataset` or `DataLoader` of the validation split.
        test: `Dataset` or `DataLoader` of the test split.
        exact: Split each class by exact counts. Adding images can then move old images
            to another split.
        options: Preprocessing and split of an earlier run, and a progress callback.
        overrides: Settings by name that replace those of `config`, such as
            `image_size=64`.

    Raises:
        DataError: The data cannot be used for training.
        SettingError: A setting has an invalid value.
        UnknownNameError: There is no such setting; names the nearest one.

    Example:
        >>> digits = load_data("digits", exact=True, val_fraction=0.1)
        >>> {name: len(split) for name, split in digits.subsets.items()}
        {'train': 1168, 'val': 179, 'test': 450}
    """
    config = _config(config or DataConfig(), overrides)
    options = options or LoadOptions()
    split_config = replace(config.split_config, exact=exact)
    earlier = _read_earlier(config.split, split_config)
    data = open_data(data, val, test, config, options.tick)
    if not isinstance(data, Source) and is_shards(data):
        shards = open_shards(data, config, split_config, options.preprocess)
        if not shards.fits:
            return shards.streamed(config.workers)
        options = LoadOptions(
            preprocess=shards.preprocess, margin=options.margin, tick=options.tick
        )
        loaded = _load(shards.as_source(), config, options, SplitConfig(), None)
        # The records carry their splits; `split_config` is what made them.
        return replace(loaded, origin=shards.origin, split_config=split_config)
    with paused_gc():
        source = data if isinstance(data, Source) else find_source(data)
        loaded = _load(source, config, options, split_config, earlier)
        return replace(loaded, origin=_origin(data))


def _config(config: DataConfig, overrides: Mapping[str, Any]) -> DataConfig:
    names = [spec.name for spec in fields(DataConfig)]
    for name in overrides:
        if name not in names:
            raise unknown_setting_error(name, names)
    lists = {k: tuple(v) for k, v in overrides.items() if isinstance(v, list)}
    return replace(config, **{**overrides, **lists})


def _load(
    source: Source,
    config: DataConfig,
    options: LoadOptions,
    split_config: SplitConfig,
    earlier: EarlierSplit | None,
) -> ImageData:
    """Scan, decode, filter and split the images of a source."""
    skipped: list[Skipped] = []
    if options.given_split is not None:
        skipped = missing_files(source, options.given_split)
        source = apply_split(source, options.given_split)
    store = open_cache(config.cache, config.cache_gb)
    scan = scan_images(source, store.file_index if store else None)
    scan = scan.check_hashes(source, options.given_hashes)
    skipped += scan.skipped
    _check_any(scan.readable, skipped, source)
    preprocess = options.preprocess or dataset_preprocess(source, config)
    preprocess = preprocess or choose_preprocess(scan, config)
    sizes = [preprocess]
    if options.margin > 1 and not preprocess.is_float:
        sizes.append(preprocess.enlarged(options.margin))
    decoded = decode_source(source, scan, sizes, store, options.tick)
    skipped += decoded.skipped
    decoded, rows_kept = _without_conflicts(source, scan, decoded, preprocess, skipped)
    images = UsableImages(
        source=source,
        scan=scan,
        decoded=decoded,
        rows_kept=rows_kept,
        skipped=skipped,
        workers=config.workers,
    )
    split_up = _split_up(images, preprocess, split_config, earlier)
    return replace(split_up, **dataset_facts(source, split_up))


@dataclass(frozen=True, kw_only=True)
class UsableImages:
    """Decoded images of a source, before they are split."""

    source: Source
    scan: FileScan
    decoded: DecodedSet
    rows_kept: Sequence[int]  # indices of decoded images without label conflicts
    skipped: Sequence[Skipped]
    workers: int  # number of decoding processes


def _without_conflicts(
    source: Source,
    scan: FileScan,
    decoded: DecodedSet,
    preprocess: Preprocess,
    skipped: list[Skipped],
) -> tuple[DecodedSet, list[int]]:
    """Return the decoded images, and the indices of images without label conflicts.

    Images with conflicting labels are appended to `skipped`.
    """
    _check_any(decoded.index, skipped, source)
    contents = merge_jpeg_hashes(
        source, scan, decoded.index, decoded.contents, preprocess
    )
    decoded = replace(decoded, contents=tuple(contents))
    records = [source.records[i] for i in decoded.index]
    conflicts = label_conflicts(records, decoded.contents)
    skipped += conflicts.values()
    rows_kept = [k for k in range(len(decoded.index)) if k not in conflicts]
    _check_any(rows_kept, skipped, source)
    return decoded, rows_kept


def _split_up(
    images: UsableImages,
    preprocess: Preprocess,
    split_config: SplitConfig,
    earlier: EarlierSplit | None,
) -> ImageData:
    """Assign splits to the usable images, and return the loaded data set."""
    source, decoded = images.source, images.decoded
    records = [source.records[decoded.index[k]] for k in images.rows_kept]
    contents = [decoded.contents[k] for k in images.rows_kept]
    multi_label = source.labels.multi_label
    texts = [record.label for record in records]
    check_counts(texts, source.labels, source.class_folders)
    if earlier is not None:
        earlier = earlier.matched_to([r.path for r in records], source.root)
    assigned = assign_splits(
        records, contents, split_config, earlier, multi_label=multi_label
    )
    left_out = assigned.left_out
    labels = check_classes(assigned.rows, source.labels, assigned.held_out)
    images = replace(
        images, rows_kept=[images.rows_kept[i] for i in assigned.positions]
    )
    hashes = [images.scan.hashes[decoded.index[k]] for k in images.rows_kept]
    marked = mark_unused(assigned.rows, split_config, multi_label)
    rows = [
        replace(row, sha256=sha256) if sha256 else row
        for row, sha256 in zip(marked, hashes, strict=True)
    ]
    subsets = {
        name: _subset(images, rows, labels, name)
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
        quarantined=(*source.quarantined, *images.skipped),
        ignored=(*source.ignored, *left_out),
        warnings=(*source.warnings, *split_warnings(rows, left_out, labels)),
        notes=(*label_notes(rows, labels), *assigned.notes),
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
    what = (
        f"no usable images among {count_text(len(source.records), 'file')}: "
        f"{counts}{first}"
    )
    fix = "use PNG, JPEG or other image files"
    if set(reasons) == {TWO_LABELS}:
        fix = "every image is in several classes: keep each image in one class only"
    raise DataError(what, where=source.root, fix=fix)


def _subset(
    images: UsableImages, rows: Sequence[SplitRow], labels: ClassNames, name: str
) -> Subset:
    members = [row for row in rows if row.split == name]
    pairs = zip(images.rows_kept, rows, strict=True)
    picked = [k for k, row in pairs if row.split == name]
    first, *larger = images.decoded.pixels
    sizes = [take_rows(first, picked)]
    # Crops are read in place: a copy would gain nothing.
    sizes += [take_rows(pixels, picked, max_bytes=0) for pixels in larger]
    for pixels in sizes:
        if isinstance(pixels, LazyPixels):
            pixels.workers = images.workers or pixels.workers
            pixels.replace_lost = name == "train"
    return Subset.of(
        sizes[0],
        labels.encode([row.label for row in members]),
        [row.path for row in members],
        sizes[1] if len(sizes) > 1 and name == "train" else None,
    )


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
    if not isinstance(source, Source):
        source = find_source(source, labels.multi_label)
    if source.labels.multi_label and not labels.multi_label:
        what = "the images have several labels, and the network predicts one class"
        fix = "evaluate a run that was trained on several labels per image"
        raise DataError(what, where=source.root, fix=fix)
    records = [r for r in source.records if split is None or r.split == split]
    if not records:
        raise DataError(f"'{source.name}' has no {split} split", where=source.root)
    unknown = sorted(labels.count(r.label for r in records).keys() - set(labels.names))
    if unknown:
        what = f"the network lacks these classes: {', '.join(unknown[:5])}"
        fix = f"the network has these classes: {', '.join(labels.names[:20])}"
        if source.class_folders:
            fix = f"use {source.class_folders}: the class folders are there"
        raise DataError(what, where=source.root, fix=fix)
    source = apply_split(source, {r.path: split or "test" for r in records})
    store = open_cache(cache, cache_gb)
    scan = scan_images(source, store.file_index if store else None)
    decoded = decode_source(source, scan, [preprocess], store)
    skipped = (*source.quarantined, *scan.skipped, *decoded.skipped)
    _check_any(decoded.index, skipped, source)
    usable = [source.records[i] for i in decoded.index]
    numbers = labels.encode([record.label for record in usable])
    paths = [record.path for record in usable]
    subset = Subset.of(decoded.pixels[0], numbers, paths)
    return replace(subset, contents=decoded.contents), skipped
