"""Numbers of images and classes of a data set, and the median image size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from striate.data.decode.decode import ImageHeader, read_header, without_pillow_warnings
from striate.data.decode.file_bytes import UndecodableError
from striate.data.find_source import find_source
from striate.data.shards.tars import is_shards
from striate.data.sources.remote import is_remote
from striate.data.sources.source import Source

MAX_HEADERS = 200  # files that are read


@dataclass(frozen=True, kw_only=True)
class DatasetSize:
    """Numbers of images and classes, and the image size, which decide the training.

    Example:
        >>> dataset_size("digits")
        DatasetSize(images=1797, classes=10, side=8)
    """

    images: int  # number of files, damaged ones included
    classes: int
    side: int  # median over the images of the shorter side, in pixels


def dataset_size(data: str | Path) -> DatasetSize | None:
    """Return the size of a data set; None for tar shards and network addresses.

    At most `MAX_HEADERS` files are read, spread evenly over the data set.

    Raises:
        DataError: The data set does not exist, or its layout is not supported.
    """
    if is_shards(data) or is_remote(str(data)):
        return None
    source = find_source(data)
    headers = list(_headers(source))
    if not headers:  # `load_data` reports why no image is usable
        return None
    return DatasetSize(
        images=len(source.records),
        classes=len(source.labels.count(record.label for record in source.records)),
        side=int(statistics.median(min(h.height, h.width) for h in headers)),
    )


def _headers(source: Source) -> Iterator[ImageHeader]:
    if source.arrays is not None:
        height, width, channels = source.arrays.shape[1:]
        yield ImageHeader(height, width, channels)
        return
    count = len(source.records)
    step = max(1, count // MAX_HEADERS)
    with without_pillow_warnings():
        for index in range(0, count, step):
            try:
                yield read_header(source.payload(index))
            except UndecodableError:
                continue
