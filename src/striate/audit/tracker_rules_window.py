"""Receptive-field rules of convolution, pooling and resizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

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
from striate.audit.window_args import SlidingWindow, window_of

Field = ReceptiveField
Args = tuple[Any, ...]
Rule = Callable[[Field, Args, Shape], Field]
aten = torch.ops.aten


def _convolution(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of a convolution: slide a window over rows and columns, mix all channels."""
    sliding: Any = window_of(aten.convolution.default, args)
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


def _resample(table: Callable[..., Any]) -> Rule:
    """Return the rule of a resize; `table` returns each output's input positions."""

    def rule(field: Field, args: Args, shape: Shape) -> Field:
        for dim in (len(shape) - 2, len(shape) - 1):
            field, axis_index = image_axis(field, dim)
            if axis_index is None:
                field = set_dim(field, dim, plain_dim(shape[dim]))
                continue
            sources = table(field.sides[axis_index], shape[dim], args)
            gather = partial(gather_units, table=sources)
            field = map_dim(field, dim, axis_index, gather)
        return field

    return rule


def _adaptive(inputs: int, outputs: int, args: Args) -> Any:
    """Return input indices of pooling output i: ⌊i·n/m⌋ … ⌈(i + 1)·n/m⌉ − 1."""
    i = np.arange(outputs)
    first, last = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
    at = first[:, None] + np.arange(int((last - first).max()))
    return np.where(at < last[:, None], at, -1)


def _nearest(inputs: int, outputs: int, args: Args) -> Any:
    return (np.arange(outputs) * inputs // outputs)[:, None]


def _bilinear(inputs: int, outputs: int, args: Args) -> Any:
    """Return the two input indices of bilinear output i, nearest to (i + ½)·n/m − ½."""
    if len(args) > 2 and args[2]:  # corners are aligned
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
