"""Common access to images that are in memory, memory-mapped, or lazily decoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat
from typing import TypeVar, cast

import torch
from torch import Tensor

from striate.core.preprocess_config import Preprocess
from striate.core.read_ahead import results_in_order
from striate.data.cache.decode_workers import DecodedBatch
from striate.data.cache.lazy_images import LazyPixels
from striate.data.decode.preprocess import display_pixels

T = TypeVar("T")


MAX_COPY_BYTES = 1 << 28  # bytes up to which a subset is copied to a tensor of its own


@dataclass(frozen=True)
class IndexedRows:
    """View of selected images of a tensor, in any order, without a copy.

    Example:
        >>> held = torch.arange(6).view(6, 1, 1, 1).byte()
        >>> rows = IndexedRows(held, torch.tensor([4, 2]))
        >>> rows[0].item(), rows[torch.tensor([1])].shape, len(rows)
        (4, torch.Size([1, 1, 1, 1]), 2)
    """

    pixels: Tensor = field(repr=False)
    rows: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Return the number of images, height, width and channels."""
        return torch.Size((len(self), *self.pixels.shape[1:]))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return one image (H, W, C), or several images (n, H, W, C)."""
        if isinstance(index, int):
            return self.pixels[int(self.rows[index])]
        # Indexing with brackets takes ten times longer (docs/notebook/augmentation.md).
        return self.pixels.index_select(0, self.rows[index])


@dataclass(frozen=True)
class DisplayRows:
    """Float images as 8-bit pixels for display.

    Example:
        >>> range_ = {"mean": (0.5,), "std": (0.5,), "dtype": "float32"}
        >>> p = Preprocess(channels=1, height=1, width=1, **range_)
        >>> rows = DisplayRows(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), p)
        >>> rows[:].flatten().tolist(), rows.shape
        ([0, 255], torch.Size([2, 1, 1, 1]))
    """

    pixels: Tensor | IndexedRows | LazyPixels = field(repr=False)
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> torch.Size:
        """Return the number of images, height, width and channels."""
        return torch.Size(self.pixels.shape)

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return one image (H, W, C), or several images (n, H, W, C), uint8."""
        return display_pixels(self.pixels[index], self.preprocess)


PixelRows = Tensor | IndexedRows | LazyPixels | DisplayRows


def display_rows(pixels: PixelRows, preprocess: Preprocess) -> PixelRows:
    """Return images as 8-bit pixels for display; 8-bit images are unchanged."""
    if preprocess.is_float and not isinstance(pixels, DisplayRows):
        return DisplayRows(pixels, preprocess)
    return pixels


def take_rows(
    pixels: PixelRows, index: Sequence[int], max_bytes: int | None = None
) -> PixelRows:
    """Select images by index, in the given order; large selections are not copied."""
    if isinstance(pixels, LazyPixels):
        return pixels.take(index)
    if isinstance(pixels, DisplayRows):
        pixels = pixels[:]
    rows = torch.as_tensor(index, dtype=torch.int64)
    if isinstance(pixels, IndexedRows):
        subset = IndexedRows(pixels.pixels, pixels.rows[rows])
    else:
        subset = IndexedRows(pixels, torch.arange(len(pixels))[rows])
    small = subset.shape.numel() <= (MAX_COPY_BYTES if max_bytes is None else max_bytes)
    return subset[:] if small else subset


def batch_pixels(
    pixels: PixelRows, indices: Iterable[Tensor]
) -> Iterator[DecodedBatch]:
    """Yield pixels and image indices of each batch; prefetch lazily decoded images."""
    if isinstance(pixels, LazyPixels):
        yield from pixels.batches(indices)
        return
    for index in indices:
        yield DecodedBatch(gather_rows(pixels, index), index)


def gather_rows(pixels: PixelRows, index: Tensor) -> Tensor:
    """Copy the images at the given indices into a new tensor."""
    if isinstance(pixels, Tensor):
        return pixels.index_select(0, index)
    return pixels[index]


def index_rows(pixels: PixelRows, index: Tensor) -> IndexedRows:
    """Select images without a copy; only lazy images are decoded."""
    if isinstance(pixels, LazyPixels | DisplayRows):
        pixels, index = pixels[index], torch.arange(len(index))
    if isinstance(pixels, IndexedRows):
        return IndexedRows(pixels.pixels, pixels.rows[index])
    return IndexedRows(pixels, index)


def batch_rows(
    pixels: PixelRows, indices: Iterable[Tensor]
) -> Iterator[tuple[IndexedRows, Tensor]]:
    """Yield the images (without a copy) and the image indices of each batch."""
    if isinstance(pixels, LazyPixels):
        for batch in pixels.batches(indices):
            rows = torch.arange(len(batch.pixels))
            yield IndexedRows(batch.pixels, rows), batch.index
        return
    for index in indices:
        yield index_rows(pixels, index), index


def prefetched(items: Iterator[T]) -> Iterator[T]:
    """Prefetch up to two items of an iterator on a thread.

    Example:
        >>> list(prefetched(iter("abc")))
        ['a', 'b', 'c']
    """
    end = object()
    calls = repeat(partial(next, items, end))
    with (
        ThreadPoolExecutor(1) as pool,
        closing(results_in_order(pool, calls, ahead=2)) as results,
    ):
        for item in results:
            if item is end:
                return
            yield cast(T, item)
