"""Images of one split: pixels, labels and paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from striate.data.cache.image_rows import PixelRows, gather_rows, take_rows


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Images of the training, validation or test split."""

    pixels: PixelRows = field(repr=False)  # (N, H, W, C) uint8 at the input size
    # (N,) int64 class indices; for several labels (N, classes) uint8, multi-hot
    labels: Tensor = field(repr=False)
    paths: Sequence[str] = field(repr=False)  # path of each image, as in `split.csv`
    # The same images at a larger size, for random crops.
    larger: PixelRows | None = field(default=None, repr=False)
    # (start, end) indices of the images in each shard. Shuffling keeps blocks together.
    blocks: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    # Content hash of each image, for images that are compared with those of a run.
    contents: Sequence[str] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        pixels: PixelRows,
        labels: Sequence[int] | np.ndarray,
        paths: Sequence[str],
        larger: PixelRows | None = None,
    ) -> Subset:
        """Create a subset from class indices, or multi-hot rows, and paths."""
        numbers = torch.as_tensor(np.asarray(labels))
        numbers = numbers if numbers.ndim == 2 else numbers.long()
        return cls(pixels=pixels, labels=numbers, paths=tuple(paths), larger=larger)

    def take(self, index: Sequence[int]) -> Subset:
        """Return a subset of the images at the given indices."""
        larger = (
            None if self.larger is None else take_rows(self.larger, index, max_bytes=0)
        )
        return Subset(
            pixels=take_rows(self.pixels, index),
            labels=self.labels[list(index)],
            paths=tuple(self.paths[i] for i in index),
            larger=larger,
        )

    def __len__(self) -> int:
        return len(self.paths)

    def gather(self, index: Tensor) -> Tensor:
        """Return the pixels of the images at the given indices, (n, H, W, C).

        Whole images are copied at once, where `pixels[index]` would copy byte by byte.
        """
        return gather_rows(self.pixels, index)
