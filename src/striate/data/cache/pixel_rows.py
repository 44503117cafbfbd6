"""Images of a part: in memory, mapped, or decoded when wanted; all asked for rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from striate.data.cache.decode_workers import Gathered
from striate.data.cache.lazy_images import LazyPixels

T = TypeVar("T")


class _End:
    """Stands behind the last item."""


_END = _End()
COPIED = 1 << 28  # bytes of a part that is held as a tensor of its own


@dataclass(frozen=True)
class SomeRows:
    """Rows of a larger tensor, in an order of their own; nothing is copied.

    Example:
        >>> held = torch.arange(6).view(6, 1, 1, 1).byte()
        >>> rows = SomeRows(held, torch.tensor([4, 2]))
        >>> rows[0].item(), rows[torch.tensor([1])].shape, len(rows)
        (4, torch.Size([1, 1, 1, 1]), 2)
    """

    pixels: Tensor = field(repr=False)
    rows: Tensor = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> torch.Size:
        """Images, height, width, channels."""
        return torch.Size((len(self), *self.pixels.shape[1:]))

    def __getitem__(self, index: int | slice | Tensor) -> Tensor:
        """Return one image (H, W, C), or those of an index (n, H, W, C)."""
        if isinstance(index, int):
            return self.pixels[int(self.rows[index])]
        # Indexing with brackets takes ten times longer (docs/notebook/augmentation.md).
        return self.pixels.index_select(0, self.rows[index])


Rows = Tensor | SomeRows | LazyPixels


def some(pixels: Rows, index: Sequence[int], most: int | None = None) -> Rows:
    """Return some of the images, in that order; many are not copied, nor decoded.

    Args:
        pixels: All of them.
        index: Which.
        most: Bytes up to which they become a tensor of their own, `COPIED` by default.
    """
    if isinstance(pixels, LazyPixels):
        return pixels.part(index)
    rows = torch.as_tensor(index, dtype=torch.int64)
    chosen = pixels if isinstance(pixels, SomeRows) else SomeRows(pixels, _all(pixels))
    chosen = SomeRows(chosen.pixels, chosen.rows[rows])
    small = chosen.shape.numel() <= (COPIED if most is None else most)
    return chosen[:] if small else chosen


def _all(pixels: Tensor) -> Tensor:
    return torch.arange(len(pixels))


def gathered(pixels: Rows, indices: Iterable[Tensor]) -> Iterator[Gathered]:
    """Yield the images of each batch, and which they are; lazy ones ahead of time."""
    if isinstance(pixels, LazyPixels):
        yield from pixels.batches(indices)
        return
    for index in indices:
        yield Gathered(taken(pixels, index), index)


def taken(pixels: Rows, index: Tensor) -> Tensor:
    """Return the images of an index; whole ones are copied, not byte by byte."""
    if isinstance(pixels, Tensor):
        return pixels.index_select(0, index)
    return pixels[index]


def standing(pixels: Rows, index: Tensor) -> SomeRows:
    """Return the images of an index where they stand; only lazy ones are made."""
    if isinstance(pixels, LazyPixels):
        pixels, index = pixels[index], torch.arange(len(index))
    if isinstance(pixels, SomeRows):
        return SomeRows(pixels.pixels, pixels.rows[index])
    return SomeRows(pixels, index)


def in_turn(
    pixels: Rows, indices: Iterable[Tensor]
) -> Iterator[tuple[SomeRows, Tensor]]:
    """Yield the images of each batch where they stand, and which they are."""
    if isinstance(pixels, LazyPixels):
        for batch in pixels.batches(indices):
            yield SomeRows(batch.pixels, _all(batch.pixels)), batch.index
        return
    for index in indices:
        yield standing(pixels, index), index


def ahead(made: Iterator[T], count: int = 2) -> Iterator[T]:
    """Yield what an iterator yields, made on a thread before it is asked for.

    Example:
        >>> list(ahead(iter("abc")))
        ['a', 'b', 'c']
    """
    waiting: deque[Future[T | _End]] = deque()
    with ThreadPoolExecutor(1) as pool:
        try:
            while True:
                while len(waiting) <= count:
                    waiting.append(pool.submit(next, made, _END))
                if isinstance(item := waiting.popleft().result(), _End):
                    return
                yield item
        finally:
            for future in waiting:
                future.cancel()
