"""Scan and decode any source: image files, arrays, or a torch Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from striate.core.errors import SettingError
from striate.core.preprocess_config import Preprocess
from striate.data.cache.cache_folder import Cache
from striate.data.cache.decode_dataset import DecodedSet, decode_images
from striate.data.config import DataConfig
from striate.data.file_index import FileIndex
from striate.data.image_data import ImageData
from striate.data.scan import FileScan, Tick, scan_files
from striate.data.sources.source import Source
from striate.data.torch_dataset.pixels import DatasetPixels, read_pixels
from striate.data.torch_dataset.source import DatasetSource


def scan_images(source: Source, index: FileIndex | None = None) -> FileScan:
    """Return the scan of a source; for a torch Dataset, it has only the image sizes."""
    if isinstance(source, DatasetSource):
        headers = tuple(info.header for info in source.items.infos)
        return FileScan(headers=headers, hashes=("",) * len(headers))
    return scan_files(source, index)


def decode_source(
    source: Source,
    scan: FileScan,
    sizes: Sequence[Preprocess],
    cache: Cache | None = None,
    tick: Tick | None = None,
) -> DecodedSet:
    """Return the decoded images of a source at each of the given input sizes.

    Raises:
        DataError: An item of a data set cannot be used.
    """
    if not isinstance(source, DatasetSource):
        return decode_images(source, scan, sizes, cache, tick)
    pixels = tuple(read_pixels(source.items, size) for size in sizes)
    for rows in pixels:
        if isinstance(rows, DatasetPixels):
            rows.workers = source.workers
    return DecodedSet(
        index=tuple(range(len(source.items))),
        pixels=pixels,
        contents=tuple(info.content for info in source.items.infos),
    )


def dataset_facts(source: Source, data: ImageData) -> dict[str, Any]:
    """Return values for the `ImageData` fields that only torch Datasets fill."""
    if not isinstance(source, DatasetSource):
        return {}
    return {
        "notes": (*source.notes, *data.notes),
        "inexact": source.inexact,
        "batch_size": source.batch_size,
    }


def dataset_preprocess(source: Source, config: DataConfig) -> Preprocess | None:
    """Return a preprocessing that keeps float tensors unchanged; None for 8-bit images.

    Raises:
        SettingError: A setting would change the tensors.
    """
    if not isinstance(source, DatasetSource) or not source.items.is_float:
        return None
    items = source.items
    header = items.infos[0].header
    shape = header.height, header.width
    size = config.image_size
    unchanged = {
        "image_size": size in (None, shape) or (size, size) == shape,
        "in_chans": config.in_chans in (None, header.channels),
        "normalize": config.normalize in ("auto", "data", "none"),
        "mean": config.mean is None,
        "std": config.std is None,
    }
    if changed := [name for name, same in unchanged.items() if not same]:
        what = f"{', '.join(changed)} cannot change float tensors, which are used as "
        fix = "change the transforms of the data set, or return PIL images"
        raise SettingError(f"{what}they are", where=changed[0], fix=fix)
    # mean and std for which 0–255 becomes the range of the values.
    spans = [
        (low, (high - low) or 1.0)
        for low, high in zip(items.low.tolist(), items.high.tolist(), strict=True)
    ]
    return Preprocess(
        channels=header.channels,
        height=header.height,
        width=header.width,
        mean=tuple((0.0 - low) / span for low, span in spans),
        std=tuple(1 / span for low, span in spans),
        dtype="float32",
    )
