"""Search for near-duplicates: images that are edited copies of each other.

`duplicate_candidates` proposes pairs from thumbnails. This module aligns each pair at
higher resolution (`align`), and accepts or rejects the pair. The limit depends on the
neighborhood: if many images look alike, the details must match; if no other image is
close, a copy that was compressed or shrunk is accepted too. A pair that agrees except
for some region may be a copy with a watermark, or two drawings in one style, such as E
and F in one font. Copies with such a large change are rare, so if there are many of
these pairs in a data set, they are drawings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import numpy as np

from striate.data.check.align_images import REFINED, Difference, align_and_compare
from striate.data.check.duplicate_candidates import (
    FLIPS,
    RADIUS,
    SAME,
    CandidatePairs,
    candidate_pairs,
)
from striate.data.check.duplicates import NearPair

MIN_IMAGE_SIDE = 16  # shorter side; smaller images are too similar to compare
MIN_CONTRAST = 4.0  # standard deviation of a thumbnail, in levels
STRICT_SCORE = 0.026  # score that only copies reach, in any neighborhood
LOOSE_SCORE = 0.08  # score that is enough if no other image is close
ISOLATION = 0.3  # ratio to the next distance, below which a pair is isolated
MAX_DETAIL = 0.3  # largest share of detail that may differ
REFINE_LIMIT = 0.06  # above this score a pair is not refined
REFINE_LIMIT_CLOSE = 0.12  # the same, for thumbnails as close as copies
MAX_CHANGE = 15.0  # root mean square change, in levels; measured copies: at most 14
RARE = 0.01  # largest share of images in pairs with a larger change, for copies
_CHUNK = 512

Tick = Callable[[int, int], None]
Closeup = Callable[[int], np.ndarray]


def find_near_duplicates(
    thumbs: np.ndarray, closeup: Closeup, tick: Tick | None = None
) -> list[NearPair]:
    """Return the pairs of near-duplicates among distinct images that are not blank.

    Shapes:
        thumbs (N, 32, 32)
    """
    if len(thumbs) < 2:
        return []
    candidates = candidate_pairs(thumbs)
    differences = _differences(candidates, closeup, tick)
    neighbor_distance = _neighbor_distance(candidates, differences, len(thumbs))
    isolated = candidates.distance <= ISOLATION * neighbor_distance
    limit = np.where(isolated, LOOSE_SCORE, STRICT_SCORE)
    similar = (differences.detail <= MAX_DETAIL) & (differences.score <= limit)
    accepted = _without_drawings(
        candidates, candidates.compare & similar, differences.change, len(thumbs)
    )
    best: dict[tuple[int, int], NearPair] = {}
    for k in np.flatnonzero(accepted):
        pair = NearPair(
            first=int(candidates.first[k]),
            second=int(candidates.second[k]),
            flip=FLIPS[candidates.flip[k]],
            score=round(float(differences.score[k]), 4),
        )
        previous = best.setdefault((pair.first, pair.second), pair)
        best[pair.first, pair.second] = min(previous, pair, key=lambda p: p.score)
    return sorted(best.values())


def _without_drawings(
    candidates: CandidatePairs, accepted: np.ndarray, change: np.ndarray, count: int
) -> np.ndarray:
    """Reject pairs with a large change, unless they are rare in the data set."""
    changed = accepted & (change > MAX_CHANGE)
    images = {*candidates.first[changed].tolist(), *candidates.second[changed].tolist()}
    if len(images) <= max(RARE * count, 2):
        return accepted
    return accepted & ~changed


def _neighbor_distance(
    candidates: CandidatePairs, differences: Difference, count: int
) -> np.ndarray:
    """Return the distance from each image pair to the nearest non-duplicate image."""
    different = (differences.score > LOOSE_SCORE) | (differences.detail > MAX_DETAIL)
    rejected = ~candidates.compare | different
    nearest = np.full(count, RADIUS)
    for ends in (candidates.first, candidates.second):
        np.minimum.at(nearest, ends[rejected], candidates.distance[rejected])
    return np.asarray(np.minimum(nearest[candidates.first], nearest[candidates.second]))


def searchable_positions(
    thumbs: np.ndarray, sides: Sequence[int], positions: Collection[int]
) -> np.ndarray:
    """Return the indices of images with enough size and contrast for the search."""
    large_enough = np.array([side >= MIN_IMAGE_SIDE for side in sides], bool)
    selected = np.zeros(len(thumbs), bool)
    selected[list(positions)] = True
    return np.flatnonzero(large_enough & selected & (_contrast(thumbs) >= MIN_CONTRAST))


def _contrast(thumbs: np.ndarray) -> np.ndarray:
    chunks = [thumbs[i : i + 4096] for i in range(0, len(thumbs), 4096)]
    deviations = [chunk.reshape(len(chunk), -1).std(1) for chunk in chunks]
    return np.concatenate(deviations) if deviations else np.empty(0)


def _differences(
    candidates: CandidatePairs, closeup: Closeup, tick: Tick | None
) -> Difference:
    """Return the image difference of each candidate pair; 9 for pairs not compared."""
    result = Difference.unknown(len(candidates))
    selected = np.flatnonzero(candidates.compare)
    for start in range(0, len(selected), _CHUNK):
        chunk = selected[start : start + _CHUNK]
        close = candidates.distance[chunk] <= SAME
        differences = _difference(
            closeup,
            candidates.first[chunk],
            candidates.second[chunk],
            candidates.flip[chunk],
            np.where(close, REFINE_LIMIT_CLOSE, REFINE_LIMIT),
        )
        result.put(chunk, differences)
        if tick:
            tick(min(start + _CHUNK, len(selected)), len(selected))
    return result


def _difference(
    closeup: Closeup,
    first: np.ndarray,
    second: np.ndarray,
    flips: np.ndarray,
    limit: np.ndarray,
) -> Difference:
    """Return the difference of the two images of each pair, computed in batches."""
    stacks: dict[object, dict[int, tuple[np.ndarray, np.ndarray]]] = defaultdict(dict)
    for k, (i, j, flip) in enumerate(zip(first, second, flips, strict=True)):
        a, b = closeup(int(i)), closeup(int(j))
        if flip:
            b = np.flip(b, 1 if FLIPS[flip] == "left-right" else 0)
        a, b = (a, b) if a.size >= b.size else (b, a)  # the larger one is warped
        stacks[a.shape, b.shape][k] = a, b
    result = Difference.unknown(len(first))
    for pairs in stacks.values():
        members = np.array(list(pairs))
        a, b = (np.stack(side) for side in zip(*pairs.values(), strict=True))
        result.put(members, _rough_then_refined(a, b, limit[members]))
    return result


def _rough_then_refined(a: np.ndarray, b: np.ndarray, limit: np.ndarray) -> Difference:
    """Compare aligned image pairs; align uncertain pairs again with more iterations."""
    result = align_and_compare(a, b)
    doubtful = (result.score > STRICT_SCORE) | (result.change > MAX_CHANGE)
    uncertain = np.flatnonzero(doubtful & (result.score < limit))
    for moving, fixed in ((a, b), (b, a)):
        if not len(uncertain):
            break
        refined = align_and_compare(moving[uncertain], fixed[uncertain], REFINED)
        change = np.minimum(refined.change, result.change[uncertain])
        better = refined.score < result.score[uncertain]
        result.put(uncertain[better], refined, better)
        result.change[uncertain] = change
    return result
