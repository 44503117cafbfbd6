"""Image descriptor of 64 numbers, robust to small crops, brightness and noise.

The inner part of a thumbnail is blurred, averaged to 8×8, centered and normalized:
brightness, compression and resizing hardly change it. A crop changes it a lot, but in
few directions: the derivatives by shift and stretch. The tangent distance measures only
what is orthogonal to them.

Simard, LeCun, Denker: "Efficient pattern recognition using a new transformation
distance" (NIPS 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.data.check.fingerprint import THUMB as SIDE
from striate.data.check.fingerprint import area_matrix

GRID = 8
MARGIN = 3  # thumbnail pixels ignored on every side: frames, and what a crop removes
NOISE_LEVEL = 6.0  # levels: smaller contrast is noise, and must not be amplified
WARP_COUNT = 4  # shift and stretch along both axes
SHIFT_SCALE = 0.02  # shift as a share of the side that costs as much as NOISE
NOISE = 0.05
WARPS = 2  # times that a thumbnail is warped to align it
_CHUNK = 4096


@dataclass(frozen=True)
class Descriptors:
    """Image descriptors, and their derivatives with respect to shift and stretch."""

    points: np.ndarray  # (N, 64) descriptors, of length at most one
    # (N, 4, 64) derivatives by shift and stretch along both axes, in units of the image
    # size
    slopes: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def _operators(rows: slice, cells: int) -> np.ndarray:
    """Return (3, cells, 32): matrices of blurred mean and its two derivatives."""
    pixel = np.arange(SIDE)
    blur = np.zeros((SIDE, SIDE))
    for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        blur[pixel, np.clip(pixel + offset, 0, SIDE - 1)] += weight
    blur = blur @ blur
    slope = np.gradient(np.eye(SIDE), axis=0) * SIDE
    position = np.diag((pixel + 0.5) / SIDE * 2 - 1)
    average = np.zeros((cells, SIDE))
    average[:, rows] = area_matrix(rows.stop - rows.start, cells)
    derivatives = [average @ slope @ blur, average @ position @ slope @ blur]
    return np.stack([average @ blur, *derivatives]).astype(np.float32)


_INNER = slice(MARGIN, SIDE - MARGIN)
_FULL = _operators(_INNER, GRID)
_TOP = _operators(slice(MARGIN, 14), GRID // 2)[0]
_BOTTOM = _operators(slice(18, SIDE - MARGIN), GRID // 2)[0]


def describe_thumbnails(thumbs: np.ndarray) -> Descriptors:
    """Return the descriptors of thumbnails, and the derivatives of the descriptors.

    Shapes:
        (N, 32, 32) → points (N, 64), slopes (N, 4, 64)

    Example:
        >>> ramp = np.tile(np.arange(32.0) * 8, (1, 32, 1))
        >>> first, second = (descriptor_points(x) for x in (ramp, ramp + 20))
        >>> bool(abs(first - second).max() < 1e-6)
        True
    """
    flat = np.asarray(thumbs, np.float32)
    # (N, 32, 24) = thumbs times the three operators of the columns side by side.
    across = flat @ _FULL.reshape(-1, SIDE).T
    across = across.reshape(len(flat), SIDE, 3, GRID)
    planes = [_FULL[0] @ across[:, :, k] for k in range(3)]
    planes += [_FULL[k] @ across[:, :, 0] for k in (1, 2)]
    stacked = np.stack(planes, 1).reshape(len(flat), 1 + WARP_COUNT, -1)
    stacked -= stacked.mean(2, keepdims=True)
    points, length = _unit(stacked[:, 0])
    slopes = stacked[:, 1:] / length[:, None]
    # A change along the point itself is a change of contrast, already normalized.
    slopes -= (slopes @ points[:, :, None]) * points[:, None]
    return Descriptors(points=points, slopes=slopes)


def half_descriptors(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return separate descriptors of the upper and lower half of each thumbnail.

    A watermark usually changes only one of the two halves.

    Shapes:
        (N, 32, 32) → twice (N, 32)
    """
    flat = np.asarray(thumbs, np.float32)
    across = flat @ _FULL[0].T
    top, bottom = _TOP @ across, _BOTTOM @ across
    return _centered_unit(top), _centered_unit(bottom)


def _centered_unit(cells: np.ndarray) -> np.ndarray:
    flat = cells.reshape(len(cells), -1)
    return _unit(flat - flat.mean(1, keepdims=True))[0]


def _unit(centered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = (centered**2).sum(1, keepdims=True)
    length = np.sqrt(power + NOISE_LEVEL**2 * centered.shape[1])
    return centered / length, length


def descriptor_points(thumbs: np.ndarray) -> np.ndarray:
    """Return the descriptors of many thumbnails, in chunks, without derivatives."""
    chunks = range(0, len(thumbs), _CHUNK)
    points = [describe_thumbnails(thumbs[i : i + _CHUNK]).points for i in chunks]
    return np.concatenate(points) if points else np.empty((0, GRID * GRID), np.float32)


def flipped_points(points: np.ndarray, axis: int) -> np.ndarray:
    """Flip descriptors as if images were flipped; axis 1: top-bottom, 2: left-right."""
    grid = points.reshape(-1, GRID, GRID)
    return np.asarray(np.flip(grid, axis).reshape(len(points), -1))


def tangent_projection(slopes: np.ndarray) -> np.ndarray:
    """Return matrices M: a difference e has squared tangent distance ‖e‖² − ‖M e‖².

    Here e is the difference of two descriptors. Large shifts are penalized: M = L⁻¹ J,
    with L Lᵀ = J Jᵀ + (NOISE/SHARE)².

    Shapes:
        (N, 4, d) → (N, 4, d)
    """
    return np.linalg.solve(np.linalg.cholesky(_penalized_gram(slopes)), slopes)


def _penalized_gram(slopes: np.ndarray) -> np.ndarray:
    penalty = np.eye(WARP_COUNT, dtype=np.float32) * (NOISE / SHIFT_SCALE) ** 2
    return np.asarray(slopes @ slopes.transpose(0, 2, 1) + penalty)


def aligned_distance(moving: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Return distances of thumbnail pairs, the first thumbnail aligned to the second.

    These are Newton steps on the tangent distance. Each step warps the thumbnail by the
    best crop and compares again, because a single linear step is only approximate.

    Shapes:
        (P, 32, 32), (P, 32, 32) → (P,)
    """
    goal = describe_thumbnails(fixed).points
    warp = np.zeros((len(moving), WARP_COUNT), np.float32)
    warped = np.asarray(moving, np.float32)
    for step in range(WARPS + 1):
        current = describe_thumbnails(warped)
        error = (goal - current.points)[:, :, None]
        gradient = current.slopes @ error
        move = np.linalg.solve(_penalized_gram(current.slopes), gradient)
        if step < WARPS:
            warp = np.clip(warp + move[..., 0], -0.08, 0.08)
            warped = _warped(moving, warp)
    remaining = (error**2).sum((1, 2)) - (gradient * move).sum((1, 2))
    return np.asarray(np.sqrt(np.maximum(remaining, 0)))


def _warped(thumbs: np.ndarray, warp: np.ndarray) -> np.ndarray:
    across = _sampler(warp[:, 0], warp[:, 1])
    down = _sampler(warp[:, 2], warp[:, 3])
    return np.asarray(down @ thumbs @ across.transpose(0, 2, 1), np.float32)


def _sampler(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Return (P, 32, 32) interpolation matrices for a shift and a stretch."""
    position = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    offset = shift[:, None] + stretch[:, None] * (2 * position - 1)
    source = np.clip((position + offset) * SIDE - 0.5, 0, SIDE - 1)
    pixel = np.arange(SIDE, dtype=np.float32)
    return np.asarray(np.maximum(0, 1 - np.abs(source[:, :, None] - pixel)))
