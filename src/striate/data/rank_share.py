"""Whose images of a batch are whose, where several processes learn as one."""

from __future__ import annotations


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
