"""Moves by whole pixels: copied, not interpolated, so that every value stays exact."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from striate.data.mirror import mirror


def whole_pixels(
    pixels: Tensor, shift: np.ndarray, mirrored: np.ndarray, border: str, level: int
) -> Tensor:
    """Mirror pictures and then move them; rows are copied in one piece.

    Args:
        pixels: (N, H, W, C) uint8.
        shift: (N, 2) pixels to the right and down.
        mirrored: (N, 2) left and right exchanged, top and bottom exchanged.
        border: As for `warp`.
        level: Of the background, 0–255.

    Example:
        >>> row = torch.tensor([[[[1], [2], [3]]]], dtype=torch.uint8)
        >>> right, no = np.array([[1, 0]]), np.array([[False, False]])
        >>> whole_pixels(row, right, no, "reflect", 0).flatten().tolist()
        [1, 1, 2]
    """
    for axis, which in ((2, mirrored[:, 0]), (1, mirrored[:, 1])):
        if which.any():
            pixels = mirror(pixels, torch.from_numpy(which).to(pixels.device), axis)
    return _moved(pixels, shift, border, level) if shift.any() else pixels


def _moved(pixels: Tensor, shift: np.ndarray, border: str, level: int) -> Tensor:
    """Cut each picture's window out of it and its border.

    All bordered pictures lie on one tape. A window is a stretch of it, from its first
    pixel on, in which rows are longer than they will be.
    """
    count, height, width, channels = pixels.shape
    right, down = (int(most) for most in np.abs(shift).max(axis=0))
    rows, columns = height + 2 * down, width + 2 * right
    # The last window may end a little behind the last row.
    size = count * rows * columns * channels
    tape = pixels.new_full((size + 2 * right * channels,), level)
    wide = tape[:size].view(count, rows, columns, channels)
    wide[:, down : down + height, right : right + width] = pixels
    if border != "background":
        _fill(wide[:, :, right : right + width], 1, down, border)
        _fill(wide, 2, right, border)
    long = height * columns * channels
    stretches = torch.as_strided(
        tape, ((len(tape) - long) // channels + 1, long), (channels, 1)
    )
    first = np.arange(count) * rows * columns
    first += (down - shift[:, 1]) * columns + (right - shift[:, 0])
    cut = stretches.index_select(0, torch.from_numpy(first).to(pixels.device))
    return cut.view(count, height, columns, channels)[:, :, :width]


def _fill(wide: Tensor, axis: int, more: int, border: str) -> None:
    """Fill `more` rows or columns at both ends of an axis from what lies between."""
    side = wide.shape[axis] - 2 * more
    inner = wide.narrow(axis, more, side)
    for step in range(more):
        # Mirrored at the outer edge, so that the last pixel stands twice.
        place = step if border == "reflect" else 0
        wide.select(axis, more - 1 - step).copy_(inner.select(axis, place))
        wide.select(axis, more + side + step).copy_(
            inner.select(axis, side - 1 - place)
        )
