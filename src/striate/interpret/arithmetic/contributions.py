"""Contributions of all pixels and of all layers' biases to the value of one unit.

Let a be the inputs of a step, y its output, J = ∂y/∂a and g = ∂unit/∂y. The step adds
g·(y − J·a). For a piecewise linear step (convolution, batch norm, ReLU, pooling), this
is the contribution of its bias. All contributions add up to the value of the unit:

    unit = Σ pixels g·x + Σ steps g·(y − J·a)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from striate.interpret.arithmetic.op_rules import optional_gradients
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.trace import TensorRef, Trace, TraceStep

_ROUNDING = 1e-6  # share of a step's terms; a smaller rest is a float32 rounding error


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """Contributions of pixels and biases to the value of one unit."""

    value: float  # the value as torch computed it
    pixels: Tensor  # (C, H, W): contribution of each input value
    # Contribution of each step by name: biases, and the nonlinear part of smooth
    # functions such as tanh; `rounding` is the float32 rounding error.
    steps: dict[str, float]

    @property
    def total(self) -> float:
        """Sum of all contributions."""
        return float(self.pixels.sum()) + sum(self.steps.values())


def contributions(
    arithmetic: UnitArithmetic, name: str, unit: tuple[int, ...]
) -> Contributions:
    """Compute the contributions of all pixels and biases to the value of one unit.

    The backward pass recomputes the traced steps one by one, so the model is not
    needed. Memory holds the gradients of all steps.

    Raises:
        SettingError: The unit does not exist.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> arithmetic = UnitArithmetic(model, torch.rand(1, 1, 3, 3))
        >>> result = contributions(arithmetic, "0", (1, 0, 0))
        >>> abs(result.total - result.value) < 1e-5
        True
    """
    trace = arithmetic.trace
    entry = arithmetic.open(name, unit)
    start = torch.zeros_like(trace.value(entry.ref), dtype=torch.float64)
    start[entry.unit] = 1
    gradients = {entry.ref: start}
    by_step: dict[str, float] = {}
    for number in range(entry.ref.step, 0, -1):
        step = trace.steps[number]
        results = [TensorRef(number, index) for index in range(len(step.results))]
        upstream = {ref: gradients.pop(ref) for ref in results if ref in gradients}
        if not upstream:
            continue
        remainder, size = _backward_step(trace, step, upstream, gradients)
        exact = abs(remainder) > _ROUNDING * size
        label = arithmetic.name(results[0]) if exact else "rounding"
        by_step[label] = by_step.get(label, 0.0) + remainder
    image = trace.value(TensorRef(0))
    pixels = gradients.get(TensorRef(0), torch.zeros_like(image)) * image
    return Contributions(value=entry.value, pixels=pixels[0], steps=by_step)


def _backward_step(
    trace: Trace,
    step: TraceStep,
    upstream: dict[TensorRef, Tensor],
    gradients: dict[TensorRef, Tensor],
) -> tuple[float, float]:
    """Backpropagate through a step; return its bias term and Σ abs(value·grad)."""
    sources = list(dict.fromkeys(step.refs))
    inputs = {
        ref: trace.value(ref).detach().clone().requires_grad_() for ref in sources
    }
    with torch.enable_grad():
        results = step.recompute(lambda source: inputs[source])
        pairs = [
            (results[ref.index], grad.to(results[ref.index].dtype))
            for ref, grad in upstream.items()
            if results[ref.index].requires_grad
        ]
        input_gradients = optional_gradients(
            [result for result, _ in pairs],
            list(inputs.values()),
            [grad for _, grad in pairs],
        )
    products = [trace.value(ref).double() * grad for ref, grad in upstream.items()]
    size = sum(float(terms.abs().sum()) for terms in products)
    added = sum(float(terms.sum()) for terms in products)
    for source, gradient in zip(sources, input_gradients, strict=True):
        if gradient is None:
            continue
        double = gradient.double()
        added -= float((trace.value(source).double() * double).sum())
        before = gradients.get(source)
        gradients[source] = double if before is None else before + double
    return added, size
