"""The receptive field of every unit: a table from operation to what it lets be seen.

An operation that is not in the table is bounded, never ignored: its units see at most
everything its inputs saw, and the result is marked as a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.audit.axis import (
    Axis,
    fold,
    gather,
    pick,
    spread_out,
    stretch,
    unfold,
    window,
)
from striate.audit.sight import (
    PLAIN,
    Sight,
    along,
    blur_all,
    concatenate,
    mix,
    overlay,
    plain,
    reduce_dims,
    regroup,
    set_dim,
    straighten,
)
from striate.audit.windows import read_windows

Shape = Sequence[int]
Rule = Callable[[Sight, tuple[Any, ...], Shape], Sight]
aten = torch.ops.aten


def follow(
    func: Any,
    args: tuple[Any, ...],
    sources: Sequence[tuple[int, Sight]],
    shape: Shape,
    part: int = 0,
) -> Sight:
    """Return what the units of an operation's output see.

    Args:
        func: The operation.
        args: Its arguments.
        sources: Which tensors among them depend on the picture, and their sights;
            tensors are numbered in order, those in lists too.
        shape: Of the output.
        part: Which of several outputs it is, where the operation splits.
    """
    sights = [sight for _, sight in sources]
    name = func.overloadpacket.__name__
    try:
        if name in _MANY:
            return _MANY[name](sources, args, shape)
        if sources[0][0] == 0 and len(sights) == 1:
            if name in _SPLITS:
                return _SPLITS[name](sights[0], args, shape, part)
            if name in _RULES:
                return _RULES[name](sights[0], args, shape)
    except _LostError:
        return blur_all(sights, shape)
    if _element_wise(func, name):
        return overlay(sights, shape)
    return blur_all(sights, shape)


class _LostError(Exception):
    """The units' places cannot be followed through this operation."""


def _element_wise(func: Any, name: str) -> bool:
    if name in _KEEPING or torch.Tag.pointwise in func.tags:
        return True
    return name.endswith("_") and name.rstrip("_") in _KEEPING


_KEEPING_NAMES = """
    clone copy detach alias contiguous _to_copy to dropout native_dropout lift_fresh
    bernoulli masked_fill where empty_like zeros_like ones_like
"""
_KEEPING = frozenset(_KEEPING_NAMES.split())


def _convolution(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Slide over the last dimensions and mix all channels."""
    windows: Any = read_windows(aten.convolution.default, args)
    if windows.pointwise and _upright(sight):
        return set_dim(sight, 1, plain(shape[1]))
    loose = sight.loose or (windows.groups > 1 and _marked(sight, 1))
    sight = mix(sight, [1])
    step = unfold if windows.transposed else window
    sight = _slide(sight, windows, shape, step)
    return replace(set_dim(sight, 1, plain(shape[1])), loose=loose)


def _upright(sight: Sight) -> bool:
    """Tell a map that stands as pictures do: batch, channels, rows, columns."""
    rows, columns = sight.dims[-2:]
    held = len(rows) == len(columns) == 1 and not _marked(sight, 1)
    return held and (rows[0][0], columns[0][0]) == (0, 1)


def _marked(sight: Sight, dim: int) -> bool:
    return any(mark != PLAIN for mark, _ in sight.dims[dim])


def _slide(sight: Sight, windows: Any, shape: Shape, step: Any) -> Sight:
    known: dict[tuple[Any, ...], Axis] = {}
    first = len(shape) - len(windows.kernel)
    geometry = zip(
        windows.kernel, windows.stride, windows.padding, windows.dilation, strict=True
    )
    for dim, (kernel, stride, padding, dilation) in enumerate(geometry, start=first):
        sight, mark = _axis(sight, dim)
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


def _axis(sight: Sight, dim: int) -> tuple[Sight, int | None]:
    """Return the picture's axis along a dimension, made straight; None if plain."""
    if not _marked(sight, dim):
        return _lone_axis(sight, dim)
    sight = straighten(sight, dim)
    mark = sight.axis_of(dim)
    if mark is None:
        raise _LostError
    return sight, mark


def _lone_axis(sight: Sight, dim: int) -> tuple[Sight, int | None]:
    """Give a map of one row or column its axis back, which reshapes had dropped.

    Padding matters to it too: windows that miss it see nothing.
    """
    mark, count = dim - 2, len(sight.dims)
    if mark < 0 or count != 4 or sight.sides[mark] > 1:
        return sight, None
    if any(_holds(sight, at, mark) for at in range(count)):
        return sight, None
    size = prod(size for _, size in sight.dims[dim])
    return along(sight, dim, mark, partial(spread_out, count=size)), mark


def _holds(sight: Sight, dim: int, mark: int) -> bool:
    return any(held == mark for held, _ in sight.dims[dim])


def _pool(func: Any) -> Rule:
    def rule(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
        return _slide(sight, read_windows(func, args), shape, window)

    return rule


def _resample(table: Callable[..., Any]) -> Rule:
    """Build the rule of an operation that reads by `table(inputs, outputs, …)`."""

    def rule(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
        for dim in (len(shape) - 2, len(shape) - 1):
            sight, mark = _axis(sight, dim)
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


def _reduction(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    dims = args[1] if len(args) > 1 and args[1] is not None else []
    dims = [dims] if isinstance(dims, int) else dims
    keep = (len(args) > 2 and args[2] is True) or len(shape) == len(sight.dims)
    return reduce_dims(sight, dims or range(len(sight.dims)), keep)


def _mixing(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    return mix(sight, [args[1] % len(shape)])


def _layer_norm(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    return mix(sight, range(len(shape) - len(args[1]), len(shape)))


def _group_norm(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    return mix(sight, range(1, len(shape)))


def _batch_norm(sight: Sight, args: tuple[Any, ...], shape: Shape) -> Sight:
    training = args[5]
    return mix(sight, [0, *range(2, len(shape))]) if training else sight


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
    sight, mark = _axis(sight, dim)
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
        sight, mark = _axis(sight, dim)
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
        sight, mark = _axis(sight, dim)
        if mark is not None and times > 1:
            sight = along(sight, dim, mark, partial(fold, parts=times))
        elif mark is None:
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
    if len(sights) < len(args[0]) and any(_marked(s, dim) for s in sights):
        return blur_all(sights, shape)
    return concatenate(sights, dim, shape)


def _product(sources: Any, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Follow a matrix product: what is summed over is united."""
    matrices = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)][-2:]
    sights = [sight for _, sight in sources]
    if len(sights) > 1 or sources[0][0] not in matrices:
        return _both(sights, shape)
    left = sources[0][0] == matrices[0]
    count = len(shape)
    summed, kept = (count - 1, count - 2) if left else (count - 2, count - 1)
    made = mix(sights[0], [summed])
    return set_dim(made, summed, plain(shape[summed])) if kept >= 0 else made


def _both(sights: Sequence[Sight], shape: Shape) -> Sight:
    """Follow attention: only equal batch dimensions keep their places."""
    count = len(shape)
    if any(len(sight.dims) != count for sight in sights):
        return blur_all(sights, shape)
    mixed = [
        replace(mix(sight, range(count - 2, count)), loose=True) for sight in sights
    ]
    mixed = [
        set_dim(set_dim(m, count - 2, plain(shape[-2])), count - 1, plain(shape[-1]))
        for m in mixed
    ]
    return overlay(mixed, shape)


_MANY: dict[str, Callable[..., Sight]] = {
    "cat": _cat,
    "mm": _product,
    "addmm": _product,
    "bmm": _product,
    "baddbmm": _product,
}

_SPLITS: dict[str, Callable[..., Sight]] = {
    "split": _split,
    "split_with_sizes": _split,
    "unbind": _unbind,
}

_RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "max_pool2d_with_indices": _pool(aten.max_pool2d_with_indices.default),
    "avg_pool2d": _pool(aten.avg_pool2d.default),
    "avg_pool3d": _pool(aten.avg_pool3d.default),
    "_adaptive_avg_pool2d": _resample(_adaptive),
    "adaptive_max_pool2d": _resample(_adaptive),
    "upsample_nearest2d": _resample(_nearest),
    "upsample_bilinear2d": _resample(_bilinear),
    "mean": _reduction,
    "sum": _reduction,
    "amax": _reduction,
    "amin": _reduction,
    "max": _reduction,
    "min": _reduction,
    "var": _reduction,
    "std": _reduction,
    "linalg_vector_norm": _reduction,
    "_softmax": _mixing,
    "_safe_softmax": _mixing,
    "_log_softmax": _mixing,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
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
