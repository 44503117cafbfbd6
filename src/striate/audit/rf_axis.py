"""One axis of a map: which input positions each of its units sees, exactly.

Two accounts are kept. The *box* is a pair of arrays, the first and last input
position that reach unit 0, 1, …, with the image's border and every dilation gap
taken at its word: it equals the box of non-zero input gradients. The *line* is the
textbook's: unit i sees i·jump + low … i·jump + high of an image without border.
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

FAR = 1 << 40  # low of a unit that sees nothing; its high is -1


@dataclass(frozen=True, eq=False)
class Line:
    """Unit i sees i·jump + low … i·jump + high of an endless image.

    After an enlargement neighbors see different extents; the line then runs round
    them all, jump and center hold, and `even` is False.
    """

    jump: Number
    low: Number
    high: Number
    even: bool = True

    @property
    def size(self) -> Number:
        """How many positions one unit sees."""
        return self.high - self.low + 1

    @property
    def center(self) -> Number:
        """The middle of what the first unit sees."""
        return simple(Fraction(self.low + self.high, 2))


def simple(value: Number) -> Number:
    """Return a whole fraction as an integer.

    Example:
        >>> simple(Fraction(4, 2)), simple(Fraction(1, 2))
        (2, Fraction(1, 2))
    """
    whole = int(value)
    return whole if whole == value else value


@dataclass(frozen=True, eq=False)
class Axis:
    """The units along one axis.

    Args:
        low: First input position each unit sees.
        high: Last one; below `low` where a unit sees nothing.
        line: The same as a rule, where one exists.
    """

    low: Ints
    high: Ints
    line: Line | None = None

    def __len__(self) -> int:
        return len(self.low)

    @cached_property
    def full(self) -> bool:
        """Tell whether every unit sees something; in padding alone it does not."""
        return bool(np.all(self.low <= self.high))

    @property
    def size(self) -> Number:
        """How many positions a unit sees: by the rule, else the most that any does."""
        if self.line is not None and self.line.even:
            return self.line.size
        return max(0, int((self.high - self.low).max()) + 1)

    @property
    def span(self) -> tuple[int, int]:
        """First and last input position that any unit sees."""
        return int(self.low.min()), int(self.high.max())


def image(side: int) -> Axis:
    """Return the axis of the input itself: each position sees itself.

    Example:
        >>> window(image(5), 3, outputs=3).high.tolist()
        [2, 3, 4]
    """
    positions = np.arange(side)
    return Axis(positions, positions, Line(1, 0, 0))


def gather(axis: Axis, table: Ints, line: Line | None = None) -> Axis:
    """Let output o see what inputs `table[o]` see; numbers outside are no input."""
    count = len(axis)
    if not table.shape[1] or not count:
        nothing = np.full(len(table), FAR)
        return Axis(nothing, np.full(len(table), -1), line)
    inside = (table >= 0) & (table < count)
    at = np.where(inside, table, 0)
    low = np.where(inside, axis.low[at], FAR).min(axis=1)
    high = np.where(inside, axis.high[at], -1).max(axis=1)
    return Axis(low, high, line)


def window(
    axis: Axis,
    kernel: int,
    stride: int = 1,
    before: int = 0,
    dilation: int = 1,
    *,
    outputs: int,
) -> Axis:
    """Slide a window: jump' = jump·s; low and high move by the padding and kernel.

    Example:
        >>> made = window(image(224), 7, stride=2, before=3, outputs=112)
        >>> made.line.jump, made.line.low, made.line.high, int(made.low[0])
        (2, -3, 3, 0)
    """
    if kernel == stride == 1 and not before and outputs == len(axis):
        return axis
    starts = np.arange(outputs)[:, None] * stride - before
    line = axis.line
    if line is not None:
        low = line.low - before * line.jump
        high = line.high + (dilation * (kernel - 1) - before) * line.jump
        line = Line(simple(line.jump * stride), low, high, line.even)
    return gather(axis, starts + dilation * np.arange(kernel), line)


def unfold(
    axis: Axis, kernel: int, stride: int, before: int, dilation: int, *, outputs: int
) -> Axis:
    """Transpose a window: output o hears of input i where o = i·s − p + d·k.

    Example:
        >>> unfold(image(3), 2, 2, 0, 1, outputs=6).low.tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if kernel == stride == 1 and not before and outputs == len(axis):
        return axis
    at = np.arange(outputs)[:, None] + before - dilation * np.arange(kernel)
    table = np.where(at % stride == 0, at // stride, -1)
    line = axis.line
    if line is not None:
        step = Fraction(line.jump, stride) if stride > 1 else line.jump
        low = line.low + (before - dilation * (kernel - 1)) * step
        even = line.even and stride == 1
        line = Line(step, simple(low), simple(line.high + before * step), even)
    return gather(axis, table, line)


def stretch(axis: Axis, before: int, after: int) -> Axis:
    """Repeat every unit: position p shows unit (p // after) mod n.

    Example:
        >>> stretch(image(2), before=1, after=2).low.tolist()
        [0, 0, 1, 1]
    """
    if before == 1:
        return unfold(axis, after, after, 0, 1, outputs=len(axis) * after)
    at = np.arange(before * len(axis) * after) // after % len(axis)
    return Axis(axis.low[at], axis.high[at])


def fold(axis: Axis, parts: int) -> Axis:
    """Unite each `parts` neighbors into one unit.

    Example:
        >>> fold(image(4), 2).high.tolist()
        [1, 3]
    """
    outputs = len(axis) // parts
    return window(axis, parts, parts, outputs=outputs)


def pick(axis: Axis, start: int, step: int, count: int) -> Axis:
    """Keep every `step`-th unit from `start`; a negative start is padding.

    Example:
        >>> pick(image(6), 1, 2, 2).low.tolist()
        [1, 3]
    """
    return window(axis, 1, step, -start, outputs=count)


def whole(axis: Axis) -> Axis:
    """Unite all units into one.

    Example:
        >>> whole(image(4)).span
        (0, 3)
    """
    low, high = axis.span if len(axis) else (FAR, -1)
    return Axis(np.array([low]), np.array([high]))


def unite(axes: Sequence[Axis]) -> Axis:
    """Let each unit see what it saw in any branch; one unit alone meets them all.

    Example:
        >>> small, large = window(image(4), 1, outputs=4), image(4)
        >>> unite([small, large]).line.size
        1
    """
    first = axes[0]
    if all(axis is first for axis in axes):
        return first
    low, high = first.low, first.high
    for axis in axes[1:]:
        low, high = np.minimum(low, axis.low), np.maximum(high, axis.high)
    return Axis(low, high, _hull(axes))


def _hull(axes: Sequence[Axis]) -> Line | None:
    lines = [axis.line for axis in axes]
    if len({len(axis) for axis in axes}) > 1:
        return None
    kept = [line for line in lines if line is not None]
    if len(kept) < len(lines) or len({line.jump for line in kept}) > 1:
        return None
    low, high = min(x.low for x in kept), max(x.high for x in kept)
    return Line(kept[0].jump, low, high, all(x.even for x in kept))


def spread_out(axis: Axis, count: int) -> Axis:
    """Let `count` units see what one saw.

    Example:
        >>> spread_out(whole(image(3)), 2).high.tolist()
        [2, 2]
    """
    if len(axis) == count:
        return axis
    return Axis(np.repeat(axis.low, count), np.repeat(axis.high, count))


def chain(axes: Sequence[Axis]) -> Axis:
    """Lay axes end to end.

    Example:
        >>> len(chain([image(2), image(3)]))
        5
    """
    low = np.concatenate([axis.low for axis in axes])
    return Axis(low, np.concatenate([axis.high for axis in axes]))
