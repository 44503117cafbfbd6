"""Find height, width and channels of layer outputs: NCHW, channels-last, or tokens.

A forward pass also computes, for every value in the network, the row and the column of
the image that the value stands for (`position_rules`). Maps have one axis of channels,
and one position for each cell of a grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from striate.interpret.position_rules import (
    RULES,
    Rule,
    StepContext,
    first_of_repeats,
    nearest_of,
)

_SAME = 1e-3  # tolerance of equal positions, in pixels
_SMALL = 1000  # values that are not worth a search for repeats


@dataclass(frozen=True, eq=False, kw_only=True)
class SpatialLayout:
    """Position of height, width and channels in a layer's output."""

    channel_axis: int  # axis of the channels; the batch is axis 0
    size: tuple[int, int]  # height and width of the maps
    # (height, width): index of each map cell among the flattened positions; None if
    # the positions are in the order of the cells.
    cells: Tensor | None = field(default=None, repr=False)
    assumed: bool = False  # whether the positions are unknown, and NCHW is assumed

    def channels_first(self, ndim: int) -> bool:
        """Return whether an output has the shape (N, channels, height, width)."""
        return self.channel_axis == 1 and ndim == 4 and self.cells is None

    def to_maps(self, output: Tensor) -> Tensor:
        """Return a layer's output as maps; class tokens are left out.

        Shapes:
            (N, …) → (N, channels, height, width)

        Example:
            >>> cells = torch.tensor([[1, 2], [3, 4]])  # token 0 is a class token
            >>> layout = SpatialLayout(channel_axis=2, size=(2, 2), cells=cells)
            >>> layout.to_maps(torch.arange(5.0).view(1, 5, 1)).tolist()
            [[[[1.0, 2.0], [3.0, 4.0]]]]
        """
        if self.channels_first(output.ndim):
            return output
        flat = output.movedim(self.channel_axis, 1).flatten(2)
        if self.cells is not None:
            flat = flat[:, :, self.cells.to(flat.device).flatten()]
        return flat.reshape(*flat.shape[:2], *self.size)


class PositionTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context manager that tracks the image position of values computed from `x`.

    Example:
        >>> x = torch.zeros(1, 3, 4, 4)
        >>> with PositionTracker(x) as tracker:
        ...     tokens = x.flatten(2).transpose(1, 2)
        >>> tracker.layout(tokens).channel_axis, tracker.layout(tokens).size
        (2, (4, 4))
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sides = int(x.shape[2]), int(x.shape[3])
        rows, columns = (
            torch.arange(side, dtype=torch.float32) for side in self._sides
        )
        self._positions: Any = WeakTensorKeyDictionary()
        self._positions[x] = rows.view(1, 1, -1, 1), columns.view(1, 1, 1, -1)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [i for i in tree_leaves((args, kwargs)) if isinstance(i, Tensor)]
        # A convolution of unknown positions starts again with its own grid.
        is_conv = func.overloadpacket is torch.ops.aten.convolution
        tracked = is_conv or any(item in self._positions for item in inputs)
        out = func(*args, **kwargs)
        if tracked:
            self._record(func, args, kwargs, out)
        return out

    def _record(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        rule = RULES.get(func.overloadpacket.__name__.rstrip("_"))
        if rule is None and torch.Tag.pointwise in func.tags:
            rule = nearest_of
        outputs = [item for item in tree_leaves(out) if isinstance(item, Tensor)]
        by_axis = self._results(rule, func, (args, kwargs), outputs) if rule else []
        for output in outputs:
            self._positions.pop(output, None)  # written in place
        for output, *parts in zip(outputs, *by_axis, strict=False):
            if parts and all(part.shape == output.shape for part in parts):
                self._positions[output] = tuple(map(_compact, parts))

    def _results(
        self, rule: Rule, func: Any, inputs: Any, outputs: list[Tensor]
    ) -> list[Sequence[Tensor]]:
        """Return rows and columns of the outputs; nothing if the rule does not fit."""
        by_axis: list[Sequence[Tensor]] = []
        for axis, side in enumerate(self._sides):

            def part(item: Any, axis: int = axis) -> Any:
                return self._part(item, axis)

            values, settings = tree_map(part, inputs)
            context = StepContext(func, tuple(outputs), axis, side)
            try:
                by_axis.append(rule(context, values, settings))
            except (RuntimeError, ValueError, IndexError, TypeError, KeyError):
                return []
        return by_axis

    def _part(self, item: Any, axis: int) -> Any:
        """Return the rows or the columns of a tensor; NaN if it has no positions."""
        if not isinstance(item, Tensor):
            return item
        positions = self._find(item)
        if positions is not None:
            return positions[axis].expand(item.shape)
        if not item.is_floating_point():
            return item
        return torch.full((), math.nan).expand(item.shape)

    def _find(self, item: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return rows and columns; None after `resize_` and the like."""
        positions: tuple[Tensor, Tensor] | None = self._positions.get(item)
        if positions is None or positions[0].ndim != item.ndim:
            return None
        pairs = [
            (n, p)
            for part in positions
            for n, p in zip(item.shape, part.shape, strict=True)
        ]
        return positions if all(p in (1, n) for n, p in pairs) else None

    def layout(self, output: Tensor) -> SpatialLayout | None:
        """Return the layout of an output; None if it has no maps.

        An output with four dimensions and unknown positions is assumed to be NCHW.
        """
        positions = self._find(output)
        if output.ndim not in (3, 4):
            return None
        if positions is None:
            if output.ndim == 3:
                return None
            size = int(output.shape[2]), int(output.shape[3])
            return SpatialLayout(channel_axis=1, size=size, assumed=True)
        rows, columns = (part[0] for part in positions)
        return _layout(tuple(output.shape[1:]), rows, columns)


def _compact(part: Tensor) -> Tensor:
    """Return a tensor without repeats: with size 1 along axes of equal values."""
    part = first_of_repeats(part)
    for axis, count in enumerate(part.shape):
        if count > 1 and part.numel() > _SMALL:
            first = part.narrow(axis, 0, 1)
            if torch.equal(part.nan_to_num(-1), first.expand_as(part).nan_to_num(-1)):
                part = first
    return part


def _layout(
    shape: tuple[int, ...], rows: Tensor, columns: Tensor
) -> SpatialLayout | None:
    if len(shape) == 3 and (layout := _nearly_even(shape, rows, columns)):
        return layout
    varying = [_varies(rows, a) or _varies(columns, a) for a in range(len(shape))]
    free = [axis for axis, varies in enumerate(varying) if not varies]
    channels = [axis for axis in free if shape[axis] > 1] or free[:1]
    if len(channels) != 1:
        return None
    axis = channels[0]
    sides = [side for other, side in enumerate(shape) if other != axis]
    down, across = (
        _without(part, axis, shape).expand(sides) for part in (rows, columns)
    )
    if len(sides) == 2 and _is_grid(down, across):
        size = sides[0], sides[1]
        return SpatialLayout(channel_axis=axis + 1, size=size)
    if len(sides) == 2 and _on_one_axis(down, across):  # such as attention weights
        return None
    cells = _cells(down.flatten(), across.flatten())
    if cells is None:
        return None
    size = int(cells.shape[0]), int(cells.shape[1])
    in_order = torch.equal(cells.flatten(), torch.arange(down.numel()))
    return SpatialLayout(
        channel_axis=axis + 1, size=size, cells=None if in_order else cells
    )


def _nearly_even(
    shape: tuple[int, ...], rows: Tensor, columns: Tensor
) -> SpatialLayout | None:
    """Return the layout if positions differ by channel by less than half a cell.

    Branches of a network, such as those of Inception, may differ by half a pixel.
    """
    if rows.isnan().any() or columns.isnan().any():
        return None
    for axis in (0, 2):
        down, across = (part.mean(axis, keepdim=True) for part in (rows, columns))
        spreads = [
            float((part - mean).abs().max())
            for part, mean in ((rows, down), (columns, across))
        ]
        sides = [side for other, side in enumerate(shape) if other != axis]
        grids = [part.select(axis, 0).expand(sides) for part in (down, across)]
        if not _is_grid(*grids):
            continue
        steps = [grids[0][:, 0].diff(), grids[1][0].diff()]
        limits = [float(step.min()) / 2 if len(step) else _SAME for step in steps]
        if all(s < limit for s, limit in zip(spreads, limits, strict=True)):
            return SpatialLayout(channel_axis=axis + 1, size=(sides[0], sides[1]))
    return None


def _without(part: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    return part.expand([*shape[:axis], part.shape[axis], *shape[axis + 1 :]]).select(
        axis, 0
    )


def _varies(part: Tensor, axis: int) -> bool:
    """Return whether positions differ along an axis, or only some of them are known."""
    if part.shape[axis] < 2:
        return False
    known = ~part.isnan()
    if not torch.equal(known.any(axis), known.all(axis)):
        return True
    spread = (part.amax(axis) - part.amin(axis)).nan_to_num(0.0)
    return bool((spread > _SAME).any())


def _is_grid(down: Tensor, across: Tensor) -> bool:
    """Return whether rows increase along the first axis, columns along the second."""
    if _varies(down, 1) or _varies(across, 0):
        return False
    steps = down[:, 0].diff(), across[0].diff()
    return all(bool((step > _SAME).all()) for step in steps) and down.numel() > 1


def _on_one_axis(down: Tensor, across: Tensor) -> bool:
    """Return whether rows and columns differ only along one and the same axis."""
    varying = [{a for a in (0, 1) if _varies(part, a)} for part in (down, across)]
    return varying[0] == varying[1] and len(varying[0]) == 1


def _cells(rows: Tensor, columns: Tensor) -> Tensor | None:
    """Return the indices of the positions as a grid of rows and columns."""
    known = (~rows.isnan() & ~columns.isnan()).nonzero().flatten()
    if len(known) < 2:
        return None
    down, across = _ranks(rows[known]), _ranks(columns[known])
    height, width = int(down.max()) + 1, int(across.max()) + 1
    keys = down * width + across
    if height * width != len(known) or len(set(keys.tolist())) != len(keys):
        return None
    return known[keys.argsort()].view(height, width)


def _ranks(values: Tensor) -> Tensor:
    """Return for each value its rank among the distinct values, with a tolerance."""
    order = values.argsort(stable=True)
    steps = values[order].diff(prepend=values[order][:1]) > _SAME
    ranks = torch.empty(len(values), dtype=torch.int64)
    ranks[order] = steps.long().cumsum(0)
    return ranks
