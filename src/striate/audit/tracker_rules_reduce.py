"""Receptive-field rules of sums, means, norms, softmax and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    bound_all,
    elementwise_field,
    mix_dims,
    plain_dim,
    reduce_dims,
    set_dim,
)

Shape = Sequence[int]
Rule = Callable[[ReceptiveField, tuple[Any, ...], Shape], ReceptiveField]


def _reduction(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    dims = args[1] if len(args) > 1 and args[1] is not None else []
    dims = [dims] if isinstance(dims, int) else dims
    keep = (len(args) > 2 and args[2] is True) or len(shape) == len(field.dims)
    return reduce_dims(field, dims or range(len(field.dims)), keep)


def _mixing(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    return mix_dims(field, [args[1] % len(shape)])


def _layer_norm(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    return mix_dims(field, range(len(shape) - len(args[1]), len(shape)))


def _group_norm(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    return mix_dims(field, range(1, len(shape)))


def _batch_norm(
    field: ReceptiveField, args: tuple[Any, ...], shape: Shape
) -> ReceptiveField:
    training = args[5]
    return mix_dims(field, [0, *range(2, len(shape))]) if training else field


def _product(sources: Any, args: tuple[Any, ...], shape: Shape) -> ReceptiveField:
    """Rule of a matrix product: merge the units along the summed dimension."""
    matrices = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)][-2:]
    fields = [field for _, field in sources]
    if len(fields) > 1 or sources[0][0] not in matrices:
        return _both(fields, shape)
    is_left = sources[0][0] == matrices[0]
    count = len(shape)
    summed = count - 1 if is_left else count - 2
    return set_dim(mix_dims(fields[0], [summed]), summed, plain_dim(shape[summed]))


def _both(fields: Sequence[ReceptiveField], shape: Shape) -> ReceptiveField:
    """Rule of a product of two image-dependent tensors (attention): an upper bound."""
    count = len(shape)
    if any(
        len(field.dims) != count for field in fields
    ):  # a bias that depends on the image
        return bound_all(fields, shape)
    mixed = [
        replace(mix_dims(field, range(count - 2, count)), is_bound=True)
        for field in fields
    ]
    mixed = [
        set_dim(
            set_dim(m, count - 2, plain_dim(shape[-2])), count - 1, plain_dim(shape[-1])
        )
        for m in mixed
    ]
    return elementwise_field(mixed, shape)


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

# Rules for several inputs that depend on the image.
MULTI_INPUT_RULES: dict[str, Callable[..., ReceptiveField]] = {
    "mm": _product,
    "addmm": _product,
    "bmm": _product,
    "baddbmm": _product,
}
