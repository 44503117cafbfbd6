"""One part of a data set: pixels, labels and where each image came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from striate.data.cache.pixel_rows import Rows, some, taken


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Images of the training, validation or test split.

    Args:
        pixels: (N, H, W, C) uint8 at the input size.
        labels: (N,) int64 class numbers.
        paths: Where each image came from, as `split.csv` writes it.
        larger: The same images with room for crops, where they are held so.
        blocks: Where runs of images begin and end that lie together and are shown
            in mixed runs, not one by one; empty where any order is as good.
    """

    pixels: Rows = field(repr=False)
    labels: Tensor = field(repr=False)
    paths: Sequence[str] = field(repr=False)
    larger: Rows | None = field(default=None, repr=False)
    blocks: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        pixels: Rows,
        labels: Sequence[int],
        paths: Sequence[str],
        larger: Rows | None = None,
    ) -> Subset:
        """Make a part from class numbers and paths in plain sequences."""
        numbers = torch.tensor(labels, dtype=torch.int64)
        return cls(pixels=pixels, labels=numbers, paths=tuple(paths), larger=larger)

    def take(self, index: Sequence[int]) -> Subset:
        """Return a part of the images at these positions."""
        larger = None if self.larger is None else some(self.larger, index, most=0)
        return Subset(
            pixels=some(self.pixels, index),
            labels=self.labels[list(index)],
            paths=tuple(self.paths[i] for i in index),
            larger=larger,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def gather(self, index: Tensor) -> Tensor:
        """Return the pixels of some images, (n, H, W, C).

        Whole images are copied at once, where `pixels[index]` goes byte by byte.
        """
        return taken(self.pixels, index)
