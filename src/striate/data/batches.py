"""Data loader: batches of a subset, in an order that depends on seed and epoch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from striate.core.preprocess_config import Preprocess
from striate.core.seeds import permutation
from striate.data.augment.augment import Augment, augmentation
from striate.data.augment.pipeline import AugmentPipeline, Batch
from striate.data.cache.image_rows import batch_pixels, batch_rows, prefetched
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset

# Images that are shuffled together where they lie in blocks: thousands, so that
# neighbors in a shard are separated, yet few enough to need little memory.
SHUFFLE_BUFFER = 16_384


@dataclass(frozen=True, kw_only=True)
class Batches:
    """Data loader that gathers whole batches at once, without worker processes.

    A call with an epoch yields the batches of that epoch. The order depends only on
    seed and epoch, or is the subset's order if `shuffle` is False. With `balanced`,
    every class is shown equally often. A last batch of one image is merged into the
    batch before, because batch norm has no variance over one image.

    With several processes, each process gets a part of every batch. The images of a
    batch do not depend on the number of processes.

    Example:
        >>> pixels = torch.zeros(5, 2, 2, 1, dtype=torch.uint8)
        >>> subset = Subset.of(pixels, [0, 1, 0, 1, 0], list("abcde"))
        >>> p = Preprocess(channels=1, height=2, width=2, mean=(0.0,), std=(1.0,))
        >>> batches = Batches(subset=subset, preprocess=p, batch_size=2)
        >>> [len(y) for _, y in batches(0)], len(batches)
        ([2, 3], 2)
    """

    subset: Subset  # images and labels
    # Mean and standard deviation that images are normalized with.
    preprocess: Preprocess
    batch_size: int  # images per batch
    shuffle: bool = True  # draw a new order in each epoch
    balanced: bool = False  # draw every class equally often
    augment: Augment | str = "none"  # data augmentation, or the name of a preset
    classes: int = 0  # number of classes; needed for mixup and CutMix
    seed: int = 0  # seed of the order and the augmentation
    device: torch.device | str = "cpu"  # device of the tensors
    rank: int = 0  # index of this process
    world_size: int = 1  # number of processes

    def __call__(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield (input, label) batches: (N, C, H, W) float32 and (N,) int64.

        With mixup or CutMix, targets are (N, classes) float32; with several labels per
        image, they are (N, classes) uint8. The first `start`
        batches are skipped: their images are neither decoded nor augmented. A process
        gets an empty batch if there are too few images for all processes.
        """
        if self.world_size == 1:
            yield from self._batches_at(epoch, self.indices(epoch, start))
            return
        batches = self._batches_at(epoch, self._rank_indices(epoch, start))
        for _ in range(len(self) - start):
            # Only the last batch can be too small to give every process a share.
            yield next(batches, None) or self._empty_batch

    def _rank_indices(self, epoch: int, start: int) -> Iterator[Tensor]:
        for index in self.indices(epoch, start):
            own = index[rank_slice(len(index), self.rank, self.world_size)]
            if len(own):
                yield own

    @property
    def _empty_batch(self) -> Batch:
        p = self.preprocess
        shape = 0, p.channels, p.height, p.width
        mixes = self._views is not None and self._views.augment.mixes_images
        y = torch.empty(0, self.classes) if mixes else self.subset.labels[:0]
        return torch.empty(shape, device=self.device), y.to(self.device)

    def _batches_at(self, epoch: int, indices: Iterable[Tensor]) -> Iterator[Batch]:
        views = self._views
        if views is not None and views.shift_buffer is not None:
            yield from map(views.shifted_batches(epoch), indices)
            return
        if views is None:
            for batch in batch_pixels(self.subset.pixels, indices):
                labels = self.subset.labels[batch.index]
                sent = batch.pixels.to(self.device, non_blocking=True)
                ready = labels.to(self.device, non_blocking=True)
                yield normalize(sent, self.preprocess), ready
            return
        for pixels, index in self._prefetched_pixels(views, epoch, indices):
            yield views(pixels, index, epoch)

    def _prefetched_pixels(
        self, views: AugmentPipeline, epoch: int, indices: Iterable[Tensor]
    ) -> Iterator[Batch]:
        """Yield batches of images to augment and of image indices, read ahead."""
        if not views.crops_larger:
            return (
                (b.pixels, b.index) for b in batch_pixels(views.source_pixels, indices)
            )
        batches = batch_rows(views.source_pixels, indices)
        return prefetched(
            (views.crop_to_input(pixels, i, epoch), i) for pixels, i in batches
        )

    @cached_property
    def _views(self) -> AugmentPipeline | None:
        augment = self.augment
        if isinstance(augment, str):
            augment = augmentation(augment)
        if not augment.is_active:
            return None
        return AugmentPipeline(
            subset=self.subset,
            preprocess=self.preprocess,
            augment=augment,
            classes=self.classes,
            seed=self.seed,
            device=self.device,
        )

    def indices(self, epoch: int = 0, start: int = 0) -> Iterable[Tensor]:
        """Return the image indices of each batch in an epoch, from batch `start` on."""
        if self.subset.blocks:
            return islice(cut_batches(self._runs(epoch), self.batch_size), start, None)
        return self._order(epoch)[start:]

    def _runs(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the image indices of an epoch, one shuffle buffer at a time."""
        if self.shuffle:
            return shuffled_blocks(self.subset.blocks, self.seed, epoch)
        return (np.arange(*block) for block in self.subset.blocks)

    def _order(self, epoch: int) -> list[Tensor]:
        count = len(self.subset)
        order = torch.arange(count)
        if self.shuffle:
            order = torch.from_numpy(permutation(count, self.seed, "order", epoch))
        if self.balanced:
            labels = self.subset.labels.numpy()
            order = torch.from_numpy(balanced_order(labels, self.seed, epoch))
        batches = list(torch.split(order, self.batch_size))
        if self.batch_size > 1 and len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def __len__(self) -> int:
        full, rest = divmod(len(self.subset), self.batch_size)
        merged = rest == 1 and full > 0
        return full + (rest > 0 and not merged)

    @property
    def images(self) -> int:
        """Return the number of images in an epoch."""
        return len(self.subset)


def cut_batches(runs: Iterator[np.ndarray], size: int) -> Iterator[Tensor]:
    """Split image indices into batches; a single leftover image joins the last batch.

    Example:
        >>> runs = iter([np.array([3, 1, 2]), np.array([5, 4])])
        >>> [batch.tolist() for batch in cut_batches(runs, 2)]
        [[3, 1], [2, 5, 4]]
    """
    rest = np.empty(0, np.int64)
    for run in runs:
        rest = np.concatenate([rest, run])
        # One batch and one image wait, in case nothing follows.
        while len(rest) > size + 1:
            yield torch.from_numpy(rest[:size])
            rest = rest[size:]
    if size == 1 and len(rest) == 2:
        yield torch.from_numpy(rest[:1])
        rest = rest[1:]
    if len(rest):
        yield torch.from_numpy(rest)


def batches_in_order(
    subset: Subset, preprocess: Preprocess, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Return the batches of a subset once, in order and without augmentation."""
    return Batches(
        subset=subset, preprocess=preprocess, batch_size=batch_size, shuffle=False
    )(0)


def shuffled_blocks(
    # (start, end) indices of each block of neighboring images.
    blocks: Sequence[tuple[int, int]],
    seed: int,  # seed of the run
    epoch: int,  # epoch, counted from 0
) -> Iterator[np.ndarray]:
    """Shuffle blocks of image indices, then the indices within each buffer of blocks.

    Example:
        >>> (run,) = shuffled_blocks([(0, 3), (3, 5)], seed=0, epoch=0)
        >>> sorted(run.tolist())
        [0, 1, 2, 3, 4]
    """
    group: list[np.ndarray] = []
    number = 0
    for k in permutation(len(blocks), seed, "blocks", epoch).tolist():
        group.append(np.arange(*blocks[k]))
        if sum(map(len, group)) >= SHUFFLE_BUFFER:
            yield _shuffled(group, seed, epoch, number)
            group, number = [], number + 1
    if group:
        yield _shuffled(group, seed, epoch, number)


def _shuffled(
    group: Sequence[np.ndarray], seed: int, epoch: int, number: int
) -> np.ndarray:
    together = np.concatenate(group)
    # A single block may exceed the buffer: then it is shuffled as a whole.
    shuffled: np.ndarray = together[
        permutation(len(together), seed, "order", epoch, number)
    ]
    return shuffled


def balanced_order(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Return the image indices of an epoch that shows each class equally often.

    The images of each class form an endless sequence of shuffles. Each epoch takes the
    next part of each sequence, 1/C of the epoch long (C classes). Over the epochs, all
    images of a class are shown equally often, with a difference of at most one. A large
    class is spread over several epochs; a small class repeats within an epoch.

    Example:
        >>> order = balanced_order(np.array([0, 0, 0, 0, 0, 1]), 0, 0)
        >>> sorted(order.tolist()).count(5), len(order)
        (3, 6)
    """
    numbers, starts = np.unique(np.sort(labels), return_index=True)
    classes = np.split(np.argsort(labels, kind="stable"), starts[1:])
    begins, ends = (
        _first_places(len(labels) * e, len(classes)) for e in (epoch, epoch + 1)
    )
    rows = [
        _class_order(members, begin, end, seed, int(number))
        for members, begin, end, number in zip(
            classes, begins, ends, numbers, strict=True
        )
    ]
    together = np.concatenate(rows)
    order: np.ndarray = together[permutation(len(together), seed, "balanced", epoch)]
    return order


def _first_places(images: int, classes: int) -> list[int]:
    """Divide `images` among classes as evenly as possible; return the counts."""
    return [(images + classes - 1 - c) // classes for c in range(classes)]


def _class_order(
    members: np.ndarray, begin: int, end: int, seed: int, label: int
) -> np.ndarray:
    """Return elements `begin` to `end` of a class's endless shuffled image sequence."""
    size = len(members)
    rounds = range(begin // size, -(-end // size))
    shuffles = [
        members[permutation(size, seed, "balanced", label, turn)] for turn in rounds
    ]
    first = begin - rounds.start * size
    return np.concatenate(shuffles)[first : first + end - begin]


def rank_slice(count: int, rank: int, world_size: int) -> slice:
    """Return the slice of a batch for one rank; ranks get nearly equal image counts.

    No rank gets a single image, because batch norm has no variance over one image,
    unless the batch has only one. With fewer than two images per rank, the last ranks
    get none.

    Example:
        >>> [rank_slice(64, rank, 3) for rank in range(3)]
        [slice(0, 22, None), slice(22, 43, None), slice(43, 64, None)]
        >>> [rank_slice(5, rank, 3) for rank in range(3)]
        [slice(0, 3, None), slice(3, 5, None), slice(5, 5, None)]
    """
    takers = max(1, min(world_size, count // 2))
    if rank >= takers:
        return slice(count, count)
    each, over = divmod(count, takers)
    first = rank * each + min(rank, over)
    return slice(first, first + each + (rank < over))
