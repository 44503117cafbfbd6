"""Batches of tensors from a part, in an order that is a function of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from striate.data.cache.pixel_rows import ahead, gathered, in_turn
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

# Images that are mixed with one another where they lie in blocks: thousands, so that
# neighbors of a shard meet others, few enough to be nothing in memory.
MIXED = 16_384


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
        >>> subset = Subset.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> batches = Batches(subset=subset, preprocess=p, batch_size=2)
        >>> [len(y) for _, y in batches(0)], len(batches)
        ([2, 3], 2)
    """

    subset: Subset
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
            for batch in gathered(self.subset.pixels, indices):
                labels = self.subset.labels[batch.index]
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
            subset=self.subset,
            preprocess=self.preprocess,
            augment=augment,
            classes=self.classes,
            seed=self.seed,
            device=self.device,
        )

    def indices(self, epoch: int = 0, start: int = 0) -> Iterable[Tensor]:
        """Return the image numbers of each batch of an epoch, the first left out."""
        if self.subset.blocks:
            return islice(
                batches_of_runs(self._runs(epoch), self.batch_size), start, None
            )
        return self._order(epoch)[start:]

    def _runs(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the numbers of images that lie in blocks, as many as are mixed."""
        if self.shuffle:
            return mixed(self.subset.blocks, self.seed, epoch)
        return (np.arange(*block) for block in self.subset.blocks)

    def _order(self, epoch: int) -> list[Tensor]:
        count = len(self.subset)
        order = torch.arange(count)
        if self.shuffle:
            order = torch.from_numpy(permutation(count, self.seed, "order", epoch))
        if self.balanced:
            labels = self.subset.labels.numpy()
            order = torch.from_numpy(balanced_order(labels, self.seed, epoch))
        found = list(torch.split(order, self.batch_size))
        if self.batch_size > 1 and len(found) > 1 and len(found[-1]) == 1:
            found[-2:] = [torch.cat(found[-2:])]
        return found

    def __len__(self) -> int:
        full, rest = divmod(len(self.subset), self.batch_size)
        merged = rest == 1 and full > 0
        return full + (rest > 0 and not merged)

    @property
    def images(self) -> int:
        """Return how many images an epoch shows."""
        return len(self.subset)


def batches_of_runs(runs: Iterator[np.ndarray], size: int) -> Iterator[Tensor]:
    """Cut runs of numbers into batches; a last batch of one joins the one before.

    Example:
        >>> runs = iter([np.array([3, 1, 2]), np.array([5, 4])])
        >>> [batch.tolist() for batch in batches_of_runs(runs, 2)]
        [[3, 1], [2, 5, 4]]
    """
    rest = np.empty(0, np.int64)
    for run in runs:
        rest = np.concatenate([rest, run])
        # One batch and one image stay, in case nothing follows.
        while len(rest) > size + 1:
            yield torch.from_numpy(rest[:size])
            rest = rest[size:]
    if size == 1 and len(rest) == 2:
        yield torch.from_numpy(rest[:1])
        rest = rest[1:]
    if len(rest):
        yield torch.from_numpy(rest)


def mixed(
    blocks: Sequence[tuple[int, int]], seed: int, epoch: int
) -> Iterator[np.ndarray]:
    """Yield every number of the blocks: blocks in random order, mixed a few at a time.

    Args:
        blocks: (first, end) of numbers that lie together.
        seed: Of the run.
        epoch: From 0.

    Example:
        >>> (run,) = mixed([(0, 3), (3, 5)], seed=0, epoch=0)
        >>> sorted(run.tolist())
        [0, 1, 2, 3, 4]
    """
    group: list[np.ndarray] = []
    number = 0
    for k in permutation(len(blocks), seed, "blocks", epoch).tolist():
        group.append(np.arange(*blocks[k]))
        if sum(map(len, group)) >= MIXED:
            yield _shuffled(group, seed, epoch, number)
            group, number = [], number + 1
    if group:
        yield _shuffled(group, seed, epoch, number)


def _shuffled(
    group: Sequence[np.ndarray], seed: int, epoch: int, number: int
) -> np.ndarray:
    together = np.concatenate(group)
    # A block may be large itself: it is mixed whole, which is its shard's size.
    shuffled: np.ndarray = together[
        permutation(len(together), seed, "order", epoch, number)
    ]
    return shuffled


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the image numbers of a balanced epoch, as many as there are images.

    Each class has an endless row of shuffles of its own images, and an epoch takes
    the next stretch of it, 1/C of the epoch long: over the epochs, all images of a
    class are shown equally often, to one. A large class is spread over several
    epochs; a small one repeats within one.

    Args:
        labels: (N,) class numbers.
        seed: Of the run.
        epoch: Counted from 0.

    Example:
        >>> order = balanced_order(np.array([0, 0, 0, 0, 0, 1]), 0, 0)
        >>> sorted(order.tolist()).count(5), len(order)
        (3, 6)
    """
    numbers, starts = np.unique(np.sort(labels), return_index=True)
    classes = np.split(np.argsort(labels, kind="stable"), starts[1:])
    begins, ends = (_shown(len(labels) * e, len(classes)) for e in (epoch, epoch + 1))
    drawn = [
        _row(members, begin, end, seed, int(number))
        for members, begin, end, number in zip(
            classes, begins, ends, numbers, strict=True
        )
    ]
    together = np.concatenate(drawn)
    mixed: np.ndarray = together[permutation(len(together), seed, "balanced", epoch)]
    return mixed


def _shown(images: int, classes: int) -> list[int]:
    """Return how many of so many images each class has shown; they differ by one."""
    return [(images + classes - 1 - c) // classes for c in range(classes)]


def _row(
    members: np.ndarray, begin: int, end: int, seed: int, label: int
) -> np.ndarray:
    """Return places `begin` to `end` of a class's endless row of shuffles."""
    size = len(members)
    rounds = range(begin // size, -(-end // size))
    shuffles = [
        members[permutation(size, seed, "balanced", label, turn)] for turn in rounds
    ]
    first = begin - rounds.start * size
    return np.concatenate(shuffles)[first : first + end - begin]


def share(count: int, rank: int, world: int) -> slice:
    """Return a rank's images of a batch: neighbors, as evenly as can be.

    Nobody gets a single one, over which batch norm has no variance, unless the batch is
    a single one: where the batch is too small for two each, the last ranks get none.

    Example:
        >>> [share(64, rank, 3) for rank in range(3)]
        [slice(0, 22, None), slice(22, 43, None), slice(43, 64, None)]
        >>> [share(5, rank, 3) for rank in range(3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 5, None)]
    """
    takers = max(1, min(world, count // 2))
    if rank >= takers:
        return slice(count, count)
    each, over = divmod(count, takers)
    first = rank * each + min(rank, over)
    return slice(first, first + each + (rank < over))
