"""From 8-bit pixels of any size to a network's input: one path for every use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.core.preprocess import Preprocess
from striate.data.decode.decode import Decoded, examine, fraction

# ITU-R 601 luma in 1/65536, the weights and rounding of every imaging library.
_LUMA = (19_595, 38_470, 7_471)
_LARGE = 1 << 15  # values of an image that is normalized by itself


def look(payload: bytes, preprocess: Preprocess) -> Decoded:
    """Decode a file as far as this preprocessing needs, and say what identifies it.

    Raises:
        UndecodableError: The file is no usable image.
    """
    p = preprocess
    scaled = partial(scaled_sides, p) if p.jpeg == "reduced" else None
    return examine(payload, p.background, p.white_level, scaled)


def look_at_sizes(
    payload: bytes, sizes: Sequence[Preprocess]
) -> tuple[tuple[Tensor, ...], str]:
    """Return a file as 8-bit input of several sizes, and what identifies it.

    Each is the same to the bit as `file_to_input` alone would make it; the file is
    decoded again only where one of them takes a smaller fraction of a large JPEG.

    Raises:
        UndecodableError: The file is no usable image.
    """
    seen = look(payload, sizes[0])
    made = [seen_to_input(seen, sizes[0])]
    for size in sizes[1:]:
        if (
            seen.factor > 1
            and fraction(seen.sides, partial(scaled_sides, size)) < seen.factor
        ):
            seen = look(payload, size)
        made.append(seen_to_input(seen, size))
    return tuple(made), seen.content


def file_to_input(payload: bytes, preprocess: Preprocess) -> Tensor:
    """Return an image file as 8-bit input, (H, W, C): the one path of every use.

    Raises:
        UndecodableError: The file is no usable image.
    """
    return seen_to_input(look(payload, preprocess), preprocess)


def seen_to_input(seen: Decoded, preprocess: Preprocess) -> Tensor:
    """Bring a decoded image to the input, by the sides of the whole of it.

    Those of a reduced decoding are rounded, and could be scaled to a pixel more.
    """
    return _to_input(seen.pixels[None], preprocess, seen.sides)[0]


def to_input(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Bring one image to the input's channels and size, still 8-bit.

    Args:
        pixels: (height, width, channels), uint8.
        preprocess: What to do.

    Shapes:
        (H, W, C) → (preprocess.height, preprocess.width, preprocess.channels), uint8

    Example:
        >>> p = Preprocess(channels=1, height=2, width=2)
        >>> to_input(np.full((4, 4, 3), 200, np.uint8), p).flatten().tolist()
        [200, 200, 200, 200]
    """
    return batch_to_input(pixels[None], preprocess)[0]


def batch_to_input(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Do the same for images of one common size, (N, H, W, C)."""
    return _to_input(pixels, preprocess, (pixels.shape[1], pixels.shape[2]))


def _to_input(
    pixels: np.ndarray, preprocess: Preprocess, sides: tuple[int, int]
) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(to_channels(pixels, preprocess)))
    if len(tensor) == 1:
        # NumPy gives a new axis the stride 0, for which torch takes a slower routine.
        tensor = tensor[0][None]
    if tensor.shape[1:3] == (preprocess.height, preprocess.width):
        return tensor
    return _resize(tensor, preprocess, sides)


def to_channels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn gray into RGB or RGB into gray where the network asks for it.

    Raises:
        DataError: No rule turns these channels into those.
    """
    have, want = pixels.shape[-1], preprocess.channels
    if have == want:
        return pixels
    if have == 1:
        return np.repeat(pixels, want, axis=-1)
    if (have, want) == (3, 1):
        luma = pixels.astype(np.uint32) @ np.array(_LUMA, np.uint32)
        return ((luma + 32_768) >> 16).astype(np.uint8)[..., None]
    what = f"images have {have} channels, the network takes {want}"
    raise DataError(what, fix=f"use --in-chans {have}")


def _resize(pixels: Tensor, preprocess: Preprocess, sides: tuple[int, int]) -> Tensor:
    rows, columns = preprocess.height, preprocess.width
    scaled = _interpolate(pixels, *scaled_sides(preprocess, *sides))
    return _center(scaled, rows, columns, preprocess.background)


def scaled_sides(preprocess: Preprocess, height: int, width: int) -> tuple[int, int]:
    """Return the sides an image is scaled to, before cutting or padding.

    Example:
        >>> p = Preprocess(channels=3, height=8, width=8, resize="crop")
        >>> scaled_sides(p, 16, 32)
        (8, 16)
    """
    rows, columns = preprocess.height, preprocess.width
    if preprocess.resize == "stretch":
        return rows, columns
    ratios = rows / height, columns / width
    ratio = max(ratios) if preprocess.resize == "crop" else min(ratios)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def _interpolate(pixels: Tensor, rows: int, columns: int) -> Tensor:
    # Antialiased: shrinking must average pixels, not skip them.
    planes = pixels.permute(0, 3, 1, 2)
    size = (rows, columns)
    scaled = F.interpolate(planes, size, mode="bilinear", antialias=True)
    return scaled.permute(0, 2, 3, 1)


def _center(pixels: Tensor, rows: int, columns: int, background: int) -> Tensor:
    """Cut or fill both sides to (rows, columns) around the middle."""
    height, width = pixels.shape[1:3]
    if (height, width) == (rows, columns):
        return pixels
    top, left = (rows - height) // 2, (columns - width) // 2
    # Negative padding cuts; the odd pixel goes to the bottom right.
    amounts = (0, 0, left, columns - width - left, top, rows - height - top)
    return F.pad(pixels, amounts, value=background)


def normalize(batch: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn an 8-bit batch into the network's floating-point input.

    (v/255 − mean)/std for each channel, as a channels-last tensor.

    Shapes:
        (N, H, W, C) uint8 → (N, C, H, W) float32

    Example:
        >>> p = Preprocess(channels=1, height=1, width=1, mean=(0.5,), std=(0.5,))
        >>> normalize(torch.tensor([[[[255]]], [[[0]]]]).byte(), p).flatten().tolist()
        [1.0, -1.0]
    """
    count, height, width, channels = batch.shape
    # Images in one piece, or with longer rows than are wanted (cut from wider ones).
    shape = (count, 1, -1) if batch.is_contiguous() else (count, height, -1)
    rows = batch.reshape(shape)
    times = rows.shape[2] // channels if channels > 1 else 1
    mean, std = _rows(preprocess.mean, preprocess.std, times, batch.device)
    ready = torch.empty(rows.shape, device=batch.device)
    if batch.device.type == "cpu" and height * width * channels >= _LARGE:
        _in_cache(rows, mean, std, ready)
    else:
        ready.copy_(rows).sub_(mean).div_(std)
    return ready.view(count, height, width, channels).permute(0, 3, 1, 2)


def _in_cache(rows: Tensor, mean: Tensor, std: Tensor, ready: Tensor) -> None:
    """Normalize one image after the other: three passes over the cache, not memory.

    The same to the bit. NumPy's loops stay on this thread, where torch would call for
    its others at every pass and wait for the last of them.
    """
    means, stds = mean.numpy(), std.numpy()
    for out, values in zip(ready.numpy(), rows.numpy(), strict=True):
        out[...] = values
        out -= means
        out /= stds


@lru_cache(maxsize=8)
def _rows(
    mean: tuple[float, ...], std: tuple[float, ...], times: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    # One long row for many pixels: subtracting three numbers at a time, as broadcasting
    # over channels would, takes ten times as long.
    return tuple(  # type: ignore[return-value]
        (255 * torch.tensor(values, device=device)).repeat(times)
        for values in (mean, std)
    )
