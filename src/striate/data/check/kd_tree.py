"""Exact radius search with a k-d tree: all pairs of points within a distance.

Points are sorted into the leaves of a k-d tree. Two leaves whose bounding boxes are
further apart than `reach` contain no pair; the others cost one matrix product each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LEAF_SIZE = 512
AXES = 8  # principal axes of the bounding boxes
LEAVES_PER_BLOCK = 8  # leaves in one matrix product
MAX_PENDING = 16  # pairs per point in memory before pruning

# Rows (P, 4, d) for the points at these positions, see `descriptor.tangent_projection`.
Tangents = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class PointPairs:
    """Pairs of point indices with their squared distances, each pair once."""

    first: np.ndarray
    second: np.ndarray
    square: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def pairs_within_radius(
    points: np.ndarray,  # (N, d)
    radius: float,
    keep: int,
    *,
    others: np.ndarray | None = None,  # (N, d) second points; default `points`
    tangents: Tangents | None = None,  # directions that add no distance
    reach: float | None = None,  # largest Euclidean distance; default `radius`
) -> PointPairs:
    """Return point pairs within `radius`: for each point, its `keep` nearest neighbors.

    Example:
        >>> line = np.array([[0.0], [0.1], [1.0], [1.05]], np.float32)
        >>> pairs = pairs_within_radius(line, 0.2, 3)
        >>> list(zip(pairs.first.tolist(), pairs.second.tolist()))
        [(0, 1), (2, 3)]
    """
    second_points = points if others is None else others
    nearest = _NearestPairs(len(points), radius, keep)
    if not len(points):
        return nearest.result()
    limit = (radius if reach is None else reach) ** 2
    first_rows, second_rows = _augmented_rows(points, second_points)
    tangent_rows: np.ndarray | None = None  # blocks of one leaf follow each other
    for rows, columns in _blocks(points, second_points, limit**0.5):
        square = (first_rows[rows] @ second_rows[columns].T).ravel()
        close = np.flatnonzero(square <= limit)
        row, column = np.divmod(close, len(columns))
        square, first, second = square[close], rows[row], columns[column]
        if tangents is not None and len(row):
            if tangent_rows is not rows:
                directions, tangent_rows = tangents(rows), rows
                first_along = np.einsum("pkd,pd->pk", directions, points[rows])
            along = np.einsum("pkd,pd->pk", directions[row], second_points[second])
            along -= first_along[row]
            square -= np.einsum("pk,pk->p", along, along)
        nearest.add(first, second, square, same=rows is columns)
    return nearest.result()


def _augmented_rows(
    first_rows: np.ndarray, second_points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays whose row dot products are the squared distances of points."""
    ones = np.ones((len(first_rows), 1), first_rows.dtype)
    squares = [(x**2).sum(1, keepdims=True) for x in (first_rows, second_points)]
    first_rows = np.concatenate([-2 * first_rows, squares[0], ones], 1)
    second_rows = np.concatenate([second_points, ones, squares[1]], 1)
    return first_rows, second_rows


def _blocks(
    points: np.ndarray, others: np.ndarray, reach: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of index blocks; every point pair within `reach` is covered once."""
    axes = principal_axes(points, AXES)
    flat = points @ axes
    leaves = _leaves(flat, np.arange(len(points)))
    low, high = _boxes(flat, leaves)
    their_low, their_high = _boxes(others @ axes, leaves)

    # Each leaf with itself first: the nearest pairs are there, and once every point
    # has some, few others are near enough to be kept.
    def distances(i: int, others: slice) -> np.ndarray:
        """Return the distances from the box of leaf `i` to the boxes `others`."""
        gap = np.maximum(their_low[others] - high[i], low[i] - their_high[others])
        return np.asarray(np.sqrt((np.maximum(gap, 0) ** 2).sum(1)))

    for i, rows in enumerate(leaves):
        if distances(i, slice(i, i + 1)) <= reach:
            yield rows, rows
    for i, rows in enumerate(leaves):
        near = np.flatnonzero(distances(i, slice(i + 1, None)) <= reach) + i + 1
        for start in range(0, len(near), LEAVES_PER_BLOCK):
            block = near[start : start + LEAVES_PER_BLOCK]
            yield rows, np.concatenate([leaves[j] for j in block])


def principal_axes(points: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` principal axes (PCA) of the points, (d, ≤ count)."""
    sample = points[:: max(1, len(points) // 20_000)]
    centered = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centered.T @ centered)
    return np.ascontiguousarray(vectors[:, ::-1][:, :count])


def _leaves(flat: np.ndarray, index: np.ndarray) -> list[np.ndarray]:
    if len(index) <= LEAF_SIZE:
        return [index] if len(index) else []
    coordinates = flat[index]
    widest = int((coordinates.max(0) - coordinates.min(0)).argmax())
    order = np.argsort(coordinates[:, widest], kind="stable")
    middle = len(index) // 2
    first_rows, second_rows = index[order[:middle]], index[order[middle:]]
    return _leaves(flat, first_rows) + _leaves(flat, second_rows)


def _boxes(flat: np.ndarray, leaves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    low = np.stack([flat[leaf].min(0) for leaf in leaves])
    high = np.stack([flat[leaf].max(0) for leaf in leaves])
    return low, high


class _NearestPairs:
    """Collector of point pairs that keeps only the nearest pairs of every point."""

    def __init__(self, count: int, radius: float, keep: int) -> None:
        self.keep = keep
        self.limits = np.full(count, radius**2, np.float32)
        self.batches: list[PointPairs] = []
        self.pending = 0

    def add(
        self, first: np.ndarray, second: np.ndarray, square: np.ndarray, same: bool
    ) -> None:
        """Add pairs; set `same` if each pair is given in both orders."""
        limit = np.maximum(self.limits[first], self.limits[second])
        mask = square <= limit
        if same:
            mask &= first < second
        self.batches.append(PointPairs(first[mask], second[mask], square[mask]))
        self.pending += int(mask.sum())
        if self.pending > MAX_PENDING * len(self.limits):
            self.batches = [self.result()]
            self.pending = len(self.batches[0])

    def result(self) -> PointPairs:
        """Return pairs in which one point is a nearest neighbor of the other point."""
        if not self.batches:
            none = np.empty(0, np.int64)
            return PointPairs(none, none, np.empty(0, np.float32))
        first = np.concatenate([pairs.first for pairs in self.batches])
        second = np.concatenate([pairs.second for pairs in self.batches])
        square = np.maximum(np.concatenate([pairs.square for pairs in self.batches]), 0)
        mask = self._is_among_nearest(first, second, square)
        return PointPairs(first[mask], second[mask], square[mask])

    def _is_among_nearest(
        self, first: np.ndarray, second: np.ndarray, square: np.ndarray
    ) -> np.ndarray:
        """Return a mask of the pairs to keep, and lower each point's distance limit."""
        ends = np.concatenate([first, second])
        both = np.concatenate([square, square])
        rank = rank_by_distance(ends, both)
        is_last = rank == self.keep - 1
        last = ends[is_last]
        self.limits[last] = np.minimum(self.limits[last], both[is_last])
        among_nearest = rank < self.keep
        return np.asarray(among_nearest[: len(first)] | among_nearest[len(first) :])


def rank_by_distance(ends: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Rank the distances of each point; the smallest distance has rank 0.

    Example:
        >>> rank_by_distance(np.array([7, 7, 2]), np.array([0.5, 0.1, 9.0])).tolist()
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
