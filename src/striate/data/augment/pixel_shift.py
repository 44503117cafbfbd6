"""Translation by whole pixels: pixel values are copied, not interpolated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from striate.data.augment.flip import flip_images


def shift_whole_pixels(
    pixels: Tensor, shift: np.ndarray, flips: np.ndarray, border: str, level: int
) -> Tensor:
    """Flip images, then translate them by whole pixels.

    Example:
        >>> row = torch.tensor([[[[1], [2], [3]]]], dtype=torch.uint8)
        >>> right, no = np.array([[1, 0]]), np.array([[False, False]])
        >>> shift_whole_pixels(row, right, no, "reflect", 0).flatten().tolist()
        [1, 1, 2]
    """
    for axis, which in ((2, flips[:, 0]), (1, flips[:, 1])):
        if which.any():
            mask = torch.from_numpy(which).to(pixels.device)
            pixels = flip_images(pixels, mask, axis)
    if not shift.any():
        return pixels
    right, down = (int(most) for most in np.abs(shift).max(axis=0))
    buffer = ShiftBuffer(pixels, right, down, border, level)
    return buffer.gather(buffer.offsets(np.arange(len(pixels)), shift))


class ShiftBuffer:
    """Padded images in one flat buffer; a shifted image is a window of the buffer.

    Each window is contiguous in the buffer (its rows include padding). So each image is
    copied as a whole, not row by row.
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
    def nbytes(pixels: Tensor, right: int, down: int) -> int:
        """Return the size of the buffer in bytes: images and padding."""
        count, height, width, channels = pixels.shape
        values = count * (height + 2 * down) * (width + 2 * right) * channels
        return values * pixels.element_size()

    def offsets(self, index: np.ndarray, shift: np.ndarray) -> Tensor:
        """Return the start offset of each shifted image in the buffer, (n,)."""
        right, down = self._most
        first = index * (self._rows * self._columns)
        first = first + (down - shift[:, 1]) * self._columns + right - shift[:, 0]
        return torch.from_numpy(first)

    def gather(self, offsets: Tensor) -> Tensor:
        """Return the images (n, H, W, C) at the given start offsets in the buffer."""
        windows = self._stretches.index_select(0, offsets.to(self._bytes.device))
        wide = windows.view(len(offsets), self._height, self._columns, self._channels)
        return wide[:, :, : self._width]


def _bordered(pixels: Tensor, right: int, down: int, border: str, level: int) -> Tensor:
    """Copy images with padding into one flat, one-dimensional buffer."""
    count, height, width, channels = pixels.shape
    rows, columns = height + 2 * down, width + 2 * right
    # The last window may end a little behind the last row.
    size = count * rows * columns * channels
    buffer = pixels.new_full((size + 2 * right * channels,), level)
    wide = buffer[:size].view(count, rows, columns, channels)
    wide[:, down : down + height, right : right + width] = pixels
    if border != "background":
        _fill(wide[:, :, right : right + width], 1, down, border)
        _fill(wide, 2, right, border)
    return buffer


def _fill(wide: Tensor, axis: int, more: int, border: str) -> None:
    """Pad both ends of an axis with `more` rows or columns, by the border mode."""
    end = wide.shape[axis] - more
    for step in range(more):
        # Reflected at the outer edge, so that the last pixel stands twice.
        place = step if border == "reflect" else 0
        wide.select(axis, more - 1 - step).copy_(wide.select(axis, more + place))
        wide.select(axis, end + step).copy_(wide.select(axis, end - 1 - place))
