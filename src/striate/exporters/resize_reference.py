"""Torch's antialiased bilinear resize of 8-bit images, as integer arithmetic in NumPy.

Each output pixel is a weighted mean: the triangle filter, stretched by the scale if the
image shrinks. The weights are rounded to integers, w·2^p, with the largest p so that
all of them stay below 2^15. Rows are resized first, then columns; after each of the two
passes the sums are rounded and clipped to 0–255.
"""

from __future__ import annotations

import numpy as np

MAX_PRECISION = 22  # largest p
WEIGHT_LIMIT = 1 << 15  # integer weights stay below it


def resize_weights(size: int, out_size: int) -> tuple[np.ndarray, int]:
    """Return the integer weights, (out_size, size), and their precision p.

    Example:
        >>> weights, precision = resize_weights(4, 2)
        >>> weights.tolist(), precision
        ([[14043, 14043, 4681, 0], [0, 4681, 14043, 14043]], 15)
    """
    scale = size / out_size
    support = max(scale, 1.0)
    center = scale * (np.arange(out_size)[:, None] + 0.5)
    first = np.maximum(np.floor(center - support + 0.5), 0)
    last = np.minimum(np.floor(center + support + 0.5), size)
    position = np.arange(size)[None]
    distance = np.abs((position - center + 0.5) * (1 / support))
    weights = np.maximum(1 - distance, 0)
    weights *= (position >= first) & (position < last)
    weights /= weights.sum(axis=1, keepdims=True)
    powers = 2.0 ** np.arange(1, MAX_PRECISION + 1)
    fits = np.floor(0.5 + weights.max() * powers) < WEIGHT_LIMIT
    precision = int(fits.sum())
    return np.floor(weights * 2.0**precision + 0.5).astype(np.int64), precision


def resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize images as `torch.nn.functional.interpolate` does, without torch.

    Shapes:
        (..., H, W, C) uint8 → (..., height, width, C) uint8

    Example:
        >>> resize_pixels(np.full((4, 6, 1), 9, np.uint8), 2, 3)[..., 0].tolist()
        [[9, 9, 9], [9, 9, 9]]
    """
    values = pixels.astype(np.int64)
    for axis, size in ((-2, width), (-3, height)):
        weights, precision = resize_weights(values.shape[axis], size)
        sums = np.moveaxis(np.tensordot(values, weights, axes=(axis, 1)), -1, axis)
        values = ((sums + (1 << precision - 1)) >> precision).clip(0, 255)
    return values.astype(np.uint8)
