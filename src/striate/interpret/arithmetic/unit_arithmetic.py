"""Unit arithmetic: split any value in a network into terms, down to the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from striate.core.errors import GeometryError
from striate.core.registry import unknown_name_error
from striate.interpret.arithmetic.op_rules import unit_value
from striate.interpret.arithmetic.unit_value import IMAGE, UnitValue
from striate.interpret.layer_choice import check_index
from striate.interpret.trace import TensorRef, Trace, record_trace

OUTPUT = "output"
INPUT = "image"


class UnitArithmetic:
    """Traced forward pass of one image that splits any unit's value into terms.

    Raises:
        GeometryError: The network rejects the image, or overwrites parts of tensors
            in its own forward method, so that values are lost.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> arithmetic = UnitArithmetic(model, torch.rand(1, 1, 3, 3))
        >>> entry = arithmetic.open("0", (1, 0, 0))
        >>> entry.operation, len(entry.terms[0].positions), entry.error < 1e-6
        ('convolution', 9, True)
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        if x.ndim == 4 and len(x) != 1:
            what = f"unit arithmetic needs one image, got {len(x)}"
            raise GeometryError(what, fix="use x[i:i + 1]")
        self.trace: Trace = record_trace(model, x)

    @property
    def names(self) -> list[str]:
        """Return all names that `open` accepts: `image`, layer calls and `output`."""
        return [INPUT, *self.trace.module_outputs, OUTPUT]

    def find(self, name: str) -> TensorRef:
        """Return the reference to a named tensor: `conv1`, `@12` (output of step 12).

        Raises:
            UnknownNameError: No layer call has this name; the message lists all names.
        """
        if name == OUTPUT:
            return self.trace.output
        if name == INPUT:
            return TensorRef(0)
        if name in self.trace.module_outputs:
            return self.trace.module_outputs[name]
        steps = len(self.trace.steps)
        if name.startswith("@") and name[1:].isdecimal() and int(name[1:]) < steps:
            return TensorRef(int(name[1:]))
        raise unknown_name_error("layer", name, self.names)

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """Return a tensor's shape without the batch dimension."""
        return tuple(self.trace.value(ref).shape[1:])

    def name(self, ref: TensorRef) -> str:
        """Return a tensor's name: its layer call, or its module and operation.

        Example:
            >>> import torch
            >>> UnitArithmetic(nn.ReLU(), torch.rand(1, 1, 2, 2)).name(TensorRef(1))
            'relu'
        """
        if ref.step == 0:
            return INPUT
        for call, end in self.trace.module_outputs.items():
            if end == ref:
                return call
        step = self.trace.steps[ref.step]
        what = step.name.strip("_")
        return f"{step.module}.({what})" if step.module else what

    def open(self, name: str | TensorRef, unit: Sequence[int]) -> UnitValue:
        """Return the value of one unit, with its terms.

        Args:
            name: A layer call, `output`, `@` and the number of a step, or a tensor.
            unit: (channel, row, column), or (index,) of a vector.

        Raises:
            SettingError: The unit does not exist.
        """
        ref = self.find(name) if isinstance(name, str) else name
        check_index(self.name(ref), unit, self.shape(ref))
        return self._unit(ref, (0, *map(int, unit)))

    def _unit(self, ref: TensorRef, position: tuple[int, ...]) -> UnitValue:
        step = self.trace.steps[ref.step]
        if ref.step == 0:
            value = float(step.results[0][position])
            return UnitValue(
                ref=ref,
                unit=position,
                value=value,
                kind=IMAGE,
                operation="pixel",
                result=value,
            )
        return unit_value(step, ref, position, self.trace.value)

    def follow(self, entry: UnitValue, term: int, number: int) -> UnitValue:
        """Return the value and the terms of one input of a unit."""
        source = entry.terms[term]
        shape = tuple(self.trace.value(source.ref).shape)
        position = np.unravel_index(int(source.positions[number]), shape)
        return self._unit(source.ref, tuple(int(i) for i in position))

    def largest(self, entry: UnitValue, count: int = 1) -> list[tuple[int, int]]:
        """Return the largest terms by magnitude, as (input tensor index, term index).

        Example:
            >>> import torch
            >>> arithmetic = UnitArithmetic(nn.Flatten(), torch.rand(1, 1, 2, 2))
            >>> arithmetic.largest(arithmetic.open("output", (3,)))
            [(0, 0)]
        """
        ranked = [
            (-abs(float(product)), i, j)
            for i, term in enumerate(entry.terms)
            for j, product in enumerate(term.contributions)
        ]
        return [(i, j) for _, i, j in sorted(ranked)[:count]]
