"""What units see through windows: convolutions, pools, resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from striate.audit.rf_axis import Axis, gather, unfold, window
from striate.audit.rf_tracker import (
    Sight,
    along,
    image_axis,
    marked,
    mix,
    plain,
    set_dim,
)
from striate.audit.window_args import read_windows

Shape = Sequence[int]
Rule = Callable[[Sight, tuple[Any, ...], Shape], Sight]
aten = torch.ops.aten


def _convolution(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Slide over the last dimensions and mix all channels."""
    windows: Any = read_windows(aten.convolution.default, args)
    if windows.pointwise and _upright(sight):
        return set_dim(sight, 1, plain(shape[1]))
    loose = sight.loose or (windows.groups > 1 and marked(sight, 1))
    sight = mix(sight, [1])
    step = unfold if windows.transposed else window
    sight = _slide(sight, windows, shape, step)
    return replace(set_dim(sight, 1, plain(shape[1])), loose=loose)


def _upright(sight: Sight) -> bool:
    """Tell a map that stands as images do: batch, channels, rows, columns."""
    rows, columns = sight.dims[-2:]
    held = len(rows) == len(columns) == 1 and not marked(sight, 1)
    return held and (rows[0][0], columns[0][0]) == (0, 1)


def _slide(sight: Sight, windows: Any, shape: Shape, step: Any) -> Sight:
    known: dict[tuple[Any, ...], Axis] = {}
    first = len(shape) - len(windows.kernel)
    geometry = zip(
        windows.kernel, windows.stride, windows.padding, windows.dilation, strict=True
    )
    for dim, (kernel, stride, padding, dilation) in enumerate(geometry, start=first):
        sight, mark = image_axis(sight, dim)
        if mark is None:
            sight = set_dim(sight, dim, plain(shape[dim]))
            continue
        settings = (kernel, stride, padding, dilation)
        slide = partial(_slid, known, step, settings, shape[dim])
        sight = along(sight, dim, mark, slide)
    return sight


def _slid(
    known: dict[tuple[Any, ...], Axis],
    step: Any,
    settings: tuple[int, ...],
    outputs: int,
    axis: Axis,
) -> Axis:
    """Slide over an axis once: rows and columns are mostly alike."""
    key = (id(axis), settings)
    if key not in known:
        known[key] = step(axis, *settings, outputs=outputs)
    return known[key]


def _pool(func: Any) -> Rule:
    def rule(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
        return _slide(sight, read_windows(func, args), shape, window)

    return rule


def _resample(table: Callable[..., Any]) -> Rule:
    """Build the rule of an operation that reads by `table(inputs, outputs, …)`."""

    def rule(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
        for dim in (len(shape) - 2, len(shape) - 1):
            sight, mark = image_axis(sight, dim)
            if mark is None:
                sight = set_dim(sight, dim, plain(shape[dim]))
                continue
            read = table(sight.sides[mark], shape[dim], *args[2:3])
            sight = along(sight, dim, mark, partial(gather, table=read))
        return sight

    return rule


def _adaptive(inputs: int, outputs: int, *_: Any) -> Any:
    """Cell i averages ⌊i·n/m⌋ … ⌈(i + 1)·n/m⌉ − 1."""
    i = np.arange(outputs)
    first, last = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
    at = first[:, None] + np.arange(int((last - first).max()))
    return np.where(at < last[:, None], at, -1)


def _nearest(inputs: int, outputs: int, *_: Any) -> Any:
    return (np.arange(outputs) * inputs // outputs)[:, None]


def _bilinear(inputs: int, outputs: int, corners: bool = False, *_: Any) -> Any:
    """Source (i + ½)·n/m − ½ lies between two positions; on one, it reads that only."""
    if corners:
        parts = max(outputs - 1, 1)
        at = np.arange(outputs) * (inputs - 1)
    else:
        parts = 2 * outputs
        at = np.maximum((2 * np.arange(outputs) + 1) * inputs - outputs, 0)
    first = at // parts
    second = np.where(at % parts == 0, -1, np.minimum(first + 1, inputs - 1))
    return np.stack([first, second], axis=1)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool(aten.max_pool2d_with_indices.default),
    "avg_pool2d": _pool(aten.avg_pool2d.default),
    "avg_pool3d": _pool(aten.avg_pool3d.default),
    "_adaptive_avg_pool2d": _resample(_adaptive),
    "adaptive_max_pool2d": _resample(_adaptive),
    "upsample_nearest2d": _resample(_nearest),
    "upsample_bilinear2d": _resample(_bilinear),
}
