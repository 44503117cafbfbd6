"""An image in 64 numbers whose distance ignores small crops, brightness and noise.

A thumbnail's inner part is blurred and averaged to 8×8, its mean taken away and its
length made one: brightness, compression and resizing hardly move it. A crop moves it a
long way, but along few directions: the derivatives by shift and stretch. The tangent
distance measures only what is left across them.

Simard, LeCun, Denker: "Efficient pattern recognition using a new transformation
distance" (NIPS 1992).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.data.check.fingerprint import THUMB as SIDE
from striate.data.check.fingerprint import area_matrix

GRID = 8
MARGIN = 3  # thumbnail pixels left out on every side: frames, and what a crop cuts off
FLOOR = 6.0  # levels: contrast below this is noise, and must not be blown up
WARPS = 4  # shift and stretch along both axes
SHARE = 0.02  # of the side: a shift that costs as much as NOISE does
NOISE = 0.05
_CHUNK = 4096


@dataclass(frozen=True)
class Described:
    """Images as points, and the directions that small crops move them in.

    Args:
        points: (N, 64), of length at most one.
        slopes: (N, 4, 64): change of a point by shift and stretch, each a share of the
            side.
    """

    points: np.ndarray
    slopes: np.ndarray

    def __len__(self) -> int:
        return len(self.points)


def _operators(rows: slice, parts: int) -> np.ndarray:
    """Return (3, parts, 32): blurred average, its derivative by shift, by stretch."""
    pixel = np.arange(SIDE)
    blur = np.zeros((SIDE, SIDE))
    for offset, weight in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        blur[pixel, np.clip(pixel + offset, 0, SIDE - 1)] += weight
    blur = blur @ blur
    slope = np.gradient(np.eye(SIDE), axis=0) * SIDE
    place = np.diag((pixel + 0.5) / SIDE * 2 - 1)
    pick = np.zeros((parts, SIDE))
    pick[:, rows] = area_matrix(rows.stop - rows.start, parts)
    plain = [pick @ blur, pick @ slope @ blur, pick @ place @ slope @ blur]
    return np.stack(plain).astype(np.float32)


_INNER = slice(MARGIN, SIDE - MARGIN)
_FULL = _operators(_INNER, GRID)
_TOP = _operators(slice(MARGIN, 14), GRID // 2)[0]
_BOTTOM = _operators(slice(18, SIDE - MARGIN), GRID // 2)[0]


def describe(thumbs: np.ndarray) -> Described:
    """Describe thumbnails.

    Shapes:
        (N, 32, 32) → points (N, 64), slopes (N, 4, 64)

    Example:
        >>> ramp = np.tile(np.arange(32.0) * 8, (1, 32, 1))
        >>> brighter = describe(ramp + 20).points - describe(ramp).points
        >>> bool(abs(brighter).max() < 1e-6)
        True
    """
    flat = np.asarray(thumbs, np.float32)
    # (N, 32, 24) = thumbs times the three operators of the columns side by side.
    across = flat @ _FULL.reshape(-1, SIDE).T
    across = across.reshape(len(flat), SIDE, 3, GRID)
    plain = _FULL[0] @ across[:, :, 0]
    views = [
        plain,
        _FULL[0] @ across[:, :, 1],
        _FULL[0] @ across[:, :, 2],
        _FULL[1] @ across[:, :, 0],
        _FULL[2] @ across[:, :, 0],
    ]
    stacked = np.stack(views, 1).reshape(len(flat), 1 + WARPS, -1)
    stacked -= stacked.mean(2, keepdims=True)
    points, length = _unit(stacked[:, 0])
    slopes = stacked[:, 1:] / length[:, None]
    # What lies along the point itself is a change of contrast, already divided out.
    slopes -= (slopes @ points[:, :, None]) * points[:, None]
    return Described(points=points, slopes=slopes)


def halves(thumbs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Describe the upper and the lower part alone: a watermark spares one of them.

    Shapes:
        (N, 32, 32) → twice (N, 32)
    """
    flat = np.asarray(thumbs, np.float32)
    across = flat @ _FULL[0].T
    top, bottom = _TOP @ across, _BOTTOM @ across
    return _centerd(top), _centerd(bottom)


def _centerd(parts: np.ndarray) -> np.ndarray:
    flat = parts.reshape(len(parts), -1)
    return _unit(flat - flat.mean(1, keepdims=True))[0]


def _unit(centerd: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    power = (centerd**2).sum(1, keepdims=True)
    length = np.sqrt(power + FLOOR**2 * centerd.shape[1])
    return centerd / length, length


def points_of(thumbs: np.ndarray) -> np.ndarray:
    """Describe many thumbnails, without their slopes, a few thousand at a time."""
    chunks = range(0, len(thumbs), _CHUNK)
    points = [describe(thumbs[i : i + _CHUNK]).points for i in chunks]
    return np.concatenate(points) if points else np.empty((0, GRID * GRID), np.float32)


def mirrored(points: np.ndarray, axis: int) -> np.ndarray:
    """Return the points of the mirrored images: 1 top to bottom, 2 left to right."""
    grid = points.reshape(-1, GRID, GRID)
    return np.asarray(np.flip(grid, axis).reshape(len(points), -1))


def whitened(slopes: np.ndarray) -> np.ndarray:
    """Return rows M such that ‖e‖² − ‖M e‖² is the squared tangent distance.

    A shift may explain a difference e only at its own cost: M = L⁻¹ J, with
    L Lᵀ = J Jᵀ + (NOISE/SHARE)².

    Shapes:
        (N, 4, d) → (N, 4, d)
    """
    return np.asarray(np.linalg.solve(np.linalg.cholesky(_costs(slopes)), slopes))


def _costs(slopes: np.ndarray) -> np.ndarray:
    own = np.eye(WARPS, dtype=np.float32) * (NOISE / SHARE) ** 2
    return np.asarray(slopes @ slopes.transpose(0, 2, 1) + own)


def settle(ours: np.ndarray, theirs: np.ndarray, steps: int = 2) -> np.ndarray:
    """Return the distance of pairs of thumbnails, the first one's crop fitted.

    Newton's steps on the tangent distance: each warps the thumbnail by the crop that
    explains most and looks again, which a single linear step gets only roughly right.

    Args:
        ours: Thumbnails that are warped.
        theirs: Thumbnails that stay.
        steps: Warps.

    Shapes:
        (P, 32, 32), (P, 32, 32) → (P,)
    """
    goal = describe(theirs).points
    warp = np.zeros((len(ours), WARPS), np.float32)
    seen = np.asarray(ours, np.float32)
    for step in range(steps + 1):
        found = describe(seen)
        error = (goal - found.points)[:, :, None]
        pull = found.slopes @ error
        move = np.linalg.solve(_costs(found.slopes), pull)
        if step < steps:
            warp = np.clip(warp + move[..., 0], -0.08, 0.08)
            seen = _warped(ours, warp)
    left = (error**2).sum((1, 2)) - (pull * move).sum((1, 2))
    return np.asarray(np.sqrt(np.maximum(left, 0)))


def _warped(thumbs: np.ndarray, warp: np.ndarray) -> np.ndarray:
    across = _sampler(warp[:, 0], warp[:, 1])
    down = _sampler(warp[:, 2], warp[:, 3])
    return np.asarray(down @ thumbs @ across.transpose(0, 2, 1), np.float32)


def _sampler(shift: np.ndarray, stretch: np.ndarray) -> np.ndarray:
    """Return (P, 32, 32) matrices that interpolate at shifted, stretched places."""
    place = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE
    reach = shift[:, None] + stretch[:, None] * (2 * place - 1)
    at = np.clip((place + reach) * SIDE - 0.5, 0, SIDE - 1)
    pixel = np.arange(SIDE, dtype=np.float32)
    return np.asarray(np.maximum(0, 1 - np.abs(at[:, :, None] - pixel)))
