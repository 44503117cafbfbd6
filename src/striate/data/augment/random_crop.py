"""Crops cut from images that are held larger than the input, and resized once.

Cut from images at the input's own size, a crop would have to be enlarged, and every
training image would be softer than those it is tested on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.augment import Augment

# Windows down to 1/1.25 of the side stay as sharp as the input, at 1.25² the memory.
MARGIN = 1.25
_SPAN = 8  # images a thread takes at a time
# Values from which on torch would share a copy among threads of its own, which wait for
# one another: here every processor has an image already.
_ALONE = (1 << 15) - 1


def margin_for(augment: Augment) -> float:
    """Return at how many times the input's sides training images are to be held."""
    return MARGIN if augment.only_crops else 1.0


def windows(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (top, left, height, width) in whole pixels, (n, 4).

    Args:
        crop: (n, 3) share of the side that is kept, and where the window stands in
            its room, −1 to 1 from left to right and from top to bottom.
        height: Of the images held.
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


def cut(
    pixels: Tensor,
    windows: np.ndarray,
    size: tuple[int, int],
    mirrored: np.ndarray | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    """Cut a window out of each image, bring it to one size, antialiased, mirror it.

    Every image is made by itself, on as many threads as torch has.

    Args:
        pixels: (N, H, W, C) uint8, on the CPU.
        windows: (n, 4) top, left, height, width.
        size: Height and width to make.
        mirrored: (n, 2) left and right exchanged, top and bottom exchanged.
        rows: (n,) which of the images are meant; all of them where None. They are
            read where they stand: a copy of whole images would be thrown away.

    Shapes:
        (n, *size, C) uint8

    Example:
        >>> import torch
        >>> held = torch.arange(16).byte().view(1, 4, 4, 1)
        >>> cut(held, np.array([[1, 1, 2, 2]]), (2, 2)).flatten().tolist()
        [5, 6, 9, 10]
    """
    count = len(windows)
    made = pixels.new_empty((count, *size, pixels.shape[-1]))
    flips = np.zeros((count, 2), bool) if mirrored is None else mirrored
    which = range(count) if rows is None else rows.tolist()
    held, out = pixels.numpy(), made.numpy()

    def several(some: range) -> None:
        for i in some:
            top, left, height, width = windows[i].tolist()
            seen = held[which[i], top : top + height, left : left + width]
            _lay(_scaled(seen, size), flips[i], out[i])

    _spread(several, [range(i, min(i + _SPAN, count)) for i in range(0, count, _SPAN)])
    return made


def _scaled(window: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Return a window (h, w, C) at one size, (*size, C)."""
    # In one piece: of a view torch would first make planes, value by value.
    whole = torch.from_numpy(np.ascontiguousarray(window))
    if window.shape[:2] == size:
        return whole
    planes = whole[None].permute(0, 3, 1, 2)
    made = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return made[0].permute(1, 2, 0)


def _lay(image: Tensor, mirrored: np.ndarray, out: np.ndarray) -> None:
    """Write an image to its place while it is in the processor's cache."""
    across, down = mirrored.tolist()
    if down:
        out = out[::-1]
    if not across:
        out[...] = image.numpy()
        return
    step = max(1, _ALONE // image[0].numel())
    for first in range(0, len(image), step):
        band = image[first : first + step]
        out[first : first + step] = band.flip(1).numpy()


def _spread(work: Callable[[range], None], pieces: Sequence[range]) -> None:
    """Do all pieces, on threads where that is worth while."""
    threads = min(torch.get_num_threads(), len(pieces))
    if threads < 2:
        for piece in pieces:
            work(piece)
        return
    for _ in _hands(torch.get_num_threads(), os.getpid()).map(work, pieces):
        pass


@lru_cache(maxsize=1)
def _hands(threads: int, process: int) -> ThreadPoolExecutor:
    """Return threads that are kept: starting them takes as long as several images.

    Args:
        threads: How many.
        process: Whose; a forked process has none of its parent's threads.
    """
    return ThreadPoolExecutor(threads, thread_name_prefix=f"cut-{process}")
