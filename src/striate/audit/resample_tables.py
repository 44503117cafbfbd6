"""Input positions that each output of a resized map reads, with torch's rounding.

torch divides by the scale factor of `F.interpolate` in the precision of the map, so a
position may lie one pixel beside the exact quotient. These tables round like torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Table = NDArray[np.int64]  # (outputs, positions); −1: no position
TableOf = Callable[[int, int, "ResizeSettings"], Table]


class ResizeSettings:
    """Settings of one axis of a resize: the scale factor, if given, and the rounding.

    Args:
        scale: The factor given to `F.interpolate`; None if a size was given.
        dtype: The type of the map.
        align_corners: Whether the corners of the maps are aligned.
    """

    def __init__(
        self, scale: float | None, dtype: torch.dtype, align_corners: bool = False
    ) -> None:
        self.scale = scale
        self.align_corners = align_corners
        self.is_bound = False  # whether the table has more positions than are read
        self.real: Any = np.float64 if dtype is torch.float64 else np.float32

    def step(self, inputs: int, outputs: int, real: Any = None) -> Any:
        """Return the input positions per output position."""
        real = real or self.real
        if self.align_corners:
            return real(inputs - 1) / real(outputs - 1) if outputs > 1 else real(0)
        if self.scale:
            return real(1.0 / self.scale)
        return real(inputs) / real(outputs)

    def sources(self, inputs: int, outputs: int) -> list[Any]:
        """Return the positions that each output is read at, by each possible rounding.

        A processor may round product and difference together (FMA) or one by one.
        """
        real, step = self.real, self.step(inputs, outputs)
        at = np.arange(outputs, dtype=real)
        if self.align_corners:
            return [at * step]
        half = real(0.5)
        separate = step * (at + half) - half
        if real is np.float32:
            together = np.float64(step) * (np.float64(at) + 0.5) - 0.5
            return [separate, together.astype(real)]
        error = 1e-12 * np.maximum(np.abs(separate), 1.0)
        near = np.abs(separate - np.round(separate)) < error
        return [
            np.where(near, np.round(separate) + d, separate) for d in (-error, error)
        ]

    def unite(self, tables: list[Table]) -> Table:
        """Return all positions of several tables; they make a bound if they differ."""
        self.is_bound = any(not np.array_equal(tables[0], t) for t in tables[1:])
        return np.concatenate(tables, axis=1) if self.is_bound else tables[0]


def nearest(inputs: int, outputs: int, settings: ResizeSettings) -> Table:
    """Return the nearest input of each output: ⌊i·n/m⌋ in single precision.

    Example:
        >>> nearest(3, 4, ResizeSettings(1.5, torch.float32)).ravel().tolist()
        [0, 0, 1, 2]
    """
    at = np.arange(outputs)
    if outputs == inputs:
        return at[:, None]
    if outputs == 2 * inputs:
        return at[:, None] // 2
    step = settings.step(inputs, outputs, np.float32)
    return _whole(np.floor(at.astype(np.float32) * step), inputs)


def nearest_exact(inputs: int, outputs: int, settings: ResizeSettings) -> Table:
    """Return the nearest input of each output, with pixel centers: ⌊(i + ½)·n/m⌋.

    Example:
        >>> nearest_exact(4, 2, ResizeSettings(None, torch.float32)).ravel().tolist()
        [1, 3]
    """
    step = np.float64(settings.step(inputs, outputs, np.float32))
    at = (np.arange(outputs) + 0.5) * step
    return _whole(np.floor(at.astype(np.float32)), inputs)


def _whole(positions: Any, inputs: int) -> Table:
    table: Table = np.minimum(positions.astype(np.int64), inputs - 1)[:, None]
    return table


def linear(inputs: int, outputs: int, settings: ResizeSettings) -> Table:
    """Return the one or two inputs with a weight in each output of a linear resize.

    Example:
        >>> linear(2, 4, ResizeSettings(None, torch.float32)).tolist()
        [[0, -1], [0, 1], [0, 1], [1, 1]]
    """
    if outputs == inputs:
        return np.arange(outputs)[:, None]
    sources = settings.sources(inputs, outputs)
    return settings.unite([_linear(inputs, at, settings.real) for at in sources])


def _linear(inputs: int, at: Any, real: Any) -> Table:
    at = np.maximum(at, real(0))
    first = np.minimum(np.floor(at).astype(np.int64), inputs - 1)
    second = np.minimum(first + 1, inputs - 1)
    weight = np.clip(at - first.astype(real), 0, 1)
    first = np.where((weight == 1) & (second != first), -1, first)
    return np.stack([first, np.where(weight == 0, -1, second)], axis=1)


def cubic(inputs: int, outputs: int, settings: ResizeSettings) -> Table:
    """Return the one or four inputs with a weight in each output of a bicubic resize.

    Example:
        >>> cubic(8, 8, ResizeSettings(None, torch.float32))[3].tolist()
        [3]
    """
    if outputs == inputs:
        return np.arange(outputs)[:, None]
    sources = settings.sources(inputs, outputs)
    return settings.unite([_cubic(inputs, at, settings.real) for at in sources])


def _cubic(inputs: int, at: Any, real: Any) -> Table:
    first = np.floor(at).astype(np.int64)
    table = np.clip(first[:, None] + np.arange(-1, 3), 0, inputs - 1)
    aligned = (at == first.astype(real))[:, None]
    return np.where(aligned & (np.arange(4) != 1), -1, table)


def _smoothed(reach: float) -> TableOf:
    """Return the table of a resize with antialiasing, a bound; `reach`: its filter's.

    Positions at the edge of the filter may have no weight, depending on rounding.
    """

    def table(inputs: int, outputs: int, settings: ResizeSettings) -> Table:
        step = float(settings.step(inputs, outputs))
        stretch = max(step, 1.0)
        centers = step * (np.arange(outputs) + 0.5)
        settings.is_bound = True
        first = np.maximum((centers - reach * stretch + 0.5).astype(np.int64), 0)
        last = np.minimum((centers + reach * stretch + 0.5).astype(np.int64), inputs)
        at = first[:, None] + np.arange(int((last - first).max()))
        distance = np.abs(at - centers[:, None] + 0.5) / stretch
        has_weight = (at < last[:, None]) & (distance < reach * (1 + 1e-5))
        return np.where(has_weight, at, -1)

    return table


# Name of the operation → (number of image axes, table, whether it can align corners).
RESIZES: dict[str, tuple[int, TableOf, bool]] = {
    "upsample_nearest1d": (1, nearest, False),
    "upsample_nearest2d": (2, nearest, False),
    "_upsample_nearest_exact1d": (1, nearest_exact, False),
    "_upsample_nearest_exact2d": (2, nearest_exact, False),
    "upsample_linear1d": (1, linear, True),
    "upsample_bilinear2d": (2, linear, True),
    "upsample_bicubic2d": (2, cubic, True),
    "_upsample_bilinear2d_aa": (2, _smoothed(1), True),
    "_upsample_bicubic2d_aa": (2, _smoothed(2), True),
}
