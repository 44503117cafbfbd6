"""Receptive-field rules of sums, means, norms, softmax and matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from striate.audit.quantized import PRODUCTS
from striate.audit.receptive_field import accumulate_units
from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    Shape,
    bound_all,
    elementwise_field,
    map_image_axis,
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


def _norm(field: Field, args: Args, shape: Shape) -> Field:
    """Rule of a vector norm; its order comes before the dimensions."""
    return _reduction(field, (args[0], *args[2:]), shape)


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


def _quantized_product(field: Field, args: Args, shape: Shape) -> Field:
    last = len(shape) - 1
    return set_dim(mix_dims(field, [last]), last, plain_dim(shape[last]))


def _attention(sources: Any, args: Args, shape: Shape) -> Field:
    """Rule of fused attention: the union of queries, keys and values, a bound."""
    return _both([field for i, field in sources if i < 3], shape)


def _recurrent(sources: Any, args: Args, shape: Shape) -> Field:
    """Rule of an LSTM layer: step t depends on the steps up to t, or from t on."""
    if [i for i, _ in sources] != [0]:  # a first state that depends on the image
        return bound_all([field for _, field in sources], shape)
    field = mix_dims(sources[0][1], [2])
    accumulate = partial(accumulate_units, reverse=args[7])
    field = map_image_axis(field, 0, accumulate, shape[0])
    return set_dim(field, 2, plain_dim(shape[2]))


_REDUCTIONS = """
    mean sum amax amin max min var std var_mean prod any all argmax argmin logsumexp
    nansum median
"""
RULES: dict[str, Rule] = {
    **dict.fromkeys(_REDUCTIONS.split(), _reduction),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _norm),
    **dict.fromkeys(PRODUCTS, _quantized_product),
    **dict.fromkeys(("_softmax", "_safe_softmax", "_log_softmax"), _mixing),
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "native_batch_norm": _batch_norm,
}

# Rules for several inputs that depend on the image.
MULTI_INPUT_RULES: dict[str, Callable[..., Field]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _product),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "mkldnn_rnn_layer": _recurrent,
}
