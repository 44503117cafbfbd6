"""A whole number shared out: so much from each pixel, so much from each layer's biases.

With a the numbers and g = ∂unit/∂a, a step with output y adds g·(y − J·a): its biases,
and nothing else where it is linear between its kinks, as convolutions, batch norm,
ReLU and pools are. What pixels and steps add is the unit itself:

    unit = Σ pixels g·x + Σ steps g·(y − J·a)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from striate.interpret.arithmetic.op_rules import optional_gradients
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.trace import TensorRef, TraceStep

_ROUNDING = 1e-6  # of a step's terms: less is what single precision loses


@dataclass(frozen=True, kw_only=True)
class Contributions:
    """What a number is made of, all the way down.

    Args:
        value: The framework's number.
        pixels: (C, H, W): what each input number adds.
        steps: What each step adds of its own, by name: biases, and the bend of
            functions that are not straight; what is left is `rounding`.
    """

    value: float
    pixels: Tensor
    steps: dict[str, float]

    @property
    def total(self) -> float:
        """Everything added up."""
        return float(self.pixels.sum()) + sum(self.steps.values())


def contributions(
    book: UnitArithmetic, name: str, unit: tuple[int, ...]
) -> Contributions:
    """Share one number out over pixels and biases.

    The backward pass goes along the ledger's own steps, each recomputed by itself, so
    the model is not needed; memory holds every step's gradient.

    Raises:
        SettingError: There is no such unit.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> book = UnitArithmetic(model, torch.rand(1, 1, 3, 3))
        >>> found = contributions(book, "0", (1, 0, 0))
        >>> abs(found.total - found.value) < 1e-5
        True
    """
    entry = book.open(name, unit)
    start = torch.zeros_like(book.tape.value(entry.ref), dtype=torch.float64)
    start[entry.unit] = 1
    gradients = {entry.ref: start}
    own: dict[str, float] = {}
    for number in range(entry.ref.step, 0, -1):
        step = book.tape.steps[number]
        parts = [TensorRef(number, part) for part in range(len(step.results))]
        asked = {ref: gradients.pop(ref) for ref in parts if ref in gradients}
        if not asked:
            continue
        left, size = _back(book, step, asked, gradients)
        name_of = book.name(parts[0]) if abs(left) > _ROUNDING * size else "rounding"
        own[name_of] = own.get(name_of, 0.0) + left
    pixels = gradients.get(
        TensorRef(0), torch.zeros_like(book.tape.value(TensorRef(0)))
    )
    spread = (pixels * book.tape.value(TensorRef(0)))[0]
    return Contributions(value=entry.value, pixels=spread, steps=own)


def _back(
    book: UnitArithmetic,
    step: TraceStep,
    asked: dict[TensorRef, Tensor],
    gradients: dict[TensorRef, Tensor],
) -> tuple[float, float]:
    """Send gradients through one step; return what it adds, and its terms' size."""
    sources = list(dict.fromkeys(step.refs))
    inputs = {s: book.tape.value(s).detach().clone().requires_grad_() for s in sources}
    with torch.enable_grad():
        results = step.again(lambda source: inputs[source])
        pairs = [
            (results[ref.part], grad)
            for ref, grad in asked.items()
            if results[ref.part].requires_grad
        ]
        outputs = [result for result, _ in pairs]
        sent = [grad.to(result.dtype) for result, grad in pairs]
        found = optional_gradients(outputs, list(inputs.values()), sent)
    kept = [book.tape.value(ref).double() * grad for ref, grad in asked.items()]
    size = sum(float(terms.abs().sum()) for terms in kept)
    added = sum(float(terms.sum()) for terms in kept)
    for source, gradient in zip(sources, found, strict=True):
        if gradient is None:
            continue
        double = gradient.double()
        added -= float((book.tape.value(source).double() * double).sum())
        before = gradients.get(source)
        gradients[source] = double if before is None else before + double
    return added, size
