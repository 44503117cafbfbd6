"""Which pictures of a large set look alike, mirrored or not: candidates for copies.

Two sieves. The closest points of all pictures, by tangent distance, find what a crop,
brightness, size and compression did; the halves alone find what a watermark left. Then
each pair's crop is fitted, and only the closest of each picture stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.data.descriptor import (
    describe,
    halves,
    mirrored,
    points_of,
    settle,
    whitened,
)
from striate.data.neighbours import close_pairs, closest

RADIUS = 0.25  # of the first sieve
REACH = 0.36  # plain distance that a crop may cause
HALF_RADIUS = 0.03  # what is not under the watermark has hardly changed
HALVES_AGREE = 0.125  # distance written for such a pair: not close, yet kept
CLOSEST = 6  # kept for each picture by the first sieve
CLOSE = 0.1  # settled distance of nearly every copy
FAR = 0.2  # that of one under a faint mark all over, if nothing else is as close
APART = 0.8  # of the distance of the others around: then nothing else is as close
FINALISTS = 2  # kept for each picture by the second sieve
DIMENSIONS = 32  # of 64, the principal ones
MIRRORS = ("", "left-right", "top-bottom")
_AXES = (0, 2, 1)
_CHUNK = 2048


@dataclass(frozen=True)
class Lookalikes:
    """Pairs of positions that look alike.

    Args:
        first: Position of one.
        second: Position of the other.
        mirror: Number in MIRRORS: how the second is mirrored.
        distance: How unlike the thumbnails are once the crop is fitted.
        crowd: How far the last of the closest pictures around either is: small where
            many pictures look alike.
    """

    first: np.ndarray
    second: np.ndarray
    mirror: np.ndarray
    distance: np.ndarray
    crowd: np.ndarray

    def __len__(self) -> int:
        return len(self.first)


def lookalikes(thumbs: np.ndarray) -> Lookalikes:
    """Return the pairs of thumbnails, (N, 32, 32), that may be copies of each other."""
    points = points_of(thumbs)
    axes = _principal(points)
    flat = points @ axes

    def tangents(rows: np.ndarray) -> np.ndarray:
        return whitened(describe(thumbs[rows]).slopes @ axes)

    found = []
    crowd = np.full(len(thumbs), RADIUS, np.float32)
    for number, axis in enumerate(_AXES):
        others = mirrored(points, axis) @ axes if axis else None
        rough = close_pairs(
            flat, RADIUS, CLOSEST, others=others, tangents=tangents, reach=REACH
        )
        distance = _settled(thumbs, rough.first, rough.second, axis)
        if not axis:
            crowd = _crowd(rough.first, rough.second, distance, len(thumbs))
        near = distance <= FAR
        found.append(_columns(rough.first, rough.second, number, distance)[:, near])
    for half in halves(thumbs):
        rough = close_pairs(half, HALF_RADIUS, 2)
        distance = np.full(len(rough), HALVES_AGREE, np.float32)
        found.append(_columns(rough.first, rough.second, 0, distance))
    return _finalists(np.concatenate(found, 1), crowd)


def _principal(points: np.ndarray) -> np.ndarray:
    """Return (64, 32) axes along which the points vary most."""
    sample = points[:: max(1, len(points) // 20_000)]
    centred = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.ascontiguousarray(vectors[:, ::-1][:, :DIMENSIONS])


def _settled(
    thumbs: np.ndarray, first: np.ndarray, second: np.ndarray, axis: int
) -> np.ndarray:
    """Return the pairs' distance with the crop fitted, a few thousand at a time."""
    distances = [np.empty(0, np.float32)]
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        theirs = thumbs[second[part]]
        if axis:
            theirs = np.flip(theirs, axis)
        distances.append(settle(thumbs[first[part]], theirs))
    return np.concatenate(distances)


def _crowd(
    first: np.ndarray, second: np.ndarray, distance: np.ndarray, count: int
) -> np.ndarray:
    """Return how far each picture's CLOSEST-th neighbour is, at most RADIUS."""
    crowd = np.full(count, RADIUS, np.float32)
    ends = np.concatenate([first, second])
    twice = np.concatenate([distance, distance])
    rank = closest(ends, twice)
    last = rank == CLOSEST - 1
    crowd[ends[last]] = np.minimum(RADIUS, twice[last])
    return crowd


def _columns(
    first: np.ndarray, second: np.ndarray, number: int, distance: np.ndarray
) -> np.ndarray:
    low, high = np.minimum(first, second), np.maximum(first, second)
    # A mirrored pair reads the same from both ends: mirroring undoes itself.
    return np.stack([low, high, np.full_like(low, number), distance]).astype(np.float64)


def _finalists(rows: np.ndarray, crowd: np.ndarray) -> Lookalikes:
    """Keep each pair once, and of those the closest of either end."""
    rows = rows[:, np.argsort(rows[3], kind="stable")]
    if rows.size:
        rows = rows[:, np.unique(rows[:3], axis=1, return_index=True)[1]]
    first, second = rows[0].astype(np.int64), rows[1].astype(np.int64)
    around = np.minimum(crowd[first], crowd[second])
    rank = closest(np.concatenate([first, second]), np.tile(rows[3], 2))
    rank = np.minimum(rank[: len(first)], rank[len(first) :])
    near = (rows[3] <= CLOSE) & (rank < FINALISTS)
    apart = (rank < 1) & (rows[3] <= APART * around)
    kept = near | apart | (rows[3] == HALVES_AGREE)
    return Lookalikes(
        first=first[kept],
        second=second[kept],
        mirror=rows[2, kept].astype(np.int64),
        distance=rows[3, kept],
        crowd=around[kept],
    )
