"""Preprocessing of decoded images to network input, for training and inference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import DataError
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess, scaled_sides
from striate.data.decode.decode import DecodedImage, decode_image
from striate.data.decode.jpeg_decoder import jpeg_reduction

# ITU-R 601 luma in 1/65536, the weights and rounding of every imaging library.
_LUMA = (19_595, 38_470, 7_471)
_LARGE = 1 << 15  # values; larger images are normalized one by one


def decode_for(payload: bytes, preprocess: Preprocess) -> DecodedImage:
    """Decode an image file at the resolution that the preprocessing needs.

    Raises:
        UndecodableError: The file is not a usable image.
        DataError: The network was trained on float tensors.
    """
    check_takes_pixels(preprocess)
    p = preprocess
    scaled = partial(scaled_sides, p) if p.jpeg == "reduced" else None
    return decode_image(payload, p.background, p.white_level, scaled)


def check_takes_pixels(preprocess: Preprocess) -> None:
    """Raise an error if the inputs of the network are float tensors."""
    if preprocess.is_float:
        what = (
            "the network was trained on float tensors of a data set, so how to prepare "
            "8-bit images for it is not known"
        )
        fix = (
            "pass tensors: striate.explain(run, x) or run.model(x); or train on a data "
            "set of PIL images or uint8 arrays, which striate prepares"
        )
        raise DataError(what, fix=fix)


def decode_at_sizes(
    payload: bytes, sizes: Sequence[Preprocess]
) -> tuple[tuple[Tensor, ...], str]:
    """Decode a file to 8-bit input at several sizes; also return the content hash.

    Each input is bit-identical to the result of `file_to_input`. The file is decoded
    again only if an input size needs a higher resolution of a large JPEG.

    Raises:
        UndecodableError: The file is not a usable image.
    """
    decoded = decode_for(payload, sizes[0])
    inputs = [decoded_to_input(decoded, sizes[0])]
    for size in sizes[1:]:
        factor = jpeg_reduction(decoded.sides, partial(scaled_sides, size))
        if decoded.factor > factor:
            decoded = decode_for(payload, size)
        inputs.append(decoded_to_input(decoded, size))
    return tuple(inputs), decoded.content


def file_to_input(payload: bytes, preprocess: Preprocess) -> Tensor:
    """Decode an image file to 8-bit network input, (H, W, C).

    Raises:
        UndecodableError: The file is not a usable image.
    """
    return decoded_to_input(decode_for(payload, preprocess), preprocess)


def decoded_to_input(decoded: DecodedImage, preprocess: Preprocess) -> Tensor:
    """Convert a decoded image, which may be a reduced JPEG, to 8-bit network input.

    The size of a reduced JPEG is rounded; a size computed from it could be off by one.
    """
    return _to_input(decoded.pixels[None], preprocess, decoded.sides)[0]


def image_to_input(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Convert one image to the channels and size of the network input, still 8-bit.

    Args:
        pixels: (height, width, channels), uint8.
        preprocess: Channels, size and resize mode.

    Shapes:
        (H, W, C) → (preprocess.height, preprocess.width, preprocess.channels), uint8

    Example:
        >>> p = Preprocess(channels=1, height=2, width=2)
        >>> image_to_input(np.full((4, 4, 3), 200, np.uint8), p).flatten().tolist()
        [200, 200, 200, 200]
    """
    return batch_to_input(pixels[None], preprocess)[0]


def batch_to_input(pixels: np.ndarray, preprocess: Preprocess) -> Tensor:
    """Convert images of equal size, (N, H, W, C), to 8-bit network input.

    Raises:
        DataError: The network was trained on float tensors.
    """
    check_takes_pixels(preprocess)
    return _to_input(pixels, preprocess, (pixels.shape[1], pixels.shape[2]))


def _to_input(
    pixels: np.ndarray, preprocess: Preprocess, sides: tuple[int, int]
) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(to_channels(pixels, preprocess)))
    if len(tensor) == 1:
        # NumPy gives a new axis the stride 0, for which torch uses a slower routine.
        tensor = tensor[0][None]
    rows, columns = preprocess.height, preprocess.width
    if tensor.shape[1:3] == (rows, columns):
        return tensor
    height, width = sides
    # Antialiased: shrinking must average pixels, not skip them.
    scaled = F.interpolate(
        tensor.permute(0, 3, 1, 2),
        scaled_sides(preprocess, height, width),
        mode="bilinear",
        antialias=True,
    )
    return _center(scaled.permute(0, 2, 3, 1), rows, columns, preprocess.background)


def to_channels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Convert gray to RGB or RGB to gray, as the preprocessing requires.

    Raises:
        DataError: The channels cannot be converted.
    """
    given_channels, needed_channels = pixels.shape[-1], preprocess.channels
    if given_channels == needed_channels:
        return pixels
    if given_channels == 1:
        return np.repeat(pixels, needed_channels, axis=-1)
    if (given_channels, needed_channels) == (3, 1):
        luma = pixels.astype(np.uint32) @ np.array(_LUMA, np.uint32)
        return ((luma + 32_768) >> 16).astype(np.uint8)[..., None]
    what = (
        f"images have {count_text(given_channels, 'channel')}, the network "
        f"takes {needed_channels}"
    )
    raise DataError(what, fix=f"use --in-chans {given_channels}")


def _center(pixels: Tensor, rows: int, columns: int, background: int) -> Tensor:
    """Center-crop or pad images to the given numbers of rows and columns."""
    height, width = pixels.shape[1:3]
    if (height, width) == (rows, columns):
        return pixels
    top, left_pad = (rows - height) // 2, (columns - width) // 2
    # Negative padding crops; the odd pixel goes to the bottom right.
    amounts = (0, 0, left_pad, columns - width - left_pad, top, rows - height - top)
    return F.pad(pixels, amounts, value=background)


def normalize(batch: Tensor, preprocess: Preprocess) -> Tensor:
    """Normalize an 8-bit batch to the network's floating-point input.

    (v/255 − mean)/std for each channel, as a channels-last tensor. A float batch is
    network input already: it is copied.

    Shapes:
        (N, H, W, C) uint8 or float32 → (N, C, H, W) float32

    Example:
        >>> p = Preprocess(channels=1, height=1, width=1, mean=(0.5,), std=(0.5,))
        >>> normalize(torch.tensor([[[[255]]], [[[0]]]]).byte(), p).flatten().tolist()
        [1.0, -1.0]
    """
    if batch.is_floating_point():
        # A copy: networks may change their input in place.
        return batch.clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)
    count, height, width, channels = batch.shape
    # Contiguous images, or images with longer rows (cut from wider ones).
    shape = (count, 1, -1) if batch.is_contiguous() else (count, height, -1)
    rows = batch.reshape(shape)
    times = rows.shape[2] // channels if channels > 1 else 1
    mean, std = _mean_std_rows(preprocess.mean, preprocess.std, times, batch.device)
    ready = torch.empty(rows.shape, device=batch.device)
    if batch.device.type == "cpu" and height * width * channels >= _LARGE:
        # One by one, so that each image stays in the CPU cache; bit-identical. NumPy's
        # loops stay on this thread; torch would start its threads at each pass.
        means, stds = mean.numpy(), std.numpy()
        for out, values in zip(ready.numpy(), rows.numpy(), strict=True):
            out[...] = values
            out -= means
            out /= stds
    else:
        ready.copy_(rows).sub_(mean).div_(std)
    return ready.view(count, height, width, channels).permute(0, 3, 1, 2)


def display_pixels(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Convert images to 8-bit pixels for display; 8-bit images are returned unchanged.

    0 to 255 is the value range of the training images, in each channel.

    Shapes:
        (..., C) uint8 or float32 → (..., C) uint8

    Example:
        >>> range_ = {"mean": (0.5,), "std": (0.5,), "dtype": "float32"}
        >>> p = Preprocess(channels=1, height=1, width=1, **range_)
        >>> pixels = torch.tensor([[-1.0], [0.0], [1.0]])
        >>> display_pixels(pixels, p).flatten().tolist()
        [0, 128, 255]
    """
    if not pixels.is_floating_point():
        return pixels
    mean = torch.tensor(preprocess.mean, device=pixels.device)
    std = torch.tensor(preprocess.std, device=pixels.device)
    levels = pixels.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255)
    return levels.to(torch.uint8)


@lru_cache(maxsize=8)
def _mean_std_rows(
    mean: tuple[float, ...], std: tuple[float, ...], times: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    # One long row for many pixels: broadcasting over channels subtracts three numbers
    # at a time and takes ten times as long.
    return tuple(  # type: ignore[return-value]
        (255 * torch.tensor(values, device=device)).repeat(times)
        for values in (mean, std)
    )
