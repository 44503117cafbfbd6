"""Find the positions of the image and of each feature map that the output uses.

Rows and columns are tracked separately, from the last operation back to the image. A
window reads positions `i·s − p + k·d`, an element-wise operation reads the position of
its output, an unknown operation reads all. So positions reported as unused are unused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from striate.audit.layer import Operation
from striate.audit.window_args import SlidingWindow

Mask = NDArray[np.bool_]
Masks = tuple[Mask, Mask]  # rows, columns


@dataclass(frozen=True)
class UsedPositions:
    """Used positions of each feature map, by operation number; −1 is the image.

    Args:
        read: Positions that any later operation reads.
        needed: Positions that the output of the network depends on.
        users: The operations that read the output of each operation.
    """

    read: dict[int, Masks] = field(default_factory=dict)
    needed: dict[int, Masks] = field(default_factory=dict)
    users: dict[int, list[Operation]] = field(default_factory=dict)


def find_used_positions(operations: Iterable[Operation]) -> UsedPositions:
    """Return the used positions of every feature map of a network.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2))
        >>> layers = audit(model, (1, 5, 4)).layers
        >>> operations = (o for layer in layers for o in layer.operations)
        >>> usage = find_used_positions(operations)
        >>> [mask.tolist() for mask in usage.needed[-1]]
        [[True, False, True, False, True], [True, False, True, False]]
    """
    usage, cache = UsedPositions(), _MaskCache()
    for operation in reversed(list(operations)):
        output_masks = usage.needed.get(operation.number)
        for input_index, producer in operation.producers:
            read = _read_positions(operation, input_index, None, cache)
            needed = _read_positions(operation, input_index, output_masks, cache)
            _merge(usage.read, producer, read, cache)
            _merge(usage.needed, producer, needed, cache)
            usage.users.setdefault(producer, []).append(operation)
    return usage


class _MaskCache:
    """Cache that stores equal masks only once.

    Equal masks are the same object, so results computed from them can be reused.
    """

    def __init__(self) -> None:
        self._masks: dict[bytes, Mask] = {}
        self._whole: dict[int, Mask] = {}
        self._window_masks: dict[tuple[int, ...], Mask] = {}

    def share(self, mask: Mask) -> Mask:
        return self._masks.setdefault(mask.tobytes(), mask)

    def whole(self, side: int) -> Mask:
        if side not in self._whole:
            self._whole[side] = self.share(np.ones(side, bool))
        return self._whole[side]

    def window_mask(
        self, window: SlidingWindow, axis: int, side: int, output_masks: Mask
    ) -> Mask:
        key = (*window.axis(axis), side, id(output_masks))
        if key not in self._window_masks:
            mask = window_positions(window, axis, side, output_masks)
            self._window_masks[key] = self.share(mask)
        return self._window_masks[key]


def _merge(
    by_producer: dict[int, Masks], producer: int, masks: Masks, cache: _MaskCache
) -> None:
    before = by_producer.setdefault(producer, masks)
    if before[0] is masks[0] and before[1] is masks[1]:
        return
    (rows, columns), (more_rows, more_columns) = before, masks
    if (len(rows), len(columns)) == (len(more_rows), len(more_columns)):
        merged = cache.share(rows | more_rows), cache.share(columns | more_columns)
    else:  # a view: the same values with another shape
        merged = cache.whole(len(rows)), cache.whole(len(columns))
    by_producer[producer] = merged


def _all_positions(shape: tuple[int, ...], cache: _MaskCache) -> Masks:
    height, width = shape[-2:] if len(shape) == 4 else (1, 1)
    return cache.whole(height), cache.whole(width)


def _read_positions(
    operation: Operation,
    input_index: int,
    output_masks: Masks | None,
    cache: _MaskCache,
) -> Masks:
    """Return the input positions that an operation reads for given output positions."""
    shape, output = operation.inputs[input_index], operation.output
    if len(shape) != 4 or len(output) != 4:
        return _all_positions(shape, cache)
    if output_masks is None or tuple(map(len, output_masks)) != output[2:]:
        output_masks = _all_positions(output, cache)
    window = operation.window
    if input_index == 0 and window is not None and not window.transposed:
        return (
            cache.window_mask(window, 0, shape[2], output_masks[0]),
            cache.window_mask(window, 1, shape[3], output_masks[1]),
        )
    if operation.local and shape[2:] == output[2:]:
        return output_masks
    return _all_positions(shape, cache)


def window_positions(
    window: SlidingWindow, axis: int, side: int, output_masks: Mask
) -> Mask:
    """Return a mask of the input positions along `axis` that sliding windows read.

    Example:
        >>> two = (2, 2)
        >>> padding, dilation = (0, 0), (1, 1)
        >>> pool = SlidingWindow(
        ...     kernel=two, stride=two, padding=padding, dilation=dilation
        ... )
        >>> window_positions(pool, 0, 5, np.ones(2, bool)).tolist()
        [True, True, True, True, False]
    """
    starts = np.flatnonzero(output_masks)[:, None] * window.stride[axis]
    steps = window.dilation[axis] * np.arange(window.kernel[axis])
    at = (starts + steps - window.padding[axis]).ravel()
    mask = np.zeros(side, bool)
    mask[at[(at >= 0) & (at < side)]] = True
    return mask


def count_unused(masks: Masks) -> int:
    """Count the unused positions of a feature map from its row and column masks.

    Example:
        >>> count_unused((np.array([True, False]), np.array([True, True, False])))
        4
    """
    rows, columns = masks
    return len(rows) * len(columns) - int(rows.sum()) * int(columns.sum())
