"""The order of an epoch: a function of seed and epoch, whatever is held where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from striate.core.seeds import permutation

# Images that are mixed with one another where they lie in blocks: thousands, so that
# neighbors of a shard meet others, few enough to be nothing in memory.
MIXED = 16_384


def batches(runs: Iterator[np.ndarray], size: int) -> Iterator[Tensor]:
    """Cut runs of numbers into batches; a last batch of one joins the one before.

    Example:
        >>> runs = iter([np.array([3, 1, 2]), np.array([5, 4])])
        >>> [batch.tolist() for batch in batches(runs, 2)]
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
