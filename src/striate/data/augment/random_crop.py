"""Random crop with one resize, cut from images larger than the network input.

A crop from an image of the input size would have to be enlarged. Every training image
would then be more blurred than the images in evaluation.
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

# Crops down to 1/1.25 of the side stay as sharp as the input, at 1.25² the memory.
MARGIN = 1.25
_CHUNK = 8  # images per thread and task
# Values from which on torch would share a copy among threads of its own, which wait for
# one another: here every processor has an image already.
_ALONE = (1 << 15) - 1


def crop_margin(augment: Augment) -> float:
    """Return the size of the stored images, as a multiple of the input size."""
    return MARGIN if augment.only_crops else 1.0


def crop_windows(crop: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the crop windows in pixels, (n, 4): top, left, height, width.

    Example:
        >>> crop_windows(np.array([[0.5, -1.0, 1.0]]), 8, 8).tolist()
        [[4, 0, 4, 4]]
    """
    heights = np.maximum(1, np.rint(crop[:, 0] * height))
    widths = np.maximum(1, np.rint(crop[:, 0] * width))
    row = np.rint((crop[:, 2] + 1) / 2 * (height - heights))
    col = np.rint((crop[:, 1] + 1) / 2 * (width - widths))
    return np.stack([row, col, heights, widths], 1).astype(np.int64)


def crop_and_resize(
    pixels: Tensor,  # (N, H, W, C) uint8, on the CPU
    crop_windows: np.ndarray,  # (n, 4) top, left, height, width
    size: tuple[int, int],
    flips: np.ndarray | None = None,  # (n, 2) horizontal flip, vertical flip
    rows: Tensor | None = None,  # (n,) indices of the images, which are not copied
) -> Tensor:
    """Crop a window from each image, resize it with antialiasing, and flip it.

    Images are processed one by one, on as many threads as torch has.

    Example:
        >>> import torch
        >>> images = torch.arange(16).byte().view(1, 4, 4, 1)
        >>> crop_and_resize(images, np.array([[1, 1, 2, 2]]), (2, 2)).flatten().tolist()
        [5, 6, 9, 10]
    """
    count = len(crop_windows)
    out = pixels.new_empty((count, *size, pixels.shape[-1]))
    flips = np.zeros((count, 2), bool) if flips is None else flips
    which = range(count) if rows is None else rows.tolist()
    arrays, results = pixels.numpy(), out.numpy()

    def crop_chunk(chunk: range) -> None:
        for i in chunk:
            row, col, height, width = crop_windows[i].tolist()
            window = arrays[which[i], row : row + height, col : col + width]
            _write_flipped(_resized(window, size), flips[i], results[i])

    chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
    _run_threaded(crop_chunk, chunks)
    return out


def _resized(window: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resize a window of shape (h, w, C) to the shape (height, width, C)."""
    # Contiguous: from a view torch would first make planes, value by value.
    contiguous = torch.from_numpy(np.ascontiguousarray(window))
    if window.shape[:2] == size:
        return contiguous
    planes = contiguous[None].permute(0, 3, 1, 2)
    out = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return out[0].permute(1, 2, 0)


def _write_flipped(image: Tensor, flips: np.ndarray, out: np.ndarray) -> None:
    """Flip one image while writing its pixels into the output batch."""
    horizontal, vertical = flips.tolist()
    if vertical:
        out = out[::-1]
    if not horizontal:
        out[...] = image.numpy()
        return
    step = max(1, _ALONE // image[0].numel())
    for first in range(0, len(image), step):
        band = image[first : first + step]
        out[first : first + step] = band.flip(1).numpy()


def _run_threaded(work: Callable[[range], None], chunks: Sequence[range]) -> None:
    """Call `work` on every chunk; use threads if there are several chunks."""
    threads = min(torch.get_num_threads(), len(chunks))
    if threads < 2:
        for chunk in chunks:
            work(chunk)
        return
    for _ in _thread_pool(torch.get_num_threads(), os.getpid()).map(work, chunks):
        pass


@lru_cache(maxsize=1)
def _thread_pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Return a thread pool, cached per process: threads do not survive a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"cut-{process}")
