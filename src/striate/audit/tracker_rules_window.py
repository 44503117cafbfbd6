"""Receptive-field rules of convolution, pooling and resizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from striate.audit.quantized import CONVOLUTIONS
from striate.audit.receptive_field import (
    Axis,
    gather_units,
    slide_window,
    transposed_window,
)
from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    Shape,
    has_image_axis,
    image_axis,
    map_dim,
    map_image_axis,
    mix_dims,
    plain_dim,
    set_dim,
)
from striate.audit.resample_tables import RESIZES, ResizeSettings, TableOf
from striate.audit.window_args import SlidingWindow, quantized_window, window_of

Field = ReceptiveField
Args = tuple[Any, ...]
Rule = Callable[[Field, Args, Shape], Field]
aten = torch.ops.aten


def _convolution(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of a convolution: slide a window over rows and columns, mix all channels."""
    return _convolved(field, window_of(aten.convolution.default, args), shape)


def _quantized_convolution(field: Field, args: Args, shape: Shape) -> Field:
    return _convolved(field, quantized_window(args), shape)


def _convolved(field: Field, sliding: Any, shape: Shape) -> Field:
    if sliding.pointwise and _upright(field):
        return set_dim(field, 1, plain_dim(shape[1]))
    is_bound = field.is_bound or (sliding.groups > 1 and has_image_axis(field, 1))
    field = mix_dims(field, [1])
    step = transposed_window if sliding.transposed else slide_window
    field = _slide(field, sliding, shape, step)
    return replace(set_dim(field, 1, plain_dim(shape[1])), is_bound=is_bound)


def _upright(field: Field) -> bool:
    """Return whether the dimensions of a tensor are batch, channels, rows, columns."""
    rows, columns = field.dims[-2:]
    has_axes = len(rows) == len(columns) == 1 and not has_image_axis(field, 1)
    return has_axes and (rows[0][0], columns[0][0]) == (0, 1)


def _slide(field: Field, sliding: SlidingWindow, shape: Shape, step: Any) -> Field:
    cache: dict[tuple[Any, ...], Axis] = {}  # rows and columns are often equal
    first = len(shape) - len(sliding.kernel)

    def slide(axis: Axis, i: int) -> Axis:
        kernel, stride, padding, dilation = settings = sliding.axis(i)
        key = (id(axis), *settings, shape[first + i])
        if key not in cache:
            outputs = shape[first + i]
            cache[key] = step(axis, kernel, stride, padding, dilation, outputs=outputs)
        return cache[key]

    for i in range(len(sliding.kernel)):
        field = map_image_axis(field, first + i, partial(slide, i=i), shape[first + i])
    return field


def _pool(func: Any) -> Rule:
    def rule(field: Field, args: Args, shape: Shape) -> Field:
        sliding: Any = window_of(func, args)
        return _slide(field, sliding, shape, slide_window)

    return rule


def _resize(name: str) -> Rule:
    """Return the rule of `F.interpolate` for one operation of torch."""
    count, table, can_align = RESIZES[name]

    def rule(field: Field, args: Args, shape: Shape) -> Field:
        settings = [*args[2:], *[None] * 4]
        aligned = bool(settings.pop(0)) if can_align else False
        for i in range(count):
            scale = ResizeSettings(settings[i], args[0].dtype, aligned)
            dim = len(shape) - count + i
            field = _resampled(field, dim, shape[dim], _with_settings(table, scale))
            field = replace(field, is_bound=field.is_bound or scale.is_bound)
        return field

    return rule


def _with_settings(table: TableOf, settings: ResizeSettings) -> Any:
    return lambda inputs, outputs: table(inputs, outputs, settings)


def _adaptive(field: Field, args: Args, shape: Shape) -> Field:
    for dim in (len(shape) - 2, len(shape) - 1):
        field = _resampled(field, dim, shape[dim], _adaptive_table)
    return field


def _resampled(
    field: Field, dim: int, outputs: int, table: Callable[[int, int], Any]
) -> Field:
    """Gather the units of one axis; `table` returns each output's input positions."""
    field, axis_index = image_axis(field, dim)
    if axis_index is None:
        return set_dim(field, dim, plain_dim(outputs))
    sources = table(field.sides[axis_index], outputs)
    return map_dim(field, dim, axis_index, partial(gather_units, table=sources))


def _adaptive_table(inputs: int, outputs: int) -> Any:
    """Return input indices of pooling output i: ⌊i·n/m⌋ … ⌈(i + 1)·n/m⌉ − 1."""
    i = np.arange(outputs)
    first, last = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
    at = first[:, None] + np.arange(int((last - first).max()))
    return np.where(at < last[:, None], at, -1)


RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool(aten.max_pool2d_with_indices.default),
    "avg_pool2d": _pool(aten.avg_pool2d.default),
    "avg_pool3d": _pool(aten.avg_pool3d.default),
    "_adaptive_avg_pool2d": _adaptive,
    "adaptive_max_pool2d": _adaptive,
    **{name: _resize(name) for name in RESIZES},
    **dict.fromkeys(CONVOLUTIONS, _quantized_convolution),
}
