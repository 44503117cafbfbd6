"""Batches of tensors from a part held in memory, in an order that is a function."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from striate.core.seeds import permutation
from striate.core.spec import Preprocess
from striate.data.augment import mirror, mirrored
from striate.data.part import Part
from striate.data.preprocess import normalise

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Whole batches gathered at once; no per-picture Python, no worker processes.

    Calling it with an epoch gives that epoch's batches: the order is f(seed, epoch),
    or the part's own where `shuffle` is off. A last batch of one picture is merged
    into the one before, because batch norm has no variance over one.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> part = Part.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> batches = Batches(part=part, preprocess=p, batch_size=2)
        >>> [len(y) for _, y in batches(0)], len(batches)
        ([2, 3], 2)
    """

    part: Part
    preprocess: Preprocess
    batch_size: int
    shuffle: bool = True
    augment: str = "none"
    seed: int = 0
    device: torch.device | str = "cpu"

    def __call__(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield (input, label) batches: (N, C, H, W) float32 and (N,) int64.

        The first `start` are left out, and cost nothing.
        """
        flips = None
        if self.augment == "mirror":
            flips = mirrored(len(self.part), epoch, self.seed)
        for index in self.indices(epoch)[start:]:
            pixels = self.part.pixels[index].to(self.device, non_blocking=True)
            if flips is not None:
                pixels = mirror(pixels, flips[index].to(self.device))
            labels = self.part.labels[index].to(self.device, non_blocking=True)
            yield normalise(pixels, self.preprocess), labels

    def indices(self, epoch: int = 0) -> list[Tensor]:
        """Return the picture numbers of each batch of an epoch."""
        count = len(self.part)
        order = torch.arange(count)
        if self.shuffle:
            order = torch.from_numpy(permutation(count, self.seed, "order", epoch))
        batches = list(torch.split(order, self.batch_size))
        if self.batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def __len__(self) -> int:
        full, rest = divmod(len(self.part), self.batch_size)
        merged = rest == 1 and full > 0
        return full + (rest > 0 and not merged)

    @property
    def pictures(self) -> int:
        """Return how many pictures an epoch shows."""
        return len(self.part)
