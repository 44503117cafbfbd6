"""The ledger: any number in a network, step by step down to the pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from striate.core.errors import GeometryError, SettingError
from striate.core.registry import unknown_name_error
from striate.interpret.arithmetic.entry import IMAGE, Entry
from striate.interpret.arithmetic.op_rules import open_unit
from striate.interpret.trace import Ref, Trace, record

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
        >>> book = UnitArithmetic(model, torch.rand(1, 1, 3, 3))
        >>> entry = book.open("0", (1, 0, 0))
        >>> entry.how, len(entry.parts[0].at), entry.error < 1e-6
        ('convolution', 9, True)
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        if x.ndim == 4 and len(x) != 1:
            what = f"a ledger is about one image, got {len(x)}"
            raise GeometryError(what, fix="give x[i:i + 1]")
        self.tape: Trace = record(model, x)

    @property
    def names(self) -> list[str]:
        """Return what `open` takes: `image`, every module's call, and `output`."""
        return [INPUT, *self.tape.ends, OUTPUT]

    def find(self, name: str) -> Ref:
        """Return the tensor of a name; `@12` is the twelfth step itself.

        Raises:
            UnknownNameError: No call has this name; lists the right ones.
        """
        if name == OUTPUT:
            return self.tape.output
        if name == INPUT:
            return Ref(0)
        if name in self.tape.ends:
            return self.tape.ends[name]
        steps = len(self.tape.steps)
        if name.startswith("@") and name[1:].isdecimal() and int(name[1:]) < steps:
            return Ref(int(name[1:]))
        raise unknown_name_error("layer", name, self.names)

    def shape(self, ref: Ref) -> tuple[int, ...]:
        """Return a tensor's shape for one image."""
        return tuple(self.tape.value(ref).shape[1:])

    def name(self, ref: Ref) -> str:
        """Return how a tensor is called: its module's call, or where and what.

        Example:
            >>> import torch
            >>> UnitArithmetic(nn.ReLU(), torch.rand(1, 1, 2, 2)).name(Ref(1))
            'relu'
        """
        if ref.step == 0:
            return INPUT
        for call, end in self.tape.ends.items():
            if end == ref:
                return call
        step = self.tape.steps[ref.step]
        what = step.name.strip("_")
        return f"{step.place}.({what})" if step.place else what

    def open(self, name: str | Ref, unit: Sequence[int]) -> Entry:
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
        return self._open(ref, (0, *map(int, unit)))

    def _open(self, ref: Ref, place: tuple[int, ...]) -> Entry:
        step = self.tape.steps[ref.step]
        if ref.step == 0:
            value = float(step.results[0][place])
            return Entry(
                ref=ref, unit=place, value=value, kind=IMAGE, how="a pixel",
                result=value,
            )  # fmt: skip
        return open_unit(step, ref, place, self.tape.value)

    def follow(self, entry: Entry, part: int, number: int) -> Entry:
        """Open one of the numbers that an entry lists."""
        source = entry.parts[part]
        shape = tuple(self.tape.value(source.ref).shape)
        place = np.unravel_index(int(source.at[number]), shape)
        return self._open(source.ref, tuple(int(i) for i in place))

    def largest(self, entry: Entry, count: int = 1) -> list[tuple[int, int]]:
        """Return (part, number) of the terms that add most, either sign.

        Example:
            >>> import torch
            >>> book = UnitArithmetic(nn.Flatten(), torch.rand(1, 1, 2, 2))
            >>> book.largest(book.open("output", (3,)))
            [(0, 0)]
        """
        ranked = [
            (-abs(float(product)), i, j)
            for i, part in enumerate(entry.parts)
            for j, product in enumerate(part.products)
        ]
        return [(i, j) for _, i, j in sorted(ranked)[:count]]
