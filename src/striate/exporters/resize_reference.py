"""Torch's antialiased bilinear resize of 8-bit images, as integer arithmetic in NumPy.

Each output pixel is a weighted mean: the triangle filter, stretched by the scale if the
image shrinks. The weights are rounded to integers, w·2^p, with the largest p so that
all of them stay below 2^15. Rows are resized first, then columns; after each of the two
passes the sums are rounded and clipped to 0–255.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from striate.core.preprocess_config import Preprocess, scaled_sides

MAX_PRECISION = 22  # largest p
WEIGHT_LIMIT = 1 << 15  # integer weights stay below it
_BLOCKS = 8  # of outputs in one pass; each block reads only the inputs that it needs


@dataclass(frozen=True, kw_only=True)
class ResizeTaps:
    """Integer weights of the outputs of one pass, each of neighboring inputs.

    Output i is the sum of `weights[i, j]`·input(`first[i]` + j), divided by
    2^`precision`. Places behind the image have the weight 0.
    """

    first: np.ndarray  # (outputs,) int64
    last: np.ndarray  # (outputs,) int64: the last input + 1
    weights: np.ndarray  # (outputs, taps) int64
    precision: int

    def dense(self, start: int, end: int) -> np.ndarray:
        """Return the weights of the outputs for the inputs `start` to `end`."""
        rows, taps = self.weights.shape
        matrix = np.zeros((rows, end - start + taps))
        places = self.first[:, None] - start + np.arange(taps)
        np.put_along_axis(matrix, places, self.weights, axis=1)
        return matrix[:, : end - start]

    def part(self, outputs: slice) -> ResizeTaps:
        """Return the weights of some outputs."""
        return ResizeTaps(
            first=self.first[outputs],
            last=self.last[outputs],
            weights=self.weights[outputs],
            precision=self.precision,
        )


def resize_taps(size: int, out_size: int, outputs: slice = slice(None)) -> ResizeTaps:
    """Return the integer weights for the resize of one side from `size` to `out_size`.

    Only some outputs may be computed: a center crop of a flat image can be a small part
    of the resized one. The largest weight, which decides p, is that of all outputs.

    Example:
        >>> taps = resize_taps(4, 2)
        >>> taps.first.tolist(), taps.weights[1].tolist(), taps.precision
        ([0, 1], [9362, 28087, 28087, 0, 0], 16)
    """
    index = np.arange(out_size)
    first, last, weights = _fractions(size, out_size, index[outputs])
    largest = 1.0  # the first output of an image that grows is the first input
    if out_size <= size:
        largest = _fractions(size, out_size, index)[2].max()
    powers = 2.0 ** np.arange(1, MAX_PRECISION + 1)
    precision = int((np.floor(largest * powers + 0.5) < WEIGHT_LIMIT).sum())
    return ResizeTaps(
        first=first,
        last=last,
        weights=np.floor(weights * 2.0**precision + 0.5).astype(np.int64),
        precision=precision,
    )


def _fractions(
    size: int, out_size: int, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first and last inputs of some outputs, and weights with the sum 1."""
    scale = size / out_size
    support = max(scale, 1.0)
    center = scale * (index[:, None] + 0.5)
    first = np.maximum(np.floor(center - support + 0.5), 0)
    last = np.minimum(np.floor(center + support + 0.5), size)
    position = np.arange(2 * np.ceil(support) + 1) + first
    distance = np.abs((position - center + 0.5) * (1 / support))
    weights = np.maximum(1 - distance, 0) * (position < last)
    weights /= weights.sum(axis=1, keepdims=True)
    return first[:, 0].astype(np.int64), last[:, 0].astype(np.int64), weights


def resize_weights(size: int, out_size: int) -> tuple[np.ndarray, int]:
    """Return the integer weights as a matrix, (out_size, size), and their precision p.

    Example:
        >>> weights, precision = resize_weights(4, 2)
        >>> weights.tolist(), precision
        ([[28087, 28087, 9362, 0], [0, 9362, 28087, 28087]], 16)
    """
    taps = resize_taps(size, out_size)
    return taps.dense(0, size).astype(np.int64), taps.precision


def resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize images as `torch.nn.functional.interpolate` does, without torch.

    Shapes:
        (N, H, W, C) uint8 → (N, height, width, C) uint8

    Example:
        >>> resize_pixels(np.full((1, 4, 6, 1), 9, np.uint8), 2, 3)[0, ..., 0].tolist()
        [[9, 9, 9], [9, 9, 9]]
    """
    return _resized(pixels, (height, width), (slice(None), slice(None)))


def preprocess_pixels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Resize images, then crop or pad them, as before training, without torch.

    Shapes:
        (N, H, W, C) uint8 → (N, preprocess.height, preprocess.width, C) uint8

    Example:
        >>> p = Preprocess(channels=1, height=2, width=4, resize="pad", background=7)
        >>> preprocess_pixels(np.zeros((1, 2, 2, 1), np.uint8), p)[0, 0, :, 0].tolist()
        [7, 0, 0, 7]
    """
    target = preprocess.height, preprocess.width
    if pixels.shape[1:3] == target:
        return pixels
    sides = scaled_sides(preprocess, *pixels.shape[1:3])
    # Negative borders crop; the odd pixel goes to the bottom right.
    borders = [(a - b) // 2 for a, b in zip(target, sides, strict=True)]
    starts = [max(0, -border) for border in borders]
    parts = [slice(a, a + size) for a, size in zip(starts, target, strict=True)]
    resized = _resized(pixels, sides, (parts[0], parts[1]))
    padding = [
        (max(0, border), max(0, size - side - max(0, border)))
        for border, size, side in zip(borders, target, sides, strict=True)
    ]
    pairs = [(0, 0), *padding, (0, 0)]
    return np.pad(resized, pairs, constant_values=preprocess.background)


def normalize_pixels(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Normalize 8-bit inputs, (v/255 − mean)/std, as before training, without torch.

    Shapes:
        (N, H, W, C) uint8 → (N, C, H, W) float32

    Example:
        >>> p = Preprocess(channels=1, height=1, width=1, mean=(0.5,), std=(0.5,))
        >>> normalize_pixels(np.array([[[[255]]]], np.uint8), p).tolist()
        [[[[1.0]]]]
    """
    mean, std = (
        np.float32(255) * np.array(values, np.float32).reshape(-1, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )
    x = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).astype(np.float32)
    x -= mean
    x /= std
    return x


def _resized(
    pixels: np.ndarray, sides: tuple[int, int], parts: tuple[slice, slice]
) -> np.ndarray:
    """Resize to `sides`, and compute only these parts of the result."""
    height, width = pixels.shape[1:3]
    vertical, horizontal = (
        resize_taps(size, side, part)
        for size, side, part in zip((height, width), sides, parts, strict=True)
    )
    rows = _pass(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), horizontal)
    # Transposed, so that the pass along the columns is the same product.
    columns = _pass(np.ascontiguousarray(rows.swapaxes(2, 3)), vertical)
    return np.ascontiguousarray(columns.transpose(0, 3, 2, 1))


def _pass(pixels: np.ndarray, taps: ResizeTaps) -> np.ndarray:
    """Resize the last dimension. All sums are below 2^53, so doubles are exact."""
    count = len(taps.first)
    out = np.empty((*pixels.shape[:-1], count), np.uint8)
    bounds = np.linspace(0, count, min(_BLOCKS, count) + 1).astype(int).tolist()
    for start, end in pairwise(bounds):
        block = taps.part(slice(start, end))
        low, high = int(block.first[0]), int(block.last[-1])
        weights = block.dense(low, high) / 2.0**taps.precision
        sums = pixels[..., low:high].astype(np.float64) @ weights.T
        out[..., start:end] = np.minimum(sums + 0.5, 255.0)  # rounded down
    return out
