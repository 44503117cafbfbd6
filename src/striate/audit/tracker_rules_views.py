"""Receptive-field rules of reshape, slice, pad, concatenate and pixel shuffle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from striate.audit.receptive_field import merge_neighbors, repeat_units, take_every
from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    bound_all,
    concatenate_fields,
    elementwise_field,
    has_image_axis,
    image_axis,
    map_dim,
    mix_dims,
    plain_dim,
    reshape_field,
    set_dim,
)

Shape = Sequence[int]
Rule = Callable[[ReceptiveField, tuple[Any, ...], Shape], ReceptiveField]


def _view(field: ReceptiveField, args: tuple[Any, ...], shape: Shape) -> ReceptiveField:
    return reshape_field(field, shape)


def _permute(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    return replace(field, dims=tuple(field.dims[d] for d in args[1]))


def _transpose(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    dims = list(field.dims)
    a, b = args[1:] if len(args) > 1 else (0, len(dims) - 1)
    dims[a], dims[b] = dims[b], dims[a]
    return replace(field, dims=tuple(dims))


def _slice(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    arguments = dict(enumerate(args))
    dim, step = arguments.get(1, 0) % len(shape), arguments.get(4, 1)
    count = prod(size for _, size in field.dims[dim])
    start = range(count)[slice(arguments.get(2), arguments.get(3), step)].start
    return _cut(field, dim, start, step, shape)


def _cut(
    field: ReceptiveField, dim: int, start: int, step: int, shape: Shape
) -> ReceptiveField:
    if prod(size for _, size in field.dims[dim]) == shape[dim] and start == 0:
        return field
    field, axis_index = image_axis(field, dim)
    if axis_index is None:
        return set_dim(field, dim, plain_dim(shape[dim]))
    count = shape[dim]
    return map_dim(
        field, dim, axis_index, lambda axis: take_every(axis, start, step, count)
    )


def _select(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    dim = args[1] % len(field.dims)
    size = prod(size for _, size in field.dims[dim])
    sizes = [prod(size for _, size in dim) for dim in field.dims]
    sizes[dim] = 1
    cut = _cut(field, dim, args[2] % size, 1, sizes)
    return reshape_field(cut, shape)


def _split(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape, output_index: int
) -> ReceptiveField:
    dim = (args[2] if len(args) > 2 else 0) % len(shape)
    sizes = args[1]
    start = (
        output_index * sizes if isinstance(sizes, int) else sum(sizes[:output_index])
    )
    return _cut(field, dim, start, 1, shape)


def _unbind(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape, output_index: int
) -> ReceptiveField:
    dim = args[1] if len(args) > 1 else 0
    return _select(field, (args[0], dim, output_index), shape)


def _pixel_shuffle(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    """Rule of pixel shuffle by r: repeat every unit r times along rows and columns."""
    times = args[1]
    field = mix_dims(field, [1])
    for dim in (2, 3):
        field, axis_index = image_axis(field, dim)
        if axis_index is not None:
            repeat = partial(repeat_units, before=1, after=times)
            field = map_dim(field, dim, axis_index, repeat)
        else:
            field = set_dim(field, dim, plain_dim(shape[dim]))
    return set_dim(field, 1, plain_dim(shape[1]))


def _pixel_unshuffle(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    """Rule of pixel unshuffle by r: merge r rows and r columns into each unit."""
    times = args[1]
    for dim in (2, 3):
        field, axis_index = image_axis(field, dim)
        if axis_index is not None:
            field = map_dim(
                field, dim, axis_index, partial(merge_neighbors, size=times)
            )
        else:
            field = set_dim(field, dim, plain_dim(shape[dim]))
    return set_dim(field, 1, plain_dim(shape[1]))


def _pad(field: ReceptiveField, args: tuple[Any, ...], shape: Shape) -> ReceptiveField:
    amounts = args[1]
    for i in range(len(amounts) // 2):
        dim = len(shape) - 1 - i
        if amounts[2 * i] or amounts[2 * i + 1]:
            field = _cut(field, dim, -amounts[2 * i], 1, shape)
    return field


def _cat(sources: Any, args: tuple[Any, ...], shape: Shape) -> ReceptiveField:
    dim = (args[1] if len(args) > 1 else 0) % len(shape)
    fields = [field for _, field in sources]
    if len(fields) < len(args[0]) and any(has_image_axis(s, dim) for s in fields):
        return bound_all(fields, shape)
    return concatenate_fields(fields, dim, shape)


RULES: dict[str, Rule] = {
    "view": _view,
    "_unsafe_view": _view,
    "unsqueeze": _view,
    "squeeze": _view,
    "reshape": _view,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "expand": lambda field, args, shape: elementwise_field([field], shape),
    "slice": _slice,
    "select": _select,
    "constant_pad_nd": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}

# Rules for operations with several outputs, by output index.
MULTI_OUTPUT_RULES: dict[str, Callable[..., ReceptiveField]] = {
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
}

# Rules for several inputs that depend on the image.
MULTI_INPUT_RULES: dict[str, Callable[..., ReceptiveField]] = {"cat": _cat}
