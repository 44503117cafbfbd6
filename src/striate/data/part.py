"""One part of a data set: pixels, labels and where each picture came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures of the training, validation or test part.

    Args:
        pixels: (N, H, W, C) uint8 at the input size.
        labels: (N,) int64 class numbers.
        paths: Where each picture came from, as `split.csv` writes it.
    """

    pixels: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, pixels: Tensor, labels: Sequence[int], paths: Sequence[str]) -> Part:
        """Make a part from class numbers and paths in plain sequences."""
        numbers = torch.tensor(labels, dtype=torch.int64)
        return cls(pixels=pixels, labels=numbers, paths=tuple(paths))

    def take(self, index: Sequence[int]) -> Part:
        """Return a part of the pictures at these positions."""
        return Part(
            pixels=self.pixels[list(index)],
            labels=self.labels[list(index)],
            paths=tuple(self.paths[i] for i in index),
        )

    def __len__(self) -> int:
        return len(self.paths)
