"""Which images of a large set look alike, mirrored or not: candidates for copies.

Two sieves. The closest points of all images, by tangent distance, find what a crop,
brightness, size and compression did; the halves alone find what a watermark left. Then
each pair's crop is fitted, and only the closest of each image stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.data.check.descriptor import (
    describe,
    halves,
    mirrored,
    points_of,
    settle,
    whitened,
)
from striate.data.check.pair_search import close_pairs, closest

RADIUS = 0.25  # of the first sieve
REACH = 0.36  # plain distance that a crop may cause
HALF_RADIUS = 0.03  # what is not under the watermark has hardly changed
CLOSEST = 4  # kept for each image by the first sieve
SAME = 0.04  # distance with the crop fitted that nearly only copies have
CLOSE = 0.1  # that nearly every copy has
FAR = 0.2  # that of a copy under a faint mark all over
FINALIZTS = 1  # of each image's close ones, compared
APART = 0.8  # of the next one's distance: then nothing else is as close
DIMENSIONS = 32  # of 64, the principal ones
MIRRORS = ("", "left-right", "top-bottom")
UNCROPPED = ("top-bottom",)  # rare: only whole copies are looked for, which is cheap
UNCROPPED_RADIUS = 0.12
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
        worthy: Whether the images themselves are worth comparing; the others only
            tell how crowded it is.
    """

    first: np.ndarray
    second: np.ndarray
    flip: np.ndarray
    distance: np.ndarray
    worthy: np.ndarray

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
    for number, axis in enumerate(_AXES):
        others = mirrored(points, axis) @ axes if axis else None
        if MIRRORS[number] in UNCROPPED:
            rough = close_pairs(flat, UNCROPPED_RADIUS, CLOSEST, others=others)
        else:
            rough = close_pairs(
                flat, RADIUS, CLOSEST, others=others, tangents=tangents, reach=REACH
            )
        distance = _settled(thumbs, rough.first, rough.second, axis)
        found.append(_columns(rough.first, rough.second, number, distance))
    for half in halves(thumbs):
        rough = close_pairs(half, HALF_RADIUS, 2)
        found.append(_columns(rough.first, rough.second, 0, None))
    return _united(np.concatenate(found, 1), len(thumbs))


def _principal(points: np.ndarray) -> np.ndarray:
    """Return (64, 32) axes along which the points vary most."""
    sample = points[:: max(1, len(points) // 20_000)]
    centerd = sample - sample.mean(0)
    _, vectors = np.linalg.eigh(centerd.T @ centerd)
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


def _columns(
    first: np.ndarray, second: np.ndarray, number: int, distance: np.ndarray | None
) -> np.ndarray:
    """Stack pairs as (low, high, mirror, distance, half); halves have no distance."""
    half = distance is None
    if distance is None:
        distance = np.full(len(first), RADIUS)
    # A mirrored pair reads the same from both ends: mirroring undoes itself.
    low, high = np.minimum(first, second), np.maximum(first, second)
    same = np.full(len(low), number), distance, np.full(len(low), half)
    return np.stack([low, high, *same]).astype(np.float64)


def _united(rows: np.ndarray, count: int) -> Lookalikes:
    """Keep each pair once, and tell which of them are worth comparing."""
    order = np.lexsort((rows[3], rows[2], rows[1], rows[0]))
    rows = rows[:, order]
    new = np.ones(rows.shape[1], bool)
    new[1:] = (np.diff(rows[:3], axis=1) != 0).any(0)
    half = np.zeros(0)
    if rows.size:
        half = np.maximum.reduceat(rows[4], np.flatnonzero(new))
    rows = rows[:, new]
    first, second = rows[0].astype(np.int64), rows[1].astype(np.int64)
    distance = rows[3]
    ends = np.concatenate([first, second])
    rank = closest(ends, np.tile(distance, 2))
    following = np.full(count, RADIUS)
    following[ends[rank == 1]] = np.tile(distance, 2)[rank == 1]
    rank = np.minimum(rank[: len(first)], rank[len(first) :])
    limit = APART * np.maximum(following[first], following[second])
    close = (distance <= CLOSE) & (rank < FINALIZTS)
    lonely = (distance <= FAR) & (rank < 1) & (distance <= limit)
    return Lookalikes(
        first=first,
        second=second,
        flip=rows[2].astype(np.int64),
        distance=distance,
        worthy=(distance <= SAME) | close | lonely | (half > 0),
    )
