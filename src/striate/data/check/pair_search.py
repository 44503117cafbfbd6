"""All close pairs among many points: exact, by blocks that geometry cannot rule out.

Points are sorted into the leaves of a k-d tree. Two leaves whose bounding boxes lie
further apart than `reach` hold no pair; all others are one matrix product each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LEAF = 512
AXES = 8  # principal directions that bound a leaf
WIDTH = 8  # leaves in one matrix product
PENDING = 16  # pairs held a point before the worse ones are dropped

# Rows (P, 4, d) for the points at these positions, see `descriptor.whitened`.
Tangents = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pairs:
    """Pairs of positions with their squared distance, each pair once."""

    first: np.ndarray
    second: np.ndarray
    square: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def close_pairs(
    points: np.ndarray,
    radius: float,
    keep: int,
    *,
    others: np.ndarray | None = None,
    tangents: Tangents | None = None,
    reach: float | None = None,
) -> Pairs:
    """Return pairs within `radius` that are among the `keep` closest of either end.

    Args:
        points: (N, d).
        radius: Largest distance.
        keep: Pairs kept for each point, the closest.
        others: (N, d) how the second of a pair is seen (mirrored); as the points
            themselves where not given.
        tangents: Directions of the first of a pair that cost nothing; plain distance
            where not given.
        reach: Largest plain distance of a pair; the radius where not given.

    Example:
        >>> line = np.array([[0.0], [0.1], [1.0], [1.05]], np.float32)
        >>> found = close_pairs(line, 0.2, 3)
        >>> list(zip(found.first.tolist(), found.second.tolist()))
        [(0, 1), (2, 3)]
    """
    theirs = points if others is None else others
    best = _Best(len(points), radius, keep)
    if not len(points):
        return best.result()
    limit = (radius if reach is None else reach) ** 2
    ours, mine = _widened(points, theirs)
    at_hand: np.ndarray | None = None  # blocks of one leaf follow each other
    for rows, columns in _blocks(points, theirs, limit**0.5):
        at, to, square = _within(ours[rows], mine[columns], limit)
        first, second = rows[at], columns[to]
        if tangents is not None and len(at):
            if at_hand is not rows:
                free, at_hand = tangents(rows), rows
                own = np.einsum("pkd,pd->pk", free, points[rows])
            along = np.einsum("pkd,pd->pk", free[at], theirs[second])
            along -= own[at]
            square -= np.einsum("pk,pk->p", along, along)
        best.offer(first, second, square, same=rows is columns)
    return best.result()


def _widened(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return rows whose products are squared distances: a² − 2ab + b²."""
    one = np.ones((len(ours), 1), ours.dtype)
    squares = [(x**2).sum(1, keepdims=True) for x in (ours, theirs)]
    left = np.concatenate([-2 * ours, squares[0], one], 1)
    right = np.concatenate([theirs, one, squares[1]], 1)
    return left, right


def _within(
    ours: np.ndarray, theirs: np.ndarray, limit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and squared distances of what is within the limit."""
    square = (ours @ theirs.T).ravel()
    close = np.flatnonzero(square <= limit)
    return close // len(theirs), close % len(theirs), square[close]


def _blocks(
    points: np.ndarray, others: np.ndarray, reach: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows, columns) that hold every pair within reach, each pair once."""
    axes = _principal(points)
    flat = points @ axes
    leaves = _leaves(flat, np.arange(len(points)))
    low, high = _boxes(flat, leaves)
    their_low, their_high = _boxes(others @ axes, leaves)
    # Each leaf with itself first: the closest pairs lie there, and once every point
    # has some, few others are close enough to be held.
    for i, rows in enumerate(leaves):
        if (
            _apart(low[i], high[i], their_low[i : i + 1], their_high[i : i + 1])
            <= reach
        ):
            yield rows, rows
    for i, rows in enumerate(leaves):
        after = slice(i + 1, None)
        gap = _apart(low[i], high[i], their_low[after], their_high[after])
        near = np.flatnonzero(gap <= reach) + i + 1
        for start in range(0, len(near), WIDTH):
            yield rows, np.concatenate([leaves[j] for j in near[start : start + WIDTH]])


def _apart(
    low: np.ndarray, high: np.ndarray, their_low: np.ndarray, their_high: np.ndarray
) -> np.ndarray:
    """Return the distance of one box from others."""
    gap = np.maximum(np.maximum(their_low - high, low - their_high), 0)
    return np.asarray(np.sqrt((gap**2).sum(1)))


def _principal(points: np.ndarray) -> np.ndarray:
    """Return (d, ≤ 8) directions in which the points vary most."""
    sample = points[:: max(1, len(points) // 20_000)]
    centerd = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centerd.T @ centerd)
    return np.ascontiguousarray(vectors[:, ::-1][:, :AXES])


def _leaves(flat: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    if len(index) <= LEAF:
        return [index] if len(index) else []
    here = flat[index]
    widest = int((here.max(0) - here.min(0)).argmax())
    order = np.argsort(here[:, widest], kind="stable")
    middle = len(index) // 2
    left, right = index[order[:middle]], index[order[middle:]]
    return _leaves(flat, left) + _leaves(flat, right)


def _boxes(flat: np.ndarray, leaves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    low = np.stack([flat[leaf].min(0) for leaf in leaves])
    high = np.stack([flat[leaf].max(0) for leaf in leaves])
    return low, high


class _Best:
    """The closest pairs of every point so far; what is worse is dropped in time."""

    def __init__(self, count: int, radius: float, keep: int) -> None:
        self.keep = keep
        self.worst = np.full(count, radius**2, np.float32)
        self.held: list[Pairs] = []
        self.pending = 0

    def offer(
        self, first: np.ndarray, second: np.ndarray, square: np.ndarray, same: bool
    ) -> None:
        """Take pairs in; within one leaf (`same`) each pair comes from both sides."""
        limit = np.maximum(self.worst[first], self.worst[second])
        kept = square <= limit
        if same:
            kept &= first < second
        self.held.append(Pairs(first[kept], second[kept], square[kept]))
        self.pending += int(kept.sum())
        if self.pending > PENDING * len(self.worst):
            self.held = [self.result()]
            self.pending = len(self.held[0])

    def result(self) -> Pairs:
        """Return the pairs that are among the closest of either end."""
        if not self.held:
            none = np.empty(0, np.int64)
            return Pairs(none, none, np.empty(0, np.float32))
        first = np.concatenate([pairs.first for pairs in self.held])
        second = np.concatenate([pairs.second for pairs in self.held])
        square = np.maximum(np.concatenate([pairs.square for pairs in self.held]), 0)
        kept = self._among_best(first, second, square)
        return Pairs(first[kept], second[kept], square[kept])

    def _among_best(
        self, first: np.ndarray, second: np.ndarray, square: np.ndarray
    ) -> np.ndarray:
        """Tell which are; note each end's last place as its new limit."""
        ends = np.concatenate([first, second])
        twice = np.concatenate([square, square])
        rank = closest(ends, twice)
        last = rank == self.keep - 1
        self.worst[ends[last]] = np.minimum(self.worst[ends[last]], twice[last])
        good = rank < self.keep
        return np.asarray(good[: len(first)] | good[len(first) :])


def closest(ends: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Rank each distance among those of the same end, from 0 for the smallest.

    Example:
        >>> closest(np.array([7, 7, 2]), np.array([0.5, 0.1, 9.0])).tolist()
        [1, 0, 0]
    """
    # One integer to sort by: the bits of a positive float sort as the float does.
    bits = np.ascontiguousarray(distances, np.float32).view(np.uint32)
    order = np.argsort(ends.astype(np.uint64) << np.uint64(32) | bits)
    in_order = ends[order]
    starts = np.searchsorted(in_order, in_order, side="left")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - starts
    return rank
