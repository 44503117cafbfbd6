"""Mean and standard deviation of each channel, measured on training images."""

from __future__ import annotations

import torch
from torch import Tensor

from striate.data.cache.image_rows import PixelRows

_CHUNK = 1 << 22
_MAX_VALUES = 1 << 28
_MAX_DECODED_VALUES = 1 << 25  # of images that must be decoded for it


def channel_mean_std(pixels: PixelRows) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel, pixels scaled to 0–1.

    The result is exact up to 268 million values, or 34 million if images are not in
    memory. Larger sets are estimated from evenly spaced images.

    Args:
        pixels: (N, H, W, C), uint8: the training split only.

    Example:
        >>> channel_mean_std(torch.tensor([0, 255]).byte().view(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    count, height, width, channels = pixels.shape
    each = height * width * channels
    most = _MAX_VALUES if isinstance(pixels, Tensor) else _MAX_DECODED_VALUES
    step = max(1, -(-count * each // most))
    span = step * max(1, _CHUNK // each)
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for start in range(0, count, span):
        chunk = pixels[start : start + span : step].reshape(-1, channels)
        # A histogram is exact and needs no float copy of the set.
        for channel, values in enumerate(chunk.unbind(1)):
            counts[channel] += torch.bincount(values, minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    share = counts.double() / counts.sum(1, keepdim=True)
    means = share @ levels
    variances = (share * (levels - means[:, None]) ** 2).sum(1)
    # Constant images have no deviation; 1/255 keeps the division finite.
    deviations = variances.sqrt().clamp_min(1 / 255)
    mean = tuple(round(value, 6) for value in means.tolist())
    return mean, tuple(round(value, 6) for value in deviations.tolist())
