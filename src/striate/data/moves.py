"""Random changes of place that need no arithmetic of their own, fast enough to be free.

Whole-pixel shifts copy rows, mirroring reverses them, crops are cut from pictures that
were stored somewhat larger and resized once. Every draw is a function of (seed, epoch,
picture): batch size, order and worker count change nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor
from torch.nn import functional as F

from striate.core.seeds import uniforms

SHIFT = 1 / 8  # of the side, each way: 4 pixels of 32 (He et al. 2015, section 4.2)
# Shares of the area and aspects of a crop; Szegedy et al. 2014, section 6, begin at
# 8 %, which is for a thousand classes and hundreds of epochs.
AREA = (0.35, 1.0)
ASPECT = (3 / 4, 4 / 3)
# Crops down to 1/1.25² = 64 % of the area stay as sharp as the input; the smallest of
# 35 % are enlarged by a third. Larger stores cost more memory than they show.
MARGIN = 1.25


def shifted(pixels: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
    """Move each picture by whole pixels, its border mirrored into the gap.

    Shapes:
        (n, H, W, C) uint8, (n,) → (n, H, W, C)

    Example:
        >>> flat = torch.full((2, 8, 8, 1), 9).byte()
        >>> bool((shifted(flat, torch.tensor([0, 1]), 0, 0) == 9).all())
        True
    """
    count, height, width, channels = pixels.shape
    down, across = int(height * SHIFT), int(width * SHIFT)
    padded = _reflected(pixels.numpy(), down, across)
    numbers = index.numpy()
    y = (uniforms(numbers, seed, "shift down", epoch) * (2 * down + 1)).astype(np.int64)
    x = (uniforms(numbers, seed, "shift across", epoch) * (2 * across + 1)).astype(int)
    # Every window there is, as a view; choosing one for each picture copies whole rows.
    picture, row, value = padded.reshape(count, height + 2 * down, -1).strides
    windows = as_strided(
        padded,
        (count, 2 * down + 1, 2 * across + 1, height, width * channels),
        (picture, row, value * channels, row, value),
        writeable=False,
    )
    chosen = windows[np.arange(count), y, x]
    return torch.from_numpy(chosen).view(count, height, width, channels)


def _reflected(pixels: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return pictures with a border in which they are mirrored (`reflect`)."""
    count, height, width, channels = pixels.shape
    size = count, height + 2 * down, width + 2 * across, channels
    padded = np.empty(size, np.uint8)
    padded[:, down : down + height, across : across + width] = pixels
    for i in range(down):
        padded[:, i] = padded[:, 2 * down - i]
        padded[:, -1 - i] = padded[:, -1 - 2 * down + i]
    for i in range(across):
        padded[:, :, i] = padded[:, :, 2 * across - i]
        padded[:, :, -1 - i] = padded[:, :, -1 - 2 * across + i]
    return padded


def cropped(
    pixels: Tensor, index: Tensor, seed: int, epoch: int, size: tuple[int, int]
) -> Tensor:
    """Cut a random window out of each picture and resize it, antialiased.

    Shapes:
        (n, H', W', C) uint8, (n,) → (n, *size, C)

    Example:
        >>> stored = torch.zeros(2, 10, 10, 3).byte()
        >>> cropped(stored, torch.tensor([0, 1]), 0, 0, (8, 8)).shape
        torch.Size([2, 8, 8, 3])
    """
    planes = pixels.permute(0, 3, 1, 2)
    made = torch.empty(len(pixels), *size, pixels.shape[-1], dtype=torch.uint8)
    ready = made.permute(0, 3, 1, 2)
    windows = crop_windows(index, seed, epoch, (pixels.shape[1], pixels.shape[2]))
    for i, (top, left, height, width) in enumerate(windows.tolist()):
        window = planes[i : i + 1, :, top : top + height, left : left + width]
        ready[i : i + 1] = F.interpolate(window, size, mode="bilinear", antialias=True)
    return made


def crop_windows(
    index: Tensor, seed: int, epoch: int, sides: tuple[int, int]
) -> np.ndarray:
    """Return (top, left, height, width) of each picture's window, (n, 4) int64.

    The aspect is drawn evenly on a logarithmic scale; a window that would not fit is
    cut to the picture.
    """
    numbers = index.numpy()
    draws = [uniforms(numbers, seed, f"crop {part}", epoch) for part in range(4)]
    area = (AREA[0] + draws[0] * (AREA[1] - AREA[0])) * sides[0] * sides[1]
    low, high = np.log(ASPECT)
    aspect = np.exp(low + draws[1] * (high - low))
    height = np.clip(np.sqrt(area / aspect).round(), 1, sides[0])
    width = np.clip(np.sqrt(area * aspect).round(), 1, sides[1])
    top = np.floor(draws[2] * (sides[0] - height + 1))
    left = np.floor(draws[3] * (sides[1] - width + 1))
    return np.stack([top, left, height, width], 1).astype(np.int64)
