"""Tint of an image: its colors on a 4×4 grid, without the brightness.

Near-duplicates are searched in gray images, where a blue heart equals a green one. A
copy has the same colors; flags and symbols may differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from striate.data.check.duplicates import NearPair
from striate.data.check.fingerprint import area_matrix

GRID = 4  # cells in each direction
MAX_LEVELS = 12.0  # difference in a cell of two copies, besides the share
MAX_SHARE = 0.3  # of the saturation: a copy may be brighter, or have a watermark
MAX_VALUES = 3  # of 32 that may differ more, because of a crop or a watermark

Tint = tuple[int, ...]


def tint_of(pixels: np.ndarray, gray: np.ndarray) -> Tint:
    """Return red − gray and blue − gray in each cell, in levels; () for a gray image.

    Shapes:
        (H, W, 3), (H, W) → 2 · 16 numbers

    Example:
        >>> red = np.full((8, 8, 3), (200, 0, 0), np.uint8)
        >>> tint_of(red, np.full((8, 8), 60.0))[:2], len(tint_of(red, red[..., 0]))
        ((140, 140), 32)
    """
    if pixels.shape[-1] != 3:
        return ()
    rows, columns = (area_matrix(size, GRID) for size in gray.shape)
    cells = [rows @ pixels[..., c].astype(np.float32) @ columns.T for c in (0, 2)]
    level = rows @ gray @ columns.T
    differences = np.stack([cell - level for cell in cells])
    return tuple(np.rint(differences).astype(int).ravel().tolist())


def same_tint(pair: NearPair, tints: Sequence[Tint]) -> bool:
    """Return whether two images have the same colors; True if one of them is gray.

    Example:
        >>> red, blue = (100, -20) * 16, (-20, 100) * 16
        >>> same_tint(NearPair(0, 1, "", 0.01), [red, blue])
        False
        >>> same_tint(NearPair(0, 1, "", 0.01), [red, ()])
        True
    """
    if not tints[pair.first] or not tints[pair.second]:
        return True
    first, second = (
        np.array(tints[i], float).reshape(2, GRID, GRID)
        for i in (pair.first, pair.second)
    )
    if pair.flip:
        second = np.flip(second, 2 if pair.flip == "left-right" else 1)
    saturation = np.maximum(np.abs(first), np.abs(second))
    differs = np.abs(first - second) > MAX_LEVELS + MAX_SHARE * saturation
    return bool(differs.sum() <= MAX_VALUES)
