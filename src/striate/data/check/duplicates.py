"""Equal images, and those that differ only as copies do.

What `lookalikes` proposes is laid over each other (`align`). What may pass depends on
how crowded it is there: where many images look alike, only a copy that matches in its
details; where nothing else does, one that was compressed or shrunk as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from striate.data.check.align import PATIENT, Difference, compare
from striate.data.check.near_duplicates import (
    MIRRORS,
    RADIUS,
    SAME,
    Lookalikes,
    lookalikes,
)

SMALLEST = 16  # side below which two images cannot be told from two alike ones
CONTRAST = 4.0  # levels of deviation below which a thumbnail shows nothing
SURE = 0.026  # score that only copies reach, whatever stands around them
LIKELY = 0.08  # enough where nothing else looks alike
ALONE = 0.3  # of the distance of the nearest other: then nothing else looks alike
DETAIL = 0.3  # most of the detail that may differ
WORTH = 0.06  # score above which a more patient look is not worth it
WORTH_SAME = 0.12  # the same, where the thumbnails are as close as copies
_CHUNK = 512

Tick = Callable[[int, int], None]
Closeup = Callable[[int], np.ndarray]


@dataclass(frozen=True, slots=True, order=True)
class NearPair:
    """Two positions whose images are copies of each other, but not to the pixel.

    Args:
        first: A position.
        second: A higher one.
        mirror: How the second is mirrored: '', 'left-right' or 'top-bottom'.
        score: How much differs; 0 is nothing, see `align`.
    """

    first: int
    second: int
    flip: str
    score: float


def equal_groups(contents: Sequence[str]) -> list[list[int]]:
    """Return positions of equal content, in groups of two and more.

    Example:
        >>> equal_groups(["x", "y", "x", "z"])
        [[0, 2]]
    """
    places: dict[str, list[int]] = defaultdict(list)
    for position, content in enumerate(contents):
        places[content].append(position)
    return [group for group in places.values() if len(group) > 1]


def linked_groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return groups of positions that pairs hold together.

    Example:
        >>> linked_groups(5, [(0, 3), (3, 4)])
        [[0, 3, 4]]
    """
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for first, second in pairs:
        parent[root(second)] = root(first)
    members: dict[int, list[int]] = defaultdict(list)
    for i in range(count):
        members[root(i)].append(i)
    return sorted(group for group in members.values() if len(group) > 1)


def near_pairs(
    thumbs: np.ndarray, closeup: Closeup, tick: Tick | None = None
) -> list[NearPair]:
    """Find copies among images of which no two are equal and none is blank.

    Args:
        thumbs: Gray thumbnails of all images.
        closeup: Returns a position's gray image, as fine as is at hand.
        tick: Called with (done, all) now and then.

    Shapes:
        thumbs (N, 32, 32)
    """
    if len(thumbs) < 2:
        return []
    alike = lookalikes(thumbs)
    found = _differences(alike, closeup, tick)
    crowd = _crowd(alike, found, len(thumbs))
    lonely = alike.distance <= ALONE * crowd
    limit = np.where(lonely, LIKELY, SURE)
    copies = alike.worthy & (found.detail <= DETAIL) & (found.score <= limit)
    best: dict[tuple[int, int], NearPair] = {}
    for k in np.flatnonzero(copies):
        pair = NearPair(
            first=int(alike.first[k]),
            second=int(alike.second[k]),
            flip=MIRRORS[alike.flip[k]],
            score=round(float(found.score[k]), 4),
        )
        held = best.setdefault((pair.first, pair.second), pair)
        best[pair.first, pair.second] = min(held, pair, key=lambda one: one.score)
    return sorted(best.values())


def _crowd(alike: Lookalikes, found: Difference, count: int) -> np.ndarray:
    """Return for each pair how close the next image is that is no copy of either."""
    other = ~alike.worthy | (found.score > LIKELY) | (found.detail > DETAIL)
    nearest = np.full(count, RADIUS)
    for ends in (alike.first, alike.second):
        np.minimum.at(nearest, ends[other], alike.distance[other])
    return np.asarray(np.minimum(nearest[alike.first], nearest[alike.second]))


def searchable(
    thumbs: np.ndarray, sides: Sequence[int], among: Collection[int]
) -> np.ndarray:
    """Return positions of images that show enough to be told from alike ones.

    Args:
        thumbs: (N, 32, 32).
        sides: Each image's shorter side.
        among: Positions in question.
    """
    large = np.array([side >= SMALLEST for side in sides], bool)
    asked = np.zeros(len(thumbs), bool)
    asked[list(among)] = True
    return np.flatnonzero(large & asked & (_contrast(thumbs) >= CONTRAST))


def _contrast(thumbs: np.ndarray) -> np.ndarray:
    chunks = [thumbs[i : i + 4096] for i in range(0, len(thumbs), 4096)]
    found = [chunk.reshape(len(chunk), -1).std(1) for chunk in chunks]
    return np.concatenate(found) if found else np.empty(0)


def _differences(alike: Lookalikes, closeup: Closeup, tick: Tick | None) -> Difference:
    """Compare the pairs that are worth it; the others stay at 9, which is unlike."""
    residual, detail = np.full(len(alike), 9.0), np.full(len(alike), 9.0)
    worthy = np.flatnonzero(alike.worthy)
    for start in range(0, len(worthy), _CHUNK):
        part = worthy[start : start + _CHUNK]
        found = _difference(
            closeup,
            alike.first[part],
            alike.second[part],
            alike.flip[part],
            np.where(alike.distance[part] <= SAME, WORTH_SAME, WORTH),
        )
        residual[part], detail[part] = found.residual, found.detail
        if tick:
            tick(min(start + _CHUNK, len(worthy)), len(worthy))
    return Difference(residual=residual, detail=detail)


def _difference(
    closeup: Closeup,
    first: np.ndarray,
    second: np.ndarray,
    mirror: np.ndarray,
    limit: np.ndarray,
) -> Difference:
    """Compare pairs of images, those of equal sizes at once."""
    stacks: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
    ours: list[np.ndarray] = []
    theirs: list[np.ndarray] = []
    for k, (i, j, way) in enumerate(zip(first, second, mirror, strict=True)):
        a, b = closeup(int(i)), closeup(int(j))
        if way:
            b = np.flip(b, 1 if MIRRORS[way] == "left-right" else 0)
        a, b = (a, b) if a.size >= b.size else (b, a)  # the finer one is warped
        ours.append(a)
        theirs.append(b)
        stacks[a.shape, b.shape].append(k)
    residual, detail = np.empty(len(first)), np.empty(len(first))
    for members in stacks.values():
        a = np.stack([ours[k] for k in members])
        b = np.stack([theirs[k] for k in members])
        found = _closest_look(a, b, limit[members])
        residual[members], detail[members] = found.residual, found.detail
    return Difference(residual=residual, detail=detail)


def _closest_look(a: np.ndarray, b: np.ndarray, limit: np.ndarray) -> Difference:
    """Look quickly; where a copy is possible but not sure, patiently, both ways."""
    quick = compare(a, b)
    residual, detail = quick.residual, quick.detail
    unsure = np.flatnonzero((quick.score > SURE) & (quick.score < limit))
    for one, other in ((a, b), (b, a)):
        if not len(unsure):
            break
        look = compare(one[unsure], other[unsure], PATIENT)
        better = look.score < np.sqrt(residual[unsure] * detail[unsure])
        residual[unsure[better]] = look.residual[better]
        detail[unsure[better]] = look.detail[better]
    return Difference(residual=residual, detail=detail)
