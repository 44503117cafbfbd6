"""What units see through views, cuts, padding and concatenation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

from striate.audit.rf_axis import fold, pick, stretch
from striate.audit.rf_tracker import (
    Sight,
    along,
    blur_all,
    concatenate,
    image_axis,
    marked,
    mix,
    overlay,
    plain,
    regroup,
    set_dim,
)

Shape = Sequence[int]
Rule = Callable[[Sight, tuple[Any, ...], Shape], Sight]


def _view(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    return regroup(sight, shape)


def _permute(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    return replace(sight, dims=tuple(sight.dims[d] for d in args[1]))


def _transpose(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    dims = list(sight.dims)
    a, b = args[1:] if len(args) > 1 else (0, len(dims) - 1)
    dims[a], dims[b] = dims[b], dims[a]
    return replace(sight, dims=tuple(dims))


def _slice(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    given = dict(enumerate(args))
    dim, step = given.get(1, 0) % len(shape), given.get(4, 1)
    count = prod(size for _, size in sight.dims[dim])
    start = range(count)[slice(given.get(2), given.get(3), step)].start
    return _cut(sight, dim, start, step, shape)


def _cut(sight: Sight, dim: int, start: int, step: int, shape: Shape) -> Sight:
    if prod(size for _, size in sight.dims[dim]) == shape[dim] and start == 0:
        return sight
    sight, mark = image_axis(sight, dim)
    if mark is None:
        return set_dim(sight, dim, plain(shape[dim]))
    count = shape[dim]
    return along(sight, dim, mark, lambda axis: pick(axis, start, step, count))


def _select(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    dim = args[1] % len(sight.dims)
    size = prod(size for _, size in sight.dims[dim])
    one = [prod(size for _, size in dim) for dim in sight.dims]
    one[dim] = 1
    cut = _cut(sight, dim, args[2] % size, 1, one)
    return regroup(cut, shape)


def _split(sight: Sight, args: tuple[Any, ...], shape: Shape, part: int) -> Sight:
    dim = (args[2] if len(args) > 2 else 0) % len(shape)
    sizes = args[1]
    start = part * sizes if isinstance(sizes, int) else sum(sizes[:part])
    return _cut(sight, dim, start, 1, shape)


def _unbind(sight: Sight, args: tuple[Any, ...], shape: Shape, part: int) -> Sight:
    dim = args[1] if len(args) > 1 else 0
    return _select(sight, (args[0], dim, part), shape)


def _pixel_shuffle(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Deal r·r channels into space: rows and columns each show every unit r times."""
    times = args[1]
    sight = mix(sight, [1])
    for dim in (2, 3):
        sight, mark = image_axis(sight, dim)
        if mark is not None:
            grow = partial(stretch, before=1, after=times)
            sight = along(sight, dim, mark, grow)
        else:
            sight = set_dim(sight, dim, plain(shape[dim]))
    return set_dim(sight, 1, plain(shape[1]))


def _pixel_unshuffle(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Deal r×r cells into channels: each unit unites r rows and columns."""
    times = args[1]
    for dim in (2, 3):
        sight, mark = image_axis(sight, dim)
        if mark is not None:
            sight = along(sight, dim, mark, partial(fold, parts=times))
        else:
            sight = set_dim(sight, dim, plain(shape[dim]))
    return set_dim(sight, 1, plain(shape[1]))


def _pad(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    amounts = args[1]
    for i in range(len(amounts) // 2):
        dim = len(shape) - 1 - i
        if amounts[2 * i] or amounts[2 * i + 1]:
            sight = _cut(sight, dim, -amounts[2 * i], 1, shape)
    return sight


def _cat(sources: Any, args: tuple[Any, ...], shape: Shape) -> Sight:
    dim = (args[1] if len(args) > 1 else 0) % len(shape)
    sights = [sight for _, sight in sources]
    if len(sights) < len(args[0]) and any(marked(s, dim) for s in sights):
        return blur_all(sights, shape)
    return concatenate(sights, dim, shape)


RULES: dict[str, Rule] = {
    "view": _view,
    "_unsafe_view": _view,
    "unsqueeze": _view,
    "squeeze": _view,
    "reshape": _view,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    "expand": lambda sight, args, shape: overlay([sight], shape),
    "slice": _slice,
    "select": _select,
    "constant_pad_nd": _pad,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}

# One output of several, by its number.
PARTS: dict[str, Callable[..., Sight]] = {
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
}

# Of several tensors that depend on the image.
MANY: dict[str, Callable[..., Sight]] = {"cat": _cat}
