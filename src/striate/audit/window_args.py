"""Read kernel, stride, padding and dilation from an operation's arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from striate.audit.quantized import (
    CONVOLUTIONS,
    is_quantized_operation,
    packed_weight,
)

aten = torch.ops.aten
Sides = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SlidingWindow:
    """Sliding window of a convolution or pooling; settings have one number per axis."""

    kernel: Sides
    stride: Sides
    padding: Sides
    dilation: Sides
    groups: int = 1
    transposed: bool = False
    pooling: bool = False

    def axis(self, i: int) -> tuple[int, int, int, int]:
        """Return kernel, stride, padding and dilation along one axis."""
        return self.kernel[i], self.stride[i], self.padding[i], self.dilation[i]

    @cached_property
    def pointwise(self) -> bool:
        """Whether the window is 1×1 with stride 1 and no padding."""
        ones = {*self.kernel, *self.stride}
        return ones == {1} and not any(self.padding)

    def __str__(self) -> str:
        """Format the window: 11×11/4 (stride), 3×3 d2 (dilation), 5×5 g2 (groups).

        Example:
            >>> one = (1, 1)
            >>> three, two = (3, 3), (2, 2)
            >>> str(SlidingWindow(kernel=three, stride=two, padding=one, dilation=one))
            '3×3/2'
        """
        text = "×".join(map(str, self.kernel))
        if set(self.stride) != {1}:
            text += f"/{sides_text(self.stride)}"
        if set(self.dilation) != {1}:
            text += f" d{sides_text(self.dilation)}"
        return text + (f" g{self.groups}" if self.groups > 1 else "")


def sides_text(sides: tuple[object, ...]) -> str:
    """Format the numbers of both axes: one number if they are equal, else as `2×1`.

    Example:
        >>> sides_text((2, 2)), sides_text((2, 1))
        ('2', '2×1')
    """
    return str(sides[0]) if len(set(sides)) == 1 else "×".join(map(str, sides))


def window_of(func: Any, args: tuple[Any, ...]) -> SlidingWindow | None:
    """Return the sliding window of an operation; None if there is no window."""
    reader = _READERS.get(func)
    if reader is not None:
        return reader(*args)  # type: ignore[no-any-return]
    if is_quantized_operation(func) and func.overloadpacket.__name__ in CONVOLUTIONS:
        return quantized_window(args)
    return None


def quantized_window(args: tuple[Any, ...]) -> SlidingWindow:
    """Return the sliding window of a quantized convolution."""
    packed = args[1]
    kernel = tuple(packed_weight(packed).shape)[2:]
    sides = packed.stride(), packed.padding(), packed.dilation()
    stride, padding, dilation = (per_axis(side, len(kernel)) for side in sides)
    return _shared(kernel, stride, padding, dilation, groups=packed.groups())


def _convolution(x: Any, weight: Any, *settings: Any) -> SlidingWindow:
    _, stride, padding, dilation, transposed, _, groups = settings
    kernel = tuple(weight.shape)[2:]
    count = len(kernel)
    return _shared(
        kernel,
        per_axis(stride, count),
        per_axis(padding, count),
        per_axis(dilation, count),
        groups=groups,
        transposed=transposed,
    )


@cache
def _shared(
    kernel: Sides,
    stride: Sides,
    padding: Sides,
    dilation: Sides,
    groups: int = 1,
    transposed: bool = False,
    pooling: bool = False,
) -> SlidingWindow:
    """Return a cached window, so that windows with equal settings are one object."""
    return SlidingWindow(
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        transposed=transposed,
        pooling=pooling,
    )


def per_axis(value: Any, count: int) -> Sides:
    """Expand a setting to one number per axis.

    Example:
        >>> per_axis([3], 2), per_axis((3, 5), 2), per_axis(2, 3)
        ((3, 3), (3, 5), (2, 2, 2))
    """
    if isinstance(value, int):
        return (value,) * count
    return tuple(value) * count if len(value) == 1 else tuple(value)


def _pool(
    x: Any, f: Any, s: Any = (), p: Any = 0, d: Any = 1, *_: Any, count: int = 2
) -> SlidingWindow:
    kernel = per_axis(f, count)
    stride = per_axis(s, count) if s else kernel
    padding, dilation = per_axis(p, count), per_axis(d, count)
    return _shared(kernel, stride, padding, dilation, pooling=True)


def _average_pool(x: Any, f: Any, s: Any = (), p: Any = 0, *_: Any) -> SlidingWindow:
    return _pool(x, f, s, p)


def _average_pool_3d(x: Any, f: Any, s: Any = (), p: Any = 0, *_: Any) -> SlidingWindow:
    return _pool(x, f, s, p, count=3)


_READERS: dict[Any, Any] = {
    aten.convolution.default: _convolution,
    aten.max_pool2d_with_indices.default: _pool,
    aten.avg_pool2d.default: _average_pool,
    aten.avg_pool3d.default: _average_pool_3d,
}
