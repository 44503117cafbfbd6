"""Batches of tensors from a part, in an order that is a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from striate.core.preprocess import Preprocess
from striate.core.seeds import permutation
from striate.data.augment.augment import Augment, augmentation
from striate.data.augment.pipeline import Batch, Views
from striate.data.balanced_sampler import balanced_order
from striate.data.cache.pixel_rows import ahead, gathered, in_turn
from striate.data.decode.preprocess import normalize
from striate.data.epoch_order import batches, mixed
from striate.data.rank_share import share
from striate.data.subset import Subset


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Whole batches gathered at once; no per-image Python, no worker processes.

    Calling it with an epoch gives that epoch's batches: the order is f(seed, epoch),
    or the part's own where `shuffle` is off; `balanced` shows every class equally
    often. A last batch of one image is merged into the one before, because batch
    norm has no variance over one.

    Of `world` processes this one, number `rank`, gets its share of every batch; which
    images a batch is made of does not depend on how many there are.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> part = Subset.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> batches = Batches(part=part, preprocess=p, batch_size=2)
        >>> [len(y) for _, y in batches(0)], len(batches)
        ([2, 3], 2)
    """

    part: Subset
    preprocess: Preprocess
    batch_size: int
    shuffle: bool = True
    balanced: bool = False
    augment: Augment | str = "none"
    classes: int = 0
    seed: int = 0
    device: torch.device | str = "cpu"
    rank: int = 0
    world: int = 1

    def __call__(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield (input, label) batches: (N, C, H, W) float32 and (N,) int64.

        Where `augment` mixes images, targets are (N, classes) float32. The first
        `start` batches are left out: no image of theirs is decoded or changed. Of
        `world` processes each gets its share of every batch, empty where there are
        fewer images than that.
        """
        if self.world == 1:
            yield from self._made(epoch, self.indices(epoch, start))
            return
        made = self._made(epoch, self._shares(epoch, start))
        for _ in range(len(self) - start):
            # Only the last batch can be too small for all; nobody cuts an empty one.
            yield next(made, None) or self._nothing

    def _shares(self, epoch: int, start: int) -> Iterator[Tensor]:
        for index in self.indices(epoch, start):
            mine = index[share(len(index), self.rank, self.world)]
            if len(mine):
                yield mine

    @property
    def _nothing(self) -> Batch:
        p = self.preprocess
        shape = 0, p.channels, p.height, p.width
        mixes = self._views is not None and self._views.augment.mixes
        y = torch.empty(0, self.classes) if mixes else torch.empty(0).long()
        return torch.empty(shape, device=self.device), y.to(self.device)

    def _made(self, epoch: int, indices: Iterable[Tensor]) -> Iterator[Batch]:
        views = self._views
        if views is not None and views.tape is not None:
            yield from map(views.moved(epoch), indices)
            return
        if views is None:
            for batch in gathered(self.part.pixels, indices):
                labels = self.part.labels[batch.index]
                sent = batch.pixels.to(self.device, non_blocking=True)
                ready = labels.to(self.device, non_blocking=True)
                yield normalize(sent, self.preprocess), ready
            return
        for pixels, index in self._held(views, epoch, indices):
            yield views(pixels, index, epoch)

    def _held(
        self, views: Views, epoch: int, indices: Iterable[Tensor]
    ) -> Iterator[Batch]:
        """Yield images to be changed and their numbers, crops cut ahead of time."""
        if not views.cuts:
            return ((b.pixels, b.index) for b in gathered(views.held, indices))
        batches = in_turn(views.held, indices)
        return ahead((views.ready(held, i, epoch), i) for held, i in batches)

    @cached_property
    def _views(self) -> Views | None:
        augment = self.augment
        if isinstance(augment, str):
            augment = augmentation(augment)
        if not augment.acts:
            return None
        return Views(
            part=self.part,
            preprocess=self.preprocess,
            augment=augment,
            classes=self.classes,
            seed=self.seed,
            device=self.device,
        )

    def indices(self, epoch: int = 0, start: int = 0) -> Iterable[Tensor]:
        """Return the image numbers of each batch of an epoch, the first left out."""
        if self.part.blocks:
            return islice(batches(self._runs(epoch), self.batch_size), start, None)
        return self._order(epoch)[start:]

    def _runs(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the numbers of images that lie in blocks, as many as are mixed."""
        if self.shuffle:
            return mixed(self.part.blocks, self.seed, epoch)
        return (np.arange(*block) for block in self.part.blocks)

    def _order(self, epoch: int) -> list[Tensor]:
        count = len(self.part)
        order = torch.arange(count)
        if self.shuffle:
            order = torch.from_numpy(permutation(count, self.seed, "order", epoch))
        if self.balanced:
            labels = self.part.labels.numpy()
            order = torch.from_numpy(balanced_order(labels, self.seed, epoch))
        found = list(torch.split(order, self.batch_size))
        if self.batch_size > 1 and len(found) > 1 and len(found[-1]) == 1:
            found[-2:] = [torch.cat(found[-2:])]
        return found

    def __len__(self) -> int:
        full, rest = divmod(len(self.part), self.batch_size)
        merged = rest == 1 and full > 0
        return full + (rest > 0 and not merged)

    @property
    def images(self) -> int:
        """Return how many images an epoch shows."""
        return len(self.part)
