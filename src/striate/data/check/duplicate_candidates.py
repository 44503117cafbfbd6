"""Candidate pairs of near-duplicates: similar thumbnails, including flipped ones.

The nearest descriptors by tangent distance find copies that were cropped, resized,
compressed or changed in brightness; descriptors of the upper and lower half find copies
with a watermark. Then the crop of each pair is fitted, and the closest pairs are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.data.check.descriptor import (
    aligned_distance,
    describe_thumbnails,
    descriptor_points,
    flipped_points,
    half_descriptors,
    tangent_projection,
)
from striate.data.check.kd_tree import (
    pairs_within_radius,
    principal_axes,
    rank_by_distance,
)

RADIUS = 0.25  # of the descriptor search
MAX_PLAIN_DISTANCE = 0.36  # Euclidean distance that a crop can cause
HALF_RADIUS = 0.03  # the half without the watermark has hardly changed
NEIGHBORS = 4  # pairs kept for each image
SAME = 0.04  # aligned distance that almost only copies have
CLOSE = 0.1  # aligned distance of almost every copy
FAR = 0.2  # aligned distance of a copy with a faint watermark
COMPARED = 1  # close pairs of each image that are compared at higher resolution
ISOLATION = 0.8  # ratio to the next distance, below which a pair is isolated
DIMENSIONS = 32  # principal components of 64
FLIPS = ("", "left-right", "top-bottom")
# Rare, so only uncropped copies are searched, which is cheap.
UNCROPPED_FLIPS = ("top-bottom",)
UNCROPPED_RADIUS = 0.12
_AXES = (0, 2, 1)
_CHUNK = 2048


@dataclass(frozen=True)
class CandidatePairs:
    """Pairs of similar thumbnails, as arrays over the pairs."""

    first: np.ndarray  # index of the first image; the lower index of the pair
    second: np.ndarray  # index of the second image
    flip: np.ndarray  # index into FLIPS: flip of the second image
    distance: np.ndarray  # distance of the thumbnails after the crop is fitted
    # whether to compare the pair at higher resolution. The other pairs only show how
    # many images look similar
    compare: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def candidate_pairs(thumbs: np.ndarray) -> CandidatePairs:
    """Return pairs of thumbnails, (N, 32, 32), that may be near-duplicates."""
    points = descriptor_points(thumbs)
    axes = principal_axes(points, DIMENSIONS)
    projected = points @ axes

    def tangents(rows: np.ndarray) -> np.ndarray:
        return tangent_projection(describe_thumbnails(thumbs[rows]).slopes @ axes)

    columns = []
    for number, axis in enumerate(_AXES):
        flipped = flipped_points(points, axis) @ axes if axis else None
        uncropped = FLIPS[number] in UNCROPPED_FLIPS
        pairs = pairs_within_radius(
            projected,
            UNCROPPED_RADIUS if uncropped else RADIUS,
            NEIGHBORS,
            others=flipped,
            tangents=None if uncropped else tangents,
            reach=None if uncropped else MAX_PLAIN_DISTANCE,
        )
        distance = _aligned_distances(thumbs, pairs.first, pairs.second, axis)
        columns.append(_pair_columns(pairs.first, pairs.second, number, distance))
    for half in half_descriptors(thumbs):
        pairs = pairs_within_radius(half, HALF_RADIUS, 2)
        columns.append(_pair_columns(pairs.first, pairs.second, 0, None))
    return _merge(np.concatenate(columns, 1), len(thumbs))


def _aligned_distances(
    thumbs: np.ndarray, first: np.ndarray, second: np.ndarray, axis: int
) -> np.ndarray:
    """Return the distances of thumbnail pairs after alignment, in chunks."""
    distances = [np.empty(0, np.float32)]
    for start in range(0, len(first), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        fixed = thumbs[second[chunk]]
        fixed = np.flip(fixed, axis) if axis else fixed
        distances.append(aligned_distance(thumbs[first[chunk]], fixed))
    return np.concatenate(distances)


def _pair_columns(
    first: np.ndarray, second: np.ndarray, number: int, distance: np.ndarray | None
) -> np.ndarray:
    """Return a (5, n) array: low index, high index, flip, distance, half-image flag."""
    is_half = distance is None
    if distance is None:
        distance = np.full(len(first), RADIUS)
    # A flipped pair is the same from both ends: a flip is its own inverse.
    low, high = np.minimum(first, second), np.maximum(first, second)
    constants = np.full(len(low), number), distance, np.full(len(low), is_half)
    return np.stack([low, high, *constants]).astype(np.float64)


def _merge(rows: np.ndarray, count: int) -> CandidatePairs:
    """Remove repeated pairs, and mark the pairs to compare at higher resolution."""
    order = np.lexsort((rows[3], rows[2], rows[1], rows[0]))
    rows = rows[:, order]
    is_new = np.ones(rows.shape[1], bool)
    is_new[1:] = (np.diff(rows[:3], axis=1) != 0).any(0)
    is_half = np.zeros(0)
    if rows.size:
        is_half = np.maximum.reduceat(rows[4], np.flatnonzero(is_new))
    rows = rows[:, is_new]
    first, second = rows[0].astype(np.int64), rows[1].astype(np.int64)
    distance = rows[3]
    ends, distances = np.concatenate([first, second]), np.tile(distance, 2)
    rank = rank_by_distance(ends, distances)
    next_distance = np.full(count, RADIUS)
    next_distance[ends[rank == 1]] = distances[rank == 1]
    rank = np.minimum(rank[: len(first)], rank[len(first) :])
    next_distance = np.maximum(next_distance[first], next_distance[second])
    isolated = (distance <= FAR) & (rank < 1) & (distance <= ISOLATION * next_distance)
    close = (distance <= CLOSE) & (rank < COMPARED)
    return CandidatePairs(
        first=first,
        second=second,
        flip=rows[2].astype(np.int64),
        distance=distance,
        compare=(distance <= SAME) | close | isolated | (is_half > 0),
    )
