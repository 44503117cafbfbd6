"""Which positions of a map anything reads, and which of the image reach the end.

Rows and columns are followed apart, from the last operation back to the image: a
window reads `i·s − p + k·d`, an element-wise operation its own position, and whatever
is not known reads everything. So a position said to be unread is unread for certain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from striate.audit.layer import Operation
from striate.audit.window_args import Windows

Mask = NDArray[np.bool_]
Masks = tuple[Mask, Mask]  # rows, columns


@dataclass(frozen=True)
class Reading:
    """What is read of each operation's map, by its number; −1 is the image.

    Args:
        taken: By the operations that use it, whatever becomes of their results.
        needed: By those of their units that reach the network's end.
        users: The operations that use it.
    """

    taken: dict[int, Masks] = field(default_factory=dict)
    needed: dict[int, Masks] = field(default_factory=dict)
    users: dict[int, list[Operation]] = field(default_factory=dict)


def read(operations: Iterable[Operation]) -> Reading:
    """Return what is read of every map of a network.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> found = audit(nn.Sequential(nn.Conv2d(1, 1, 1, stride=2)), (1, 5, 4))
        >>> reading = read(o for layer in found.layers for o in layer.operations)
        >>> [mask.tolist() for mask in reading.needed[-1]]
        [[True, False, True, False, True], [True, False, True, False]]
    """
    reading, stock = Reading(), _Stock()
    for operation in reversed(list(operations)):
        wanted = reading.needed.get(operation.number)
        for place, maker in operation.makers:
            _note(reading.taken, maker, _uses(operation, place, None, stock), stock)
            _note(reading.needed, maker, _uses(operation, place, wanted, stock), stock)
            reading.users.setdefault(maker, []).append(operation)
    return reading


class _Stock:
    """Every mask once: most maps of a network are read alike, most of them whole.

    Equal masks are then the same object, and what was made of one is found again.
    """

    def __init__(self) -> None:
        self._masks: dict[bytes, Mask] = {}
        self._whole: dict[int, Mask] = {}
        self._slid: dict[tuple[int, ...], Mask] = {}

    def keep(self, mask: Mask) -> Mask:
        return self._masks.setdefault(mask.tobytes(), mask)

    def whole(self, side: int) -> Mask:
        if side not in self._whole:
            self._whole[side] = self.keep(np.ones(side, bool))
        return self._whole[side]

    def slid(self, windows: Windows, axis: int, side: int, wanted: Mask) -> Mask:
        sides = windows.kernel, windows.stride, windows.padding, windows.dilation
        key = (*(numbers[axis] for numbers in sides), side, id(wanted))
        if key not in self._slid:
            self._slid[key] = self.keep(positions(windows, axis, side, wanted))
        return self._slid[key]


def _note(known: dict[int, Masks], maker: int, masks: Masks, stock: _Stock) -> None:
    before = known.setdefault(maker, masks)
    if before[0] is masks[0] and before[1] is masks[1]:
        return
    if _same_sides(before, masks):
        known[maker] = (
            stock.keep(before[0] | masks[0]),
            stock.keep(before[1] | masks[1]),
        )
    else:  # a view: the same numbers under other sides
        known[maker] = (stock.whole(len(before[0])), stock.whole(len(before[1])))


def _same_sides(one: Masks, other: Masks) -> bool:
    return all(len(a) == len(b) for a, b in zip(one, other, strict=True))


def _everything(shape: tuple[int, ...], stock: _Stock) -> Masks:
    height, width = shape[-2:] if len(shape) == 4 else (1, 1)
    return stock.whole(height), stock.whole(width)


def _uses(
    operation: Operation, place: int, wanted: Masks | None, stock: _Stock
) -> Masks:
    """Return what an operation reads of an input for the units wanted of it."""
    shape, output = operation.inputs[place], operation.output
    if len(shape) != 4 or len(output) != 4:
        return _everything(shape, stock)
    if wanted is None or not _fits(wanted, output):
        wanted = _everything(output, stock)
    windows = operation.windows
    if place == 0 and windows is not None and not windows.transposed:
        return (
            stock.slid(windows, 0, shape[2], wanted[0]),
            stock.slid(windows, 1, shape[3], wanted[1]),
        )
    if operation.local and shape[2:] == output[2:]:
        return wanted
    return _everything(shape, stock)


def _fits(masks: Masks, output: tuple[int, ...]) -> bool:
    return (len(masks[0]), len(masks[1])) == output[2:]


def positions(windows: Windows, axis: int, side: int, wanted: Mask) -> Mask:
    """Return which of `side` positions the wanted units' windows read, on one axis.

    Example:
        >>> two = (2, 2)
        >>> pool = Windows(kernel=two, stride=two, padding=(0, 0), dilation=(1, 1))
        >>> positions(pool, 0, 5, np.ones(2, bool)).tolist()
        [True, True, True, True, False]
    """
    starts = np.flatnonzero(wanted)[:, None] * windows.stride[axis]
    steps = windows.dilation[axis] * np.arange(windows.kernel[axis])
    at = (starts + steps - windows.padding[axis]).ravel()
    mask = np.zeros(side, bool)
    mask[at[(at >= 0) & (at < side)]] = True
    return mask


def unread(masks: Masks) -> int:
    """Return how many positions, rows times columns, are not read.

    Example:
        >>> unread((np.array([True, False]), np.array([True, True, False])))
        4
    """
    rows, columns = masks
    return len(rows) * len(columns) - int(rows.sum()) * int(columns.sum())
