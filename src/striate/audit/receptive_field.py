"""Receptive field along one axis: the arithmetic of kernel, stride, padding, dilation.

The receptive field of a padded convolution is `slide_window`. Each axis stores two
results. `low` and `high` are the exact first and last input position that unit 0, 1, …
depends on, borders and dilation gaps included (the box of non-zero input gradients).
`formula` is the textbook formula for an image without border: unit i depends on the
positions i·jump + low … i·jump + high.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Number = int | Fraction

SEES_NOTHING = 1 << 40  # `low` of a unit that depends on no input; its `high` is -1


@dataclass(frozen=True, eq=False)
class FieldFormula:
    """Formula of a receptive field: unit i uses inputs i·jump + low … i·jump + high.

    After upsampling, neighboring units have fields of different sizes. The size is then
    an upper bound, jump and center are exact, and `uniform` is False.
    """

    jump: Number
    low: Number
    high: Number
    uniform: bool = True

    @property
    def size(self) -> Number:
        """Size of the receptive field, in input pixels."""
        return self.high - self.low + 1

    @property
    def center(self) -> Number:
        """Center of the first unit's receptive field."""
        return as_integer(Fraction(self.low + self.high, 2))


def as_integer(value: Number) -> Number:
    """Convert a fraction to an integer if its value is whole.

    Example:
        >>> as_integer(Fraction(4, 2)), as_integer(Fraction(1, 2))
        (2, Fraction(1, 2))
    """
    integer = int(value)
    return integer if integer == value else value


@dataclass(frozen=True, eq=False)
class Axis:
    """Receptive fields of all units along one image axis (rows or columns)."""

    low: Ints  # first input position that each unit depends on
    high: Ints  # last such position; less than `low` if a unit depends on no position
    formula: FieldFormula | None = None  # textbook formula, if one exists

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def full(self) -> bool:
        """Whether every unit depends on at least one input position."""
        return bool(np.all(self.low <= self.high))

    @property
    def size(self) -> Number:
        """Receptive field size by the formula; else the maximum over all units."""
        if self.formula is not None and self.formula.uniform:
            return self.formula.size
        return max(0, int((self.high - self.low).max()) + 1)

    @property
    def span(self) -> tuple[int, int]:
        """First and last input position that any unit depends on."""
        return int(self.low.min()), int(self.high.max())


def input_axis(side: int) -> Axis:
    """Return the axis of an input image: the receptive field of each pixel is itself.

    Example:
        >>> slide_window(input_axis(5), 3, outputs=3).high.tolist()
        [2, 3, 4]
    """
    positions = np.arange(side)
    return Axis(positions, positions, FieldFormula(1, 0, 0))


def gather_units(axis: Axis, table: Ints, formula: FieldFormula | None = None) -> Axis:
    """Merge input units `table[o]` into output unit o; invalid indices are padding."""
    count = len(axis)
    if not table.shape[1] or not count:
        empty = np.full(len(table), SEES_NOTHING)
        return Axis(empty, np.full(len(table), -1), formula)
    inside = (table >= 0) & (table < count)
    at = np.where(inside, table, 0)
    low = np.where(inside, axis.low[at], SEES_NOTHING).min(axis=1)
    high = np.where(inside, axis.high[at], -1).max(axis=1)
    return Axis(low, high, formula)


def slide_window(
    axis: Axis,
    kernel: int,
    stride: int = 1,
    before: int = 0,
    dilation: int = 1,
    *,
    outputs: int,
) -> Axis:
    """Return the axis after a window of kernel k, stride s, padding p and dilation d.

    jump' = jump·s, low' = low − p·jump, high' = high + (d·(k − 1) − p)·jump.

    Example:
        >>> axis = slide_window(input_axis(224), 7, stride=2, before=3, outputs=112)
        >>> axis.formula.jump, axis.formula.low, axis.formula.high, int(axis.low[0])
        (2, -3, 3, 0)
    """
    if kernel == stride == 1 and not before and outputs == len(axis):
        return axis
    starts = np.arange(outputs)[:, None] * stride - before
    formula = axis.formula
    if formula is not None:
        low = formula.low - before * formula.jump
        high = formula.high + (dilation * (kernel - 1) - before) * formula.jump
        jump = as_integer(formula.jump * stride)
        formula = FieldFormula(jump, low, high, formula.uniform)
    return gather_units(axis, starts + dilation * np.arange(kernel), formula)


def transposed_window(
    axis: Axis, kernel: int, stride: int, before: int, dilation: int, *, outputs: int
) -> Axis:
    """Apply a transposed convolution: output i·s − p + d·k depends on input i.

    Example:
        >>> transposed_window(input_axis(3), 2, 2, 0, 1, outputs=6).low.tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if kernel == stride == 1 and not before and outputs == len(axis):
        return axis
    at = np.arange(outputs)[:, None] + before - dilation * np.arange(kernel)
    table = np.where(at % stride == 0, at // stride, -1)
    formula = axis.formula
    if formula is not None:
        step = Fraction(formula.jump, stride) if stride > 1 else formula.jump
        low = as_integer(formula.low + (before - dilation * (kernel - 1)) * step)
        high = as_integer(formula.high + before * step)
        formula = FieldFormula(step, low, high, formula.uniform and stride == 1)
    return gather_units(axis, table, formula)


def repeat_units(axis: Axis, before: int, after: int) -> Axis:
    """Repeat the n units: output p is the input unit at index (p // `after`) mod n.

    Example:
        >>> repeat_units(input_axis(2), before=1, after=2).low.tolist()
        [0, 0, 1, 1]
    """
    if before == 1:
        return transposed_window(axis, after, after, 0, 1, outputs=len(axis) * after)
    at = np.arange(before * len(axis) * after) // after % len(axis)
    return Axis(axis.low[at], axis.high[at])


def merge_neighbors(axis: Axis, size: int) -> Axis:
    """Merge every `size` neighboring units into one unit.

    Example:
        >>> merge_neighbors(input_axis(4), 2).high.tolist()
        [1, 3]
    """
    outputs = len(axis) // size
    return slide_window(axis, size, size, outputs=outputs)


def take_every(axis: Axis, start: int, step: int, count: int) -> Axis:
    """Select every `step`-th unit from index `start`; a negative `start` adds padding.

    Example:
        >>> take_every(input_axis(6), 1, 2, 2).low.tolist()
        [1, 3]
    """
    return slide_window(axis, 1, step, -start, outputs=count)


def merge_all(axis: Axis) -> Axis:
    """Merge all units into one, as global pooling does.

    Example:
        >>> merge_all(input_axis(4)).span
        (0, 3)
    """
    low, high = axis.span if len(axis) else (SEES_NOTHING, -1)
    return Axis(np.array([low]), np.array([high]))


def accumulate_units(axis: Axis, reverse: bool = False) -> Axis:
    """Merge each unit with all units before it, or after it if `reverse`.

    Example:
        >>> accumulate_units(input_axis(3)).low.tolist()
        [0, 0, 0]
        >>> accumulate_units(input_axis(3), reverse=True).low.tolist()
        [0, 1, 2]
    """
    way = slice(None, None, -1 if reverse else 1)
    low = np.minimum.accumulate(axis.low[way])[way]
    return Axis(low, np.maximum.accumulate(axis.high[way])[way])


def merge_branches(axes: Sequence[Axis]) -> Axis:
    """Merge the axes of branches: each unit gets the union of its receptive fields.

    Example:
        >>> small, large = slide_window(input_axis(4), 1, outputs=4), input_axis(4)
        >>> merge_branches([small, large]).formula.size
        1
    """
    first = axes[0]
    if all(axis is first for axis in axes):
        return first
    low, high = first.low, first.high
    for axis in axes[1:]:
        low, high = np.minimum(low, axis.low), np.maximum(high, axis.high)
    return Axis(low, high, _common_formula(axes))


def _common_formula(axes: Sequence[Axis]) -> FieldFormula | None:
    formulas = [axis.formula for axis in axes if axis.formula is not None]
    if len(formulas) < len(axes) or len({len(axis) for axis in axes}) > 1:
        return None
    if len({formula.jump for formula in formulas}) > 1:
        return None
    low, high = min(x.low for x in formulas), max(x.high for x in formulas)
    return FieldFormula(formulas[0].jump, low, high, all(x.uniform for x in formulas))


def repeat_single(axis: Axis, count: int) -> Axis:
    """Repeat the only unit of an axis `count` times.

    Example:
        >>> repeat_single(merge_all(input_axis(3)), 2).high.tolist()
        [2, 2]
    """
    if len(axis) == count:
        return axis
    return Axis(np.repeat(axis.low, count), np.repeat(axis.high, count))


def join_end_to_end(axes: Sequence[Axis]) -> Axis:
    """Concatenate axes, as `torch.cat` does with feature maps.

    Example:
        >>> len(join_end_to_end([input_axis(2), input_axis(3)]))
        5
    """
    low = np.concatenate([axis.low for axis in axes])
    return Axis(low, np.concatenate([axis.high for axis in axes]))
