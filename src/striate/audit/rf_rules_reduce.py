"""What units see through sums, norms and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from striate.audit.rf_tracker import (
    Sight,
    blur_all,
    mix,
    overlay,
    plain,
    reduce_dims,
    set_dim,
)

Shape = Sequence[int]
Rule = Callable[[Sight, tuple[Any, ...], Shape], Sight]


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


def _product(sources: Any, args: tuple[Any, ...], shape: Shape) -> Sight:
    """Follow a matrix product: what is summed over is united."""
    matrices = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)][-2:]
    sights = [sight for _, sight in sources]
    if len(sights) > 1 or sources[0][0] not in matrices:
        return _both(sights, shape)
    left = sources[0][0] == matrices[0]
    count = len(shape)
    summed = count - 1 if left else count - 2
    return set_dim(mix(sights[0], [summed]), summed, plain(shape[summed]))


def _both(sights: Sequence[Sight], shape: Shape) -> Sight:
    """Follow attention: only equal batch dimensions keep their places."""
    count = len(shape)
    if any(len(sight.dims) != count for sight in sights):  # a bias that looks
        return blur_all(sights, shape)
    mixed = [
        replace(mix(sight, range(count - 2, count)), loose=True) for sight in sights
    ]
    mixed = [
        set_dim(set_dim(m, count - 2, plain(shape[-2])), count - 1, plain(shape[-1]))
        for m in mixed
    ]
    return overlay(mixed, shape)


RULES: dict[str, Rule] = {
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
}

# Of several tensors that depend on the image.
MANY: dict[str, Callable[..., Sight]] = {
    "mm": _product,
    "addmm": _product,
    "bmm": _product,
    "baddbmm": _product,
}
