"""Small gray copies of an image: a 32×32 thumbnail, and a close-up of ≤ 128 pixels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

THUMB = 32  # thumbnail side; near-duplicate candidates are searched on thumbnails
CLOSEUP = 128  # longest side of the close-up; candidate pairs are compared on close-ups
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601


def gray_levels(pixels: np.ndarray) -> np.ndarray:
    """Convert images to gray levels (luma), (H, W, C) → (H, W) floats."""
    if pixels.shape[-1] == 3:
        return np.asarray(pixels.astype(np.float32) @ _LUMA)
    return np.asarray(pixels.astype(np.float32).mean(-1))


def shrink(gray: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a gray image by area averaging, and round to 8 bits.

    Example:
        >>> shrink(np.array([[0.0, 100.0], [200.0, 100.0]]), 1, 2)
        array([[100, 100]], dtype=uint8)
    """
    rows, columns = gray.shape
    if height != rows:
        gray = area_matrix(rows, height) @ gray
    if width != columns:
        gray = gray @ area_matrix(columns, width).T
    return np.asarray(np.rint(gray).clip(0, 255).astype(np.uint8))


@lru_cache(256)
def area_matrix(size: int, cells: int) -> np.ndarray:
    """Return the (cells, size) matrix that averages `size` pixels into `cells` cells.

    Example:
        >>> area_matrix(3, 2).astype(float).round(2).tolist()
        [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges = np.arange(cells + 1) * (size / cells)
    pixel = np.arange(size)
    low, high = edges[:-1, None], edges[1:, None]
    inside = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(inside * (cells / size), np.float32)


def closeup(gray: np.ndarray) -> np.ndarray:
    """Shrink a gray image to at most 128 pixels in height and width, 8-bit."""
    ratio = min(1.0, CLOSEUP / max(gray.shape))
    height, width = (max(1, round(n * ratio)) for n in gray.shape)
    return shrink(gray, height, width)


def thumbnail(view: np.ndarray) -> np.ndarray:
    """Resize a close-up (gray image) to a thumbnail of 32×32 pixels, 8-bit."""
    return shrink(view.astype(np.float32), THUMB, THUMB)
