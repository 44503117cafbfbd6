"""Table of rules that split an output value of a torch operation into its terms.

A rule returns the terms of a sum, or the inputs of a function. For an operation without
a rule, the value is recomputed, and the terms are all inputs with a nonzero gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.interpret.arithmetic.unit_value import (
    COPY,
    FUNCTION,
    MAXIMUM,
    Floats,
    InputTerms,
    UnitValue,
    weighted_sum,
)
from striate.interpret.trace import TensorRef, TraceStep, is_in_place

Unit = tuple[int, ...]
Value = Callable[[TensorRef], Tensor]
Rule = Callable[[TraceStep, TensorRef, Unit, Value], UnitValue]


def _numbers(tensor: Tensor) -> Floats:
    return tensor.detach().double().cpu().numpy()


def _terms(ref: TensorRef, value: Tensor, at: Any, weights: Any) -> InputTerms:
    positions = np.asarray(at, np.int64).reshape(-1)
    values = _numbers(value.detach().reshape(-1)[torch.from_numpy(positions)])
    return InputTerms(
        ref=ref, positions=positions, values=values, weights=np.ravel(weights)
    )


def _number(tensor: Tensor) -> float:
    return float(tensor.detach())


def _value_at(step: TraceStep, ref: TensorRef, unit: Unit) -> float:
    return _number(step.results[ref.index][unit])


def _convolution(
    step: TraceStep, ref: TensorRef, unit: Unit, value: Value
) -> UnitValue:
    """Rule of a convolution: Σ x·w over the group's channels and the window, + bias."""
    source, weight, bias, stride, padding, dilation, transposed, _, groups = step.args
    x = value(source)
    n, channel, *positions = unit
    outputs = step.results[0].shape[1] // groups
    group, within = divmod(channel, outputs)
    if transposed:
        first = group * weight.shape[0] // groups
        kernel = weight[first : first + weight.shape[0] // groups, within]
    else:
        first = group * weight.shape[1]
        kernel = weight[channel]
    taps = [
        _taps(at, size, side, s, p, d, transposed)
        for at, size, side, s, p, d in zip(
            positions,
            weight.shape[2:],
            x.shape[2:],
            *(_spread(v, len(positions)) for v in (stride, padding, dilation)),
            strict=True,
        )
    ]
    channels = first + np.arange(kernel.shape[0])
    inputs = np.ix_(np.array([n]), channels, *(inside for inside, _ in taps))
    at = np.ravel_multi_index(np.broadcast_arrays(*inputs), tuple(x.shape))
    rows = np.ix_(np.arange(kernel.shape[0]), *(tap for _, tap in taps))
    constant = 0.0 if bias is None else _number(bias[channel])
    term = _terms(source, x, at, _numbers(kernel)[rows])
    return weighted_sum(
        ref, unit, _value_at(step, ref, unit), "convolution", (term,), constant
    )


def _spread(value: Sequence[int], count: int) -> list[int]:
    return list(value) * count if len(value) == 1 else list(value)


def _taps(
    at: int,
    size: int,
    side: int,
    stride: int,
    padding: int,
    dilation: int,
    transposed: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a window's input positions inside the image, and their kernel cells."""
    taps = np.arange(size)
    if transposed:
        positions = at + padding - dilation * taps
        inside = (
            (positions % stride == 0) & (positions >= 0) & (positions < side * stride)
        )
        return positions[inside] // stride, taps[inside]
    positions = at * stride - padding + dilation * taps
    inside = (positions >= 0) & (positions < side)
    return positions[inside], taps[inside]


def _linear(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of `addmm` and `mm` with constant weights: Σ x·w + bias."""
    offset = len(step.args) - 2
    x, weight = step.args[offset], step.args[offset + 1]
    if not isinstance(x, TensorRef) or isinstance(weight, TensorRef):
        return _function(step, ref, unit, value)
    numbers = value(x)
    row, column = unit
    at = row * numbers.shape[1] + np.arange(numbers.shape[1])
    constant = 0.0
    if offset:
        bias = step.args[0]
        if isinstance(bias, TensorRef):
            return _function(step, ref, unit, value)
        constant = _number(bias.expand_as(step.results[0])[unit])
    term = _terms(x, numbers, at, _numbers(weight[:, column]))
    return weighted_sum(
        ref, unit, _value_at(step, ref, unit), "linear", (term,), constant
    )


def _batch_norm(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of batch norm (running μ, σ²): x·γ/√(σ² + ε) + (β − μ·γ/√(σ² + ε))."""
    source, weight, bias, mean, variance, training, _, epsilon = step.args
    if training or isinstance(mean, TensorRef) or mean is None:
        return _function(step, ref, unit, value)
    c = unit[1]
    slope = (1.0 if weight is None else _number(weight[c])) / math.sqrt(
        _number(variance[c]) + epsilon
    )
    shift = (0.0 if bias is None else _number(bias[c])) - _number(mean[c]) * slope
    x = value(source)
    term = _terms(source, x, _flat(unit, x), [slope])
    return weighted_sum(
        ref, unit, _value_at(step, ref, unit), "batch norm", (term,), shift
    )


def _flat(unit: Unit, tensor: Tensor) -> list[int]:
    return [int(np.ravel_multi_index(unit, tuple(tensor.shape)))]


def _max_pool(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of max pooling: the maximum of a window, at the index torch returns."""
    x = value(step.args[0])
    depth = 3 if "3d" in step.name else 2
    inner = math.prod(x.shape[-depth:])
    plane = unit[:-depth]
    outer = np.ravel_multi_index(plane, tuple(x.shape[:-depth])) if plane else 0
    at = int(outer) * inner + int(step.results[1][unit])
    term = _terms(step.args[0], x, [at], [1.0])
    value_here = _value_at(step, ref, unit)
    return weighted_sum(
        ref, unit, value_here, "maximum of the window", (term,), kind=MAXIMUM
    )


def _copy(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of a copied value: run the operation on indices to find the source."""
    starts: dict[TensorRef, int] = {}
    total = 1  # zero marks padding

    def positions(source: TensorRef) -> Tensor:
        nonlocal total
        numbers = value(source)
        if source not in starts:
            starts[source] = total
            total += numbers.numel()
        start = starts[source]
        line = torch.arange(start, start + numbers.numel(), dtype=torch.float64)
        return line.view(numbers.shape)

    value_here = _value_at(step, ref, unit)
    moved = _zero_filled(step).recompute(positions)[ref.index][unit]
    for source, start in starts.items():
        x = value(source)
        at = round(float(moved)) - start
        if 0 <= at < x.numel():
            terms = (_terms(source, x, [at], [1.0]),)
            return weighted_sum(
                ref, unit, value_here, _display_name(step.name), terms, kind=COPY
            )
    return weighted_sum(ref, unit, value_here, "padding", (), value_here, kind=COPY)


def _zero_filled(step: TraceStep) -> TraceStep:
    """Return a copy of a step with zero padding and zero constants."""
    args = tuple(_zeros(arg) for arg in step.args)
    if step.name == "constant_pad_nd":
        args = args[:2]
    kwargs = {k: v for k, v in step.kwargs.items() if k != "dtype"}
    return replace(step, args=args, kwargs=kwargs)


def _zeros(arg: Any) -> Any:
    if isinstance(arg, list | tuple):
        return type(arg)(_zeros(item) for item in arg)
    if isinstance(arg, Tensor) and arg.is_floating_point():
        return torch.zeros_like(arg, dtype=torch.float64)
    return arg


def _add(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of a sum: a + α·b with broadcasting; a or b may be a constant."""
    alpha = float(step.kwargs.get("alpha", 1))
    factors = {"sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}
    terms: list[InputTerms] = []
    constant = 0.0
    for term, weight in zip(
        step.args[:2], factors.get(step.name.rstrip("_"), (1.0, alpha)), strict=True
    ):
        if isinstance(term, TensorRef):
            terms.append(_broadcast_term(step, term, unit, value, weight))
        else:
            constant += weight * _at(term, unit)
    value_here = _value_at(step, ref, unit)
    return weighted_sum(ref, unit, value_here, "addition", tuple(terms), constant)


def _broadcast_term(
    step: TraceStep, ref: TensorRef, unit: Unit, value: Value, weight: float
) -> InputTerms:
    x = value(ref)
    return _terms(ref, x, _flat(_narrowed(unit, x.shape), x), [weight])


def _narrowed(unit: Unit, shape: Sequence[int]) -> Unit:
    """Convert a unit's index to the index in a tensor before broadcasting.

    Example:
        >>> _narrowed((0, 3, 5, 2), (4, 1, 1))
        (3, 0, 0)
    """
    tail = unit[len(unit) - len(shape) :]
    return tuple(0 if n == 1 else i for i, n in zip(tail, shape, strict=True))


def _at(term: Any, unit: Unit) -> float:
    if isinstance(term, Tensor):
        return _number(term[_narrowed(unit, term.shape)])
    return float(term)


def _scale(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of x·c and x/c with a constant c."""
    a, b = step.args[:2]
    if isinstance(a, TensorRef) == isinstance(b, TensorRef):
        return _pointwise(step, ref, unit, value)
    if step.name.startswith("div") and (isinstance(b, TensorRef) or len(step.kwargs)):
        return _pointwise(step, ref, unit, value)
    data, other = (a, b) if isinstance(a, TensorRef) else (b, a)
    weight = _at(other, unit)
    if step.name.startswith("div"):
        weight = 1 / weight
    term = _broadcast_term(step, data, unit, value, weight)
    return weighted_sum(ref, unit, _value_at(step, ref, unit), "scaling", (term,))


def _weighted(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of a linear operation without constant: the gradients are the weights."""
    return _by_derivative(step, ref, unit, value, _display_name(step.name))


def _by_derivative(
    step: TraceStep,
    ref: TensorRef,
    unit: Unit,
    value: Value,
    operation: str,
    kind: str = "",
) -> UnitValue:
    sources = list(dict.fromkeys(step.refs))
    inputs = {source: value(source).detach().requires_grad_() for source in sources}
    with torch.enable_grad():
        result = step.recompute(lambda source: inputs[source])[ref.index][unit]
        gradients = optional_gradients([result], list(inputs.values()))
    terms = []
    for source, gradient in zip(sources, gradients, strict=True):
        if gradient is not None:
            at = gradient.reshape(-1).nonzero()[:, 0]
            weights = _numbers(gradient.reshape(-1)[at])
            terms.append(_terms(source, inputs[source], at.numpy(), weights))
    value_here = _value_at(step, ref, unit)
    if kind != FUNCTION:
        return weighted_sum(ref, unit, value_here, operation, tuple(terms))
    result_again = _number(result)
    return UnitValue(
        ref=ref, unit=unit, value=value_here, kind=FUNCTION, operation=operation,
        terms=tuple(terms), result=result_again,
    )  # fmt: skip


def optional_gradients(
    results: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Any = None
) -> Sequence[Tensor | None]:
    """Return gradients; None for inputs that have no effect on the results."""
    if not any(result.requires_grad for result in results):
        return [None] * len(inputs)
    return torch.autograd.grad(results, inputs, grad_outputs, allow_unused=True)


def _pointwise(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of an element-wise function: recompute the result from the input values."""
    taken = {
        source: _flat(_narrowed(unit, value(source).shape), value(source))
        for source in dict.fromkeys(step.refs)
    }

    def single(source: TensorRef) -> Tensor:
        return value(source).reshape(-1)[taken[source][0]].clone()

    args = tuple(_single(arg, unit) for arg in step.args)
    kwargs = {k: _single(v, unit) for k, v in step.kwargs.items()}
    result = float(replace(step, args=args, kwargs=kwargs).recompute(single)[0])
    terms = tuple(
        _terms(source, value(source), at, [1.0]) for source, at in taken.items()
    )
    return UnitValue(
        ref=ref, unit=unit, value=_value_at(step, ref, unit), kind=FUNCTION,
        operation=_display_name(step.name), terms=terms, result=result,
    )  # fmt: skip


def _single(arg: Any, unit: Unit) -> Any:
    if isinstance(arg, Tensor) and arg.ndim:
        return arg[_narrowed(unit, arg.shape)]
    return arg


def _function(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Rule of any other operation: the terms are all inputs with a gradient."""
    return _by_derivative(step, ref, unit, value, _display_name(step.name), FUNCTION)


def _display_name(name: str) -> str:
    return name.strip("_").removesuffix("2d").removesuffix(".default").replace("_", " ")


_COPIES = """
    view _unsafe_view reshape t transpose permute expand squeeze unsqueeze slice select
    clone detach alias _to_copy flip roll pixel_shuffle pixel_unshuffle channel_shuffle
    reflection_pad2d replication_pad2d constant_pad_nd cat stack split unbind
    split_with_sizes unfold diagonal as_strided contiguous repeat
"""
_LINEAR = """
    avg_pool1d avg_pool2d avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum
    upsample_nearest2d upsample_bilinear2d upsample_bicubic2d cumsum
"""
RULES: dict[str, Rule] = {
    "convolution": _convolution,
    "addmm": _linear,
    "mm": _linear,
    "native_batch_norm": _batch_norm,
    "max_pool2d_with_indices": _max_pool,
    "max_pool3d_with_indices": _max_pool,
    "adaptive_max_pool2d": _max_pool,
    "add": _add,
    "sub": _add,
    "rsub": _add,
    "mul": _scale,
    "div": _scale,
    **dict.fromkeys(_COPIES.split(), _copy),
    **dict.fromkeys(_LINEAR.split(), _weighted),
}


def unit_value(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Split one output value of a step into its terms."""
    name = step.name.rstrip("_") if is_in_place(step.func) else step.name
    rule = RULES.get(name) if step.func is not None else None
    if rule is not None:
        return rule(step, ref, unit, value)
    if step.func is not None and torch.Tag.pointwise in step.func.tags:
        return _pointwise(step, ref, unit, value)
    return _function(step, ref, unit, value)
