"""The ledger: any number in a network, step by step down to the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.registry import unknown
from striate.interpret.arithmetic.op_rules import unit_value
from striate.interpret.arithmetic.unit_value import IMAGE, UnitValue
from striate.interpret.trace import TensorRef, Trace, record_trace

OUTPUT = "output"
INPUT = "image"


class UnitArithmetic:
    """Everything one image made a network compute, ready to be opened.

    Args:
        model: Any network; left as it was.
        x: One image, (1, C, H, W).

    Raises:
        GeometryError: The network refuses it, or writes into parts of tensors outside
            of any module, so that numbers are lost.

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
            what = f"a ledger is about one image, got {len(x)}"
            raise GeometryError(what, fix="give x[i:i + 1]")
        self.trace: Trace = record_trace(model, x)

    @property
    def names(self) -> list[str]:
        """Return what `open` takes: `image`, every module's call, and `output`."""
        return [INPUT, *self.trace.module_outputs, OUTPUT]

    def find(self, name: str) -> TensorRef:
        """Return the tensor of a name; `@12` is the twelfth step itself.

        Raises:
            UnknownNameError: No call has this name; lists the right ones.
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
        raise unknown("layer", name, self.names)

    def shape(self, ref: TensorRef) -> tuple[int, ...]:
        """Return a tensor's shape for one image."""
        return tuple(self.trace.value(ref).shape[1:])

    def name(self, ref: TensorRef) -> str:
        """Return how a tensor is called: its module's call, or where and what.

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
        """Return the arithmetic of one number.

        Args:
            name: A module's call, `output`, `@` and a step's number, or a tensor.
            unit: (channel, row, column), or (number,) of a row of numbers.

        Raises:
            SettingError: There is no such unit.
        """
        ref = self.find(name) if isinstance(name, str) else name
        shape = self.shape(ref)
        if len(unit) != len(shape) or any(
            not 0 <= i < n for i, n in zip(unit, shape, strict=True)
        ):
            ranges = " × ".join(f"0…{n - 1}" for n in shape)
            what = f"{self.name(ref)} has no unit {tuple(unit)}"
            raise SettingError(what, where=self.name(ref), fix=f"units are {ranges}")
        return self._unit(ref, (0, *map(int, unit)))

    def _unit(self, ref: TensorRef, position: tuple[int, ...]) -> UnitValue:
        step = self.trace.steps[ref.step]
        if ref.step == 0:
            value = float(step.results[0][position])
            return UnitValue(
                ref=ref, unit=position, value=value, kind=IMAGE, operation="a pixel",
                result=value,
            )  # fmt: skip
        return unit_value(step, ref, position, self.trace.value)

    def follow(self, entry: UnitValue, term: int, number: int) -> UnitValue:
        """Open one of the numbers that an entry lists."""
        source = entry.terms[term]
        shape = tuple(self.trace.value(source.ref).shape)
        position = np.unravel_index(int(source.positions[number]), shape)
        return self._unit(source.ref, tuple(int(i) for i in position))

    def largest(self, entry: UnitValue, count: int = 1) -> list[tuple[int, int]]:
        """Return (part, number) of the terms that add most, either sign.

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
