"""Receptive-field rules of reshape, slice, pad, concatenate and pixel shuffle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from striate.audit.receptive_field import merge_neighbors, repeat_units, take_every
from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    Shape,
    bound_all,
    concatenate_fields,
    elementwise_field,
    has_image_axis,
    map_image_axis,
    mix_dims,
    plain_dim,
    reshape_field,
    set_dim,
)

Field = ReceptiveField
Args = tuple[Any, ...]
Rule = Callable[[Field, Args, Shape], Field]


def _permute(field: Field, args: Args, shape: Shape) -> Field:
    return replace(field, dims=tuple(field.dims[d] for d in args[1]))


def _transpose(field: Field, args: Args, shape: Shape) -> Field:
    dims = list(field.dims)
    a, b = args[1:] if len(args) > 1 else (0, len(dims) - 1)
    dims[a], dims[b] = dims[b], dims[a]
    return replace(field, dims=tuple(dims))


def _slice(field: Field, args: Args, shape: Shape) -> Field:
    arguments = dict(enumerate(args))
    dim, step = arguments.get(1, 0) % len(shape), arguments.get(4, 1)
    count = prod(size for _, size in field.dims[dim])
    start = range(count)[slice(arguments.get(2), arguments.get(3), step)].start
    return _cut(field, dim, start, step, shape)


def _cut(field: Field, dim: int, start: int, step: int, shape: Shape) -> Field:
    count = shape[dim]
    if prod(size for _, size in field.dims[dim]) == count and start == 0:
        return field
    take = partial(take_every, start=start, step=step, count=count)
    return map_image_axis(field, dim, take, count)


def _select(field: Field, args: Args, shape: Shape) -> Field:
    dim = args[1] % len(field.dims)
    size = prod(size for _, size in field.dims[dim])
    sizes = [prod(size for _, size in dim) for dim in field.dims]
    sizes[dim] = 1
    cut = _cut(field, dim, args[2] % size, 1, sizes)
    return reshape_field(cut, shape)


def _split(field: Field, args: Args, shape: Shape, output_index: int) -> Field:
    dim = (args[2] if len(args) > 2 else 0) % len(shape)
    sizes = args[1]
    before = [sizes] * output_index if isinstance(sizes, int) else sizes[:output_index]
    return _cut(field, dim, sum(before), 1, shape)


def _unbind(field: Field, args: Args, shape: Shape, output_index: int) -> Field:
    dim = args[1] if len(args) > 1 else 0
    return _select(field, (args[0], dim, output_index), shape)


def _pixel_shuffle(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of pixel shuffle by r: repeat every unit r times along rows and columns."""
    field = mix_dims(field, [1])
    repeat = partial(repeat_units, before=1, after=args[1])
    for dim in (2, 3):
        field = map_image_axis(field, dim, repeat, shape[dim])
    return set_dim(field, 1, plain_dim(shape[1]))


def _pixel_unshuffle(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of pixel unshuffle by r: merge r rows and r columns into each unit."""
    merge = partial(merge_neighbors, size=args[1])
    for dim in (2, 3):
        field = map_image_axis(field, dim, merge, shape[dim])
    return set_dim(field, 1, plain_dim(shape[1]))


def _pad(field: Field, args: Args, shape: Shape) -> Field:
    amounts = args[1]
    for i in range(len(amounts) // 2):
        dim = len(shape) - 1 - i
        if amounts[2 * i] or amounts[2 * i + 1]:
            field = _cut(field, dim, -amounts[2 * i], 1, shape)
    return field


def _glu(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of a gated linear unit: one half of a dimension gates the other half."""
    dim = (args[1] if len(args) > 1 else -1) % len(shape)
    if has_image_axis(field, dim):
        return bound_all([field], shape)
    return set_dim(field, dim, plain_dim(shape[dim]))


def _cat(sources: Any, args: Args, shape: Shape) -> Field:
    dim = (args[1] if len(args) > 1 else 0) % len(shape)
    fields = [field for _, field in sources]
    if len(fields) < len(args[0]) and any(has_image_axis(s, dim) for s in fields):
        return bound_all(fields, shape)
    return concatenate_fields(fields, dim, shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("view", "_unsafe_view", "unsqueeze", "squeeze", "reshape"),
        lambda field, args, shape: reshape_field(field, shape),
    ),
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "expand": lambda field, args, shape: elementwise_field([field], shape),
    "slice": _slice,
    "glu": _glu,
    "select": _select,
    "constant_pad_nd": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}

# Rules for operations with several outputs, by output index.
MULTI_OUTPUT_RULES: dict[str, Callable[..., Field]] = {
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
}

# Rules for several inputs that depend on the image.
MULTI_INPUT_RULES: dict[str, Callable[..., Field]] = {"cat": _cat}
