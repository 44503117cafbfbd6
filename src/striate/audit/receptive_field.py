"""The receptive field of every unit: a table from operation to what it lets be seen.

An operation that is not in the table is bounded, never ignored: its units see at most
everything its inputs saw, and the result is marked as a bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from striate.audit import rf_rules_reduce as mixing
from striate.audit import rf_rules_views as moving
from striate.audit import rf_rules_window as sliding
from striate.audit.rf_tracker import LostError, Sight, blur_all, overlay

Shape = Sequence[int]
Rule = Callable[[Sight, tuple[Any, ...], Shape], Sight]

_RULES: dict[str, Rule] = {**sliding.RULES, **mixing.RULES, **moving.RULES}
_PARTS = moving.PARTS
_MANY = {**mixing.MANY, **moving.MANY}
_KEEPING_NAMES = """
    clone copy detach alias contiguous _to_copy to dropout native_dropout lift_fresh
    bernoulli masked_fill where empty_like zeros_like ones_like
"""
_KEEPING = frozenset(_KEEPING_NAMES.split())


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
        sources: Which tensors among them depend on the image, and their sights;
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
            if name in _PARTS:
                return _PARTS[name](sights[0], args, shape, part)
            if name in _RULES:
                return _RULES[name](sights[0], args, shape)
    except LostError:
        return blur_all(sights, shape)
    if _element_wise(func, name):
        return overlay(sights, shape)
    return blur_all(sights, shape)


_PER_CHANNEL_NAMES = """
    cat native_batch_norm cudnn_batch_norm _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional
"""
_PER_CHANNEL = frozenset(_PER_CHANNEL_NAMES.split())


@cache
def is_local(func: Any) -> bool:
    """Tell an operation that keeps positions apart, as ReLU and batch norm do.

    Example:
        >>> is_local(torch.ops.aten.relu.default), is_local(torch.ops.aten.mm.default)
        (True, False)
    """
    name = func.overloadpacket.__name__
    return name in _PER_CHANNEL or _element_wise(func, name)


@cache
def _element_wise(func: Any, name: str) -> bool:
    if name in _KEEPING or torch.Tag.pointwise in func.tags:
        return True
    return name.endswith("_") and name.rstrip("_") in _KEEPING
