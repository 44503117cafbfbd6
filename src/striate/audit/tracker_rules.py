"""Table of the receptive-field rule of every torch operation.

The rules are in the files tracker_rules_window (convolution, pooling, resize),
…_reduce (sums, norms, matrix products) and …_views (reshape, pad, concat). The
arithmetic of a padded, strided or dilated window is in receptive_field.py.

An operation without a rule gets an upper bound: the receptive field of each unit is the
union of all input fields, and the result is marked as a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from striate.audit import tracker_rules_reduce as reduce_rules
from striate.audit import tracker_rules_views as view_rules
from striate.audit import tracker_rules_window as window_rules
from striate.audit.receptive_field_tracker import (
    ReceptiveField,
    bound_all,
    elementwise_field,
)

Shape = Sequence[int]
Rule = Callable[[ReceptiveField, tuple[Any, ...], Shape], ReceptiveField]

_RULES: dict[str, Rule] = {
    **window_rules.RULES,
    **reduce_rules.RULES,
    **view_rules.RULES,
}
_MULTI_OUTPUT_RULES = view_rules.MULTI_OUTPUT_RULES
_MULTI_INPUT_RULES = {**reduce_rules.MULTI_INPUT_RULES, **view_rules.MULTI_INPUT_RULES}
# torch does not tag them as element-wise, or not their in-place form.
_SAME_POSITION_NAMES = """
    clone copy detach alias contiguous _to_copy to dropout native_dropout lift_fresh
    bernoulli masked_fill where empty_like zeros_like ones_like
    hardswish mish gelu prelu _prelu_kernel log_sigmoid_forward rrelu_with_noise
    rrelu_with_noise_functional celu quantize_per_tensor dequantize
    add_relu mul_relu leaky_relu elu
"""
_SAME_POSITION = frozenset(_SAME_POSITION_NAMES.split())


def propagate_field(
    func: Any,
    args: tuple[Any, ...],
    # Pairs (index of an input tensor that depends on the image, its receptive field);
    # tensors in lists are counted too.
    sources: Sequence[tuple[int, ReceptiveField]],
    shape: Shape,
    output_index: int = 0,  # index of the output, for operations with several
) -> ReceptiveField:
    """Return the receptive field of an operation's output."""
    fields = [field for _, field in sources]
    name = func.overloadpacket.__name__
    try:
        if name in _MULTI_INPUT_RULES:
            return _MULTI_INPUT_RULES[name](sources, args, shape)
        if sources[0][0] == 0 and len(fields) == 1:
            if name in _MULTI_OUTPUT_RULES:
                return _MULTI_OUTPUT_RULES[name](fields[0], args, shape, output_index)
            if name in _RULES:
                return _RULES[name](fields[0], args, shape)
    except Exception:  # a form of the operation that its rule does not know
        return bound_all(fields, shape)
    if _element_wise(func, name):
        return elementwise_field(fields, shape)
    return bound_all(fields, shape)


_PER_CHANNEL_NAMES = """
    cat native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional
"""
_PER_CHANNEL = frozenset(_PER_CHANNEL_NAMES.split())


@cache
def is_local(func: Any) -> bool:
    """Return whether each output of an operation depends only on the same position.

    Example:
        >>> is_local(torch.ops.aten.relu.default), is_local(torch.ops.aten.mm.default)
        (True, False)
    """
    name = func.overloadpacket.__name__
    return name in _PER_CHANNEL or _element_wise(func, name)


@cache
def _element_wise(func: Any, name: str) -> bool:
    if name in _SAME_POSITION or torch.Tag.pointwise in func.tags:
        return True
    return name.endswith("_") and name.rstrip("_") in _SAME_POSITION
