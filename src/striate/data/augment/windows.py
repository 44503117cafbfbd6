"""Crops cut from pictures that are held larger than the input, and resized once.

Cut from pictures at the input's own size, a crop would have to be enlarged, and every
training picture would be softer than those it is tested on.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.augment import Augment

# Windows down to 1/1.25 of the side stay as sharp as the input, at 1.25² the memory.
MARGIN = 1.25


def margin_for(augment: Augment) -> float:
    """Return at how many times the input's sides training pictures are to be held."""
    return MARGIN if augment.only_crops else 1.0


def windows(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (top, left, height, width) in whole pixels, (n, 4).

    Args:
        crop: (n, 3) share of the side that is kept, and where the window stands in
            its room, −1 to 1 from left to right and from top to bottom.
        height: Of the pictures held.
        width: Likewise.

    Example:
        >>> windows(np.array([[0.5, -1.0, 1.0]]), 8, 8).tolist()
        [[4, 0, 4, 4]]
    """
    tall = np.maximum(1, np.rint(crop[:, 0] * height))
    wide = np.maximum(1, np.rint(crop[:, 0] * width))
    top = np.rint((crop[:, 2] + 1) / 2 * (height - tall))
    left = np.rint((crop[:, 1] + 1) / 2 * (width - wide))
    return np.stack([top, left, tall, wide], 1).astype(np.int64)


def cut(pixels: Tensor, windows: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Cut a window out of each picture and bring it to one size, antialiased.

    Shapes:
        (n, H, W, C) uint8 → (n, *size, C) uint8

    Example:
        >>> import torch
        >>> held = torch.arange(16).byte().view(1, 4, 4, 1)
        >>> cut(held, np.array([[1, 1, 2, 2]]), (2, 2)).flatten().tolist()
        [5, 6, 9, 10]
    """
    planes = pixels.permute(0, 3, 1, 2)
    made = pixels.new_empty((len(pixels), *size, pixels.shape[-1]))
    ready = made.permute(0, 3, 1, 2)
    for i, (top, left, height, width) in enumerate(windows.tolist()):
        window = planes[i : i + 1, :, top : top + height, left : left + width]
        if (height, width) != size:
            window = F.interpolate(window, size, mode="bilinear", antialias=True)
        ready[i : i + 1] = window
    return made
