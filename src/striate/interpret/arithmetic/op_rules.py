"""Table of rules that split an output value of a torch operation into its terms.

A rule returns the terms of a sum, or the inputs of a function. For an operation without
a rule, the value is recomputed, and the terms are all inputs with a nonzero gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.interpret.arithmetic.unit_value import (
    COPY,
    FUNCTION,
    MAXIMUM,
    SUM,
    Floats,
    InputTerms,
    UnitValue,
)
from striate.interpret.trace import TensorRef, TraceStep, is_in_place

Unit = tuple[int, ...]
Value = Callable[[TensorRef], Tensor]


@dataclass(frozen=True)
class _Output:
    """One output value of a traced operation, and access to the operation's inputs."""

    step: TraceStep
    ref: TensorRef
    unit: Unit
    value: Value

    @property
    def operation(self) -> str:
        name = self.step.name.strip("_").removesuffix("2d").removesuffix(".default")
        return name.replace("_", " ")

    def sum_of(
        self, *terms: InputTerms, operation: str, constant: float = 0.0, kind: str = SUM
    ) -> UnitValue:
        """Return the output as a weighted sum of terms and a constant."""
        total = constant + sum(float(term.contributions.sum()) for term in terms)
        return self._unit_value(kind, operation, terms, total, constant)

    def function_of(self, terms: Sequence[InputTerms], result: float) -> UnitValue:
        """Return the output as a nonlinear function of terms, with value `result`."""
        return self._unit_value(FUNCTION, self.operation, terms, result)

    def _unit_value(
        self,
        kind: str,
        operation: str,
        terms: Sequence[InputTerms],
        result: float,
        constant: float = 0.0,
    ) -> UnitValue:
        return UnitValue(
            ref=self.ref,
            unit=self.unit,
            value=_number(self.step.results[self.ref.index][self.unit]),
            kind=kind,
            operation=operation,
            terms=tuple(terms),
            constant=constant,
            result=result,
        )


Rule = Callable[[_Output], UnitValue]


def _numbers(tensor: Tensor) -> Floats:
    return tensor.detach().double().cpu().numpy()


def _number(tensor: Tensor) -> float:
    return float(tensor.detach())


def _terms(ref: TensorRef, value: Tensor, at: Any, weights: Any) -> InputTerms:
    positions = np.asarray(at, np.int64).reshape(-1)
    values = _numbers(value.detach().reshape(-1)[torch.from_numpy(positions)])
    return InputTerms(
        ref=ref, positions=positions, values=values, weights=np.ravel(weights)
    )


def _convolution(out: _Output) -> UnitValue:
    """Rule of a convolution: Σ x·w + bias, over window and channels of the group."""
    source, weight, bias, *settings, transposed, _, groups = out.step.args
    x = out.value(source)
    n, channel, *positions = out.unit
    group, within = divmod(channel, out.step.results[0].shape[1] // groups)
    if transposed:
        first = group * weight.shape[0] // groups
        kernel = weight[first : first + weight.shape[0] // groups, within]
    else:
        first = group * weight.shape[1]
        kernel = weight[channel]
    inside, taps = [], []
    for axis, at in enumerate(positions):
        window = [setting[min(axis, len(setting) - 1)] for setting in settings]
        cells = np.arange(kernel.shape[1 + axis])
        read, valid = _reads(at, x.shape[2 + axis], cells, window, transposed)
        inside.append(read[valid])
        taps.append(cells[valid])
    channels = first + np.arange(kernel.shape[0])
    inputs = np.ix_(np.array([n]), channels, *inside)
    flat = np.ravel_multi_index(np.broadcast_arrays(*inputs), tuple(x.shape))
    weights = _numbers(kernel)[np.ix_(np.arange(kernel.shape[0]), *taps)]
    constant = 0.0 if bias is None else _number(bias[channel])
    term = _terms(source, x, flat, weights)
    return out.sum_of(term, operation="convolution", constant=constant)


def _reads(
    at: int, side: int, cells: np.ndarray, window: list[int], transposed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the input index of each kernel cell, and a mask of the valid indices."""
    stride, padding, dilation = window
    if transposed:
        scaled = at + padding - dilation * cells
        valid = (scaled % stride == 0) & (scaled >= 0) & (scaled < side * stride)
        return scaled // stride, valid
    positions = at * stride - padding + dilation * cells
    return positions, (positions >= 0) & (positions < side)


def _linear(out: _Output) -> UnitValue:
    """Rule of `addmm` and `mm` with constant weights: Σ x·w + bias."""
    *biases, x, weight = out.step.args
    if not isinstance(x, TensorRef) or any(
        isinstance(constant, TensorRef) for constant in (*biases, weight)
    ):
        return _function(out)
    numbers = out.value(x)
    row, column = out.unit
    at = row * numbers.shape[1] + np.arange(numbers.shape[1])
    constants = [_number(b.expand_as(out.step.results[0])[out.unit]) for b in biases]
    term = _terms(x, numbers, at, _numbers(weight[:, column]))
    return out.sum_of(term, operation="linear", constant=sum(constants))


def _batch_norm(out: _Output) -> UnitValue:
    """Rule of batch norm (running μ, σ²): x·γ/√(σ² + ε) + (β − μ·γ/√(σ² + ε))."""
    source, weight, bias, mean, variance, training, _, epsilon = out.step.args
    if training or isinstance(mean, TensorRef) or mean is None:
        return _function(out)
    c = out.unit[1]
    deviation = math.sqrt(_number(variance[c]) + epsilon)
    slope = (1.0 if weight is None else _number(weight[c])) / deviation
    shift = (0.0 if bias is None else _number(bias[c])) - _number(mean[c]) * slope
    x = out.value(source)
    term = _terms(source, x, _flat(out.unit, x), [slope])
    return out.sum_of(term, operation="batch norm", constant=shift)


def _flat(unit: Unit, tensor: Tensor) -> list[int]:
    return [int(np.ravel_multi_index(unit, tuple(tensor.shape)))]


def _max_pool(out: _Output) -> UnitValue:
    """Rule of max pooling: the maximum of a window, at the index torch returns."""
    source = out.step.args[0]
    x = out.value(source)
    depth = 3 if "3d" in out.step.name else 2
    plane = out.unit[:-depth]
    outer = np.ravel_multi_index(plane, tuple(x.shape[:-depth])) if plane else 0
    inner = int(out.step.results[1][out.unit])
    at = int(outer) * math.prod(x.shape[-depth:]) + inner
    term = _terms(source, x, [at], [1.0])
    return out.sum_of(term, operation="maximum of the window", kind=MAXIMUM)


def _copy(out: _Output) -> UnitValue:
    """Rule of an operation that copies values: run it on indices to find the source."""
    starts: dict[TensorRef, int] = {}
    total = 1  # zero marks padding

    def positions(source: TensorRef) -> Tensor:
        nonlocal total
        numbers = out.value(source)
        if source not in starts:
            starts[source] = total
            total += numbers.numel()
        start = starts[source]
        line = torch.arange(start, start + numbers.numel(), dtype=torch.float64)
        return line.view(numbers.shape)

    moved = _zero_filled(out.step).recompute(positions)[out.ref.index][out.unit]
    for source, start in starts.items():
        x = out.value(source)
        at = round(float(moved)) - start
        if 0 <= at < x.numel():
            term = _terms(source, x, [at], [1.0])
            return out.sum_of(term, operation=out.operation, kind=COPY)
    constant = _number(out.step.results[out.ref.index][out.unit])
    return out.sum_of(operation="padding", constant=constant, kind=COPY)


def _zero_filled(step: TraceStep) -> TraceStep:
    """Return a copy of an operation, with zeros in place of its constant inputs."""
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


def _add(out: _Output) -> UnitValue:
    """Rule of a sum: a + α·b with broadcasting; a or b may be a constant."""
    alpha = float(out.step.kwargs.get("alpha", 1))
    factors = {"sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}
    weights = factors.get(out.step.name.rstrip("_"), (1.0, alpha))
    terms: list[InputTerms] = []
    constant = 0.0
    for term, weight in zip(out.step.args[:2], weights, strict=True):
        if isinstance(term, TensorRef):
            terms.append(_broadcast_term(out, term, weight))
        else:
            constant += weight * _at(term, out.unit)
    return out.sum_of(*terms, operation="addition", constant=constant)


def _broadcast_term(out: _Output, ref: TensorRef, weight: float) -> InputTerms:
    x = out.value(ref)
    return _terms(ref, x, _flat(_narrowed(out.unit, x.shape), x), [weight])


def _narrowed(unit: Unit, shape: Sequence[int]) -> Unit:
    """Convert an index after broadcasting to the index in the tensor before it.

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


def _scale(out: _Output) -> UnitValue:
    """Rule of x·c and x/c with a constant c."""
    a, b = out.step.args[:2]
    divides = out.step.name.startswith("div")
    if isinstance(a, TensorRef) == isinstance(b, TensorRef):
        return _pointwise(out)
    if divides and (isinstance(b, TensorRef) or len(out.step.kwargs)):
        return _pointwise(out)
    data, other = (a, b) if isinstance(a, TensorRef) else (b, a)
    weight = _at(other, out.unit)
    term = _broadcast_term(out, data, 1 / weight if divides else weight)
    return out.sum_of(term, operation="scaling")


def _weighted(out: _Output) -> UnitValue:
    """Rule of a linear operation without bias: its gradients are the weights."""
    return out.sum_of(*_by_derivative(out)[0], operation=out.operation)


def _function(out: _Output) -> UnitValue:
    """Rule of any other operation: the terms are all inputs with nonzero gradient."""
    terms, result = _by_derivative(out)
    return out.function_of(terms, result)


def _by_derivative(out: _Output) -> tuple[list[InputTerms], float]:
    """Return all inputs with nonzero gradient as terms, and the recomputed output."""
    sources = list(dict.fromkeys(out.step.refs))
    inputs = {source: out.value(source).detach().requires_grad_() for source in sources}
    with torch.enable_grad():
        results = out.step.recompute(lambda source: inputs[source])
        result = results[out.ref.index][out.unit]
        gradients = optional_gradients([result], list(inputs.values()))
    terms = []
    for source, gradient in zip(sources, gradients, strict=True):
        if gradient is not None:
            at = gradient.reshape(-1).nonzero()[:, 0]
            weights = _numbers(gradient.reshape(-1)[at])
            terms.append(_terms(source, inputs[source], at.numpy(), weights))
    return terms, _number(result)


def optional_gradients(
    results: Sequence[Tensor], inputs: Sequence[Tensor], grad_outputs: Any = None
) -> Sequence[Tensor | None]:
    """Return the gradient for each input; None if the input does not affect results."""
    if not any(result.requires_grad for result in results):
        return [None] * len(inputs)
    return torch.autograd.grad(results, inputs, grad_outputs, allow_unused=True)


def _pointwise(out: _Output) -> UnitValue:
    """Rule of an element-wise function: recompute the result from the input values."""
    step, unit = out.step, out.unit
    terms = {ref: _broadcast_term(out, ref, 1.0) for ref in dict.fromkeys(step.refs)}

    def single(ref: TensorRef) -> Tensor:
        return out.value(ref).reshape(-1)[int(terms[ref].positions[0])].clone()

    args = tuple(_single(arg, unit) for arg in step.args)
    kwargs = {k: _single(v, unit) for k, v in step.kwargs.items()}
    result = float(replace(step, args=args, kwargs=kwargs).recompute(single)[0])
    return out.function_of(list(terms.values()), result)


def _single(arg: Any, unit: Unit) -> Any:
    if isinstance(arg, Tensor) and arg.ndim:
        return arg[_narrowed(unit, arg.shape)]
    return arg


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
_MAX_POOLS = "max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d"
RULES: dict[str, Rule] = {
    "convolution": _convolution,
    **dict.fromkeys(("addmm", "mm"), _linear),
    "native_batch_norm": _batch_norm,
    **dict.fromkeys(_MAX_POOLS.split(), _max_pool),
    **dict.fromkeys(("add", "sub", "rsub"), _add),
    **dict.fromkeys(("mul", "div"), _scale),
    **dict.fromkeys(_COPIES.split(), _copy),
    **dict.fromkeys(_LINEAR.split(), _weighted),
}


def unit_value(step: TraceStep, ref: TensorRef, unit: Unit, value: Value) -> UnitValue:
    """Split one output value of a traced operation into its terms."""
    output = _Output(step, ref, unit, value)
    if step.func is None:
        return _function(output)
    name = step.name.rstrip("_") if is_in_place(step.func) else step.name
    pointwise = torch.Tag.pointwise in step.func.tags
    return RULES.get(name, _pointwise if pointwise else _function)(output)
