"""Moves by whole pixels: copied, not interpolated, so that every value stays exact."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from striate.data.augment.flip import mirror


def whole_pixels(
    pixels: Tensor, shift: np.ndarray, mirrored: np.ndarray, border: str, level: int
) -> Tensor:
    """Mirror images and then move them; rows are copied in one piece.

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
    """Cut each image's window out of it and its border."""
    right, down = (int(most) for most in np.abs(shift).max(axis=0))
    tape = Tape(pixels, right, down, border, level)
    return tape.cut(tape.places(np.arange(len(pixels)), shift))


class Tape:
    """Images with their borders, one after the other, to cut moved ones out of.

    A window is a stretch of the tape, from its first pixel on, in which rows are
    longer than they will be: whole images are copied, not rows.

    Args:
        pixels: (N, H, W, C) uint8.
        right: The largest move in pixels, either way.
        down: Likewise.
        border: As for `warp`.
        level: Of the background, 0–255.
    """

    def __init__(
        self, pixels: Tensor, right: int, down: int, border: str, level: int
    ) -> None:
        _, self._height, self._width, self._channels = pixels.shape
        self._most = right, down
        self._rows = self._height + 2 * down
        self._columns = self._width + 2 * right
        self._bytes = _bordered(pixels, right, down, border, level)
        long = self._height * self._columns * self._channels
        count = (len(self._bytes) - long) // self._channels + 1
        self._stretches = self._bytes.as_strided((count, long), (self._channels, 1))

    @staticmethod
    def weight(pixels: Tensor, right: int, down: int) -> int:
        """Return the bytes that images and their borders take."""
        count, height, width, channels = pixels.shape
        return count * (height + 2 * down) * (width + 2 * right) * channels

    def places(self, index: np.ndarray, shift: np.ndarray) -> Tensor:
        """Return where the windows begin of images (n,) moved by (n, 2)."""
        right, down = self._most
        first = index * (self._rows * self._columns)
        first = first + (down - shift[:, 1]) * self._columns + right - shift[:, 0]
        return torch.from_numpy(first)

    def cut(self, places: Tensor) -> Tensor:
        """Return the windows that begin there, (n, H, W, C)."""
        cut = self._stretches.index_select(0, places.to(self._bytes.device))
        wide = cut.view(len(places), self._height, self._columns, self._channels)
        return wide[:, :, : self._width]


def _bordered(pixels: Tensor, right: int, down: int, border: str, level: int) -> Tensor:
    """Lay images and their borders out on one tape, (bytes,)."""
    count, height, width, channels = pixels.shape
    rows, columns = height + 2 * down, width + 2 * right
    # The last window may end a little behind the last row.
    size = count * rows * columns * channels
    tape = pixels.new_full((size + 2 * right * channels,), level)
    wide = tape[:size].view(count, rows, columns, channels)
    wide[:, down : down + height, right : right + width] = pixels
    if border != "background":
        _fill(wide[:, :, right : right + width], 1, down, border)
        _fill(wide, 2, right, border)
    return tape


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
