"""Receptive-field rules of sums, means, norms, softmax and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    Shape,
    bound_all,
    elementwise_field,
    mix_dims,
    plain_dim,
    reduce_dims,
    set_dim,
)

Field = ReceptiveField
Args = tuple[Any, ...]
Rule = Callable[[Field, Args, Shape], Field]


def _reduction(field: Field, args: Args, shape: Shape) -> Field:
    dims = args[1] if len(args) > 1 and args[1] is not None else []
    dims = [dims] if isinstance(dims, int) else dims
    keep = (len(args) > 2 and args[2] is True) or len(shape) == len(field.dims)
    return reduce_dims(field, dims or range(len(field.dims)), keep)


def _mixing(field: Field, args: Args, shape: Shape) -> Field:
    return mix_dims(field, [args[1] % len(shape)])


def _layer_norm(field: Field, args: Args, shape: Shape) -> Field:
    return mix_dims(field, range(len(shape) - len(args[1]), len(shape)))


def _group_norm(field: Field, args: Args, shape: Shape) -> Field:
    return mix_dims(field, range(1, len(shape)))


def _batch_norm(field: Field, args: Args, shape: Shape) -> Field:
    training = args[5]
    return mix_dims(field, [0, *range(2, len(shape))]) if training else field


def _product(sources: Any, args: Args, shape: Shape) -> Field:
    """Rule of a matrix product: merge the units along the summed dimension."""
    matrices = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)][-2:]
    fields = [field for _, field in sources]
    if len(fields) > 1 or sources[0][0] not in matrices:
        return _both(fields, shape)
    is_left = sources[0][0] == matrices[0]
    count = len(shape)
    summed = count - 1 if is_left else count - 2
    return set_dim(mix_dims(fields[0], [summed]), summed, plain_dim(shape[summed]))


def _both(fields: Sequence[Field], shape: Shape) -> Field:
    """Rule of a product of two image-dependent tensors (attention): an upper bound."""
    count = len(shape)
    if any(len(field.dims) != count for field in fields):
        return bound_all(fields, shape)  # a bias that depends on the image
    mixed = []
    for field in fields:
        field = replace(mix_dims(field, range(count - 2, count)), is_bound=True)
        for dim in (count - 2, count - 1):
            field = set_dim(field, dim, plain_dim(shape[dim]))
        mixed.append(field)
    return elementwise_field(mixed, shape)


_REDUCTIONS = "mean sum amax amin max min var std linalg_vector_norm"
RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCTIONS.split(), _reduction),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _mixing),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
}

# Rules for several inputs that depend on the image.
MULTI_INPUT_RULES: dict[str, Callable[..., Field]] = dict.fromkeys(
    ("mm", "addmm", "bmm", "baddbmm"), _product
)
