"""What an image shows, in little room: a hash, a thumbnail, a close-up."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

THUMB = 32  # side of the thumbnail that all images are searched by
CLOSEUP = 128  # longest side of the view that pairs are compared by
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601


def gray_levels(pixels: np.ndarray) -> np.ndarray:
    """Return luma as floats, (H, W, C) → (H, W)."""
    if pixels.shape[-1] == 3:
        return np.asarray(pixels.astype(np.float32) @ _LUMA)
    return np.asarray(pixels.astype(np.float32).mean(-1))


def shrink(gray: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average a gray image to a size, by area; 8-bit.

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
def area_matrix(size: int, parts: int) -> np.ndarray:
    """Return the (parts, size) matrix that averages `size` pixels to `parts`.

    Example:
        >>> area_matrix(3, 2).astype(float).round(2).tolist()
        [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges = np.arange(parts + 1) * (size / parts)
    pixel = np.arange(size)
    low, high = edges[:-1, None], edges[1:, None]
    inside = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
    return np.asarray(inside * (parts / size), np.float32)


def closeup(gray: np.ndarray) -> np.ndarray:
    """Return a view of at most 128 a side, 8-bit, aspect kept."""
    ratio = min(1.0, CLOSEUP / max(gray.shape))
    height, width = (max(1, round(n * ratio)) for n in gray.shape)
    return shrink(gray, height, width)


def thumbnail(view: np.ndarray) -> np.ndarray:
    """Return a close-up stretched to 32×32, 8-bit."""
    return shrink(view.astype(np.float32), THUMB, THUMB)
