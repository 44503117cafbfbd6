"""Convolution arithmetic: output size and padding, without torch.

Symbols: `n` input size, `f` kernel size, `p` padding (before, after), `s` stride, `d`
dilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from striate.core.errors import GeometryError

Padding = int | str | tuple[int, int]


def kernel_extent(kernel: int, dilation: int = 1) -> int:
    """Return the effective kernel size of a dilated kernel: d·(f − 1) + 1.

    Example:
        >>> kernel_extent(3), kernel_extent(3, dilation=2)
        (3, 5)
    """
    return dilation * (kernel - 1) + 1


def output_side(
    side: int,  # input size (height or width)
    kernel: int,
    stride: int = 1,  # step between windows
    # One number for both ends, a pair (before, after), `valid` (no padding), or `same`
    # (output size ⌈n/s⌉).
    padding: Padding = 0,
    dilation: int = 1,  # step between kernel elements
    # Round the output size up, as `ceil_mode` in torch does: a last window may exceed
    # the input if it starts inside.
    ceil: bool = False,
) -> int:
    """Return the output size of a convolution or pooling along one dimension.

    The size is ⌊(n + p_before + p_after − d·(f − 1) − 1)/s⌋ + 1. With d = 1 and equal
    padding p on both ends, this is ⌊(n + 2p − f)/s⌋ + 1.

    Raises:
        GeometryError: The window is larger than the padded input.

    Example:
        >>> output_side(224, 7, stride=2, padding=3)
        112
        >>> output_side(28, 3, padding="same"), output_side(28, 3, padding="valid")
        (28, 26)
        >>> output_side(112, 3, stride=2), output_side(112, 3, stride=2, ceil=True)
        (55, 56)
    """
    _check(kernel, stride, dilation)
    before, after = padding_amounts(padding, side, kernel, stride, dilation)
    span = kernel_extent(kernel, dilation)
    padded = side + before + after
    outputs = (padded - span) // stride + 1
    if ceil and (padded - span) % stride and outputs * stride < side + before:
        outputs += 1
    if outputs < 1:
        what = f"a window of size {span} does not fit an input of size {side}"
        raise GeometryError(f"{what} with padding {before}+{after}")
    return outputs


def pooled_side(
    side: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    ceil: bool = False,
) -> int:
    """Return the output size of a pooling along one dimension; check its padding.

    Raises:
        GeometryError: The window does not fit, or the padding is larger than half of
            the kernel size, so that a window could contain only padding.

    Example:
        >>> pooled_side(112, 3, stride=2, ceil=True)
        56
    """
    _check(kernel, stride, dilation)
    if padding > kernel // 2:
        raise GeometryError(f"padding {padding} is over half of the kernel ({kernel})")
    return output_side(side, kernel, stride, padding, dilation, ceil)


def transposed_side(
    side: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    extra: int = 0,
) -> int:
    """Return the output size of a transposed convolution along one dimension.

    The size is (n − 1)·s − 2p + d·(f − 1) + 1 + extra; a convolution with the same
    settings maps this size to n. `extra` is `output_padding` in torch.

    Raises:
        GeometryError: The output size is below 1, or `extra` is not smaller than the
            stride or the dilation.

    Example:
        >>> transposed_side(14, 2, stride=2), transposed_side(7, 3, 2, 1, extra=1)
        (28, 14)
    """
    _check(kernel, stride, dilation)
    if extra and extra >= max(stride, dilation):
        limit = f"the stride ({stride}) or the dilation ({dilation})"
        raise GeometryError(f"output padding {extra} must be smaller than {limit}")
    span = kernel_extent(kernel, dilation)
    outputs = (side - 1) * stride - 2 * padding + span + extra
    if min(side, outputs) < 1:
        what = f"padding {padding} leaves no output for an input of size {side}"
        raise GeometryError(what)
    return outputs


def _check(kernel: int, stride: int, dilation: int) -> None:
    if min(kernel, stride, dilation) < 1:
        what = f"kernel {kernel}, stride {stride} and dilation {dilation}"
        raise GeometryError(f"{what} must each be at least 1")


def padding_amounts(
    padding: Padding, side: int, kernel: int, stride: int = 1, dilation: int = 1
) -> tuple[int, int]:
    """Return the padding of one dimension as a pair (at the start, at the end).

    `same` at stride 1 pads d·(f − 1) in total; if this is odd, the end gets one more.
    A kernel of odd size f without dilation gets p = (f − 1)/2 on each end.

    Example:
        >>> padding_amounts("same", 28, 3), padding_amounts("same", 28, 5)
        ((1, 1), (2, 2))
    """
    if isinstance(padding, int):
        return padding, padding
    if isinstance(padding, tuple):
        return padding
    if padding == "valid":
        return 0, 0
    if padding == "same":
        outputs = -(-side // stride)
        total = max((outputs - 1) * stride + kernel_extent(kernel, dilation) - side, 0)
        return total // 2, total - total // 2
    fix = "use 'valid', 'same', a number, or a (before, after) pair"
    raise GeometryError(f"padding cannot be '{padding}'", fix=fix)


@dataclass(frozen=True, kw_only=True)
class Window:
    """Settings of a convolution or pooling layer along one dimension, with its name.

    Example:
        >>> Window(name="conv1", kernel=5).output(28)
        24
    """

    name: str
    kernel: int
    stride: int = 1
    padding: Padding = 0
    dilation: int = 1
    ceil: bool = False

    def output(self, side: int) -> int:
        """Return the output size of this layer for an input size."""
        return output_side(
            side, self.kernel, self.stride, self.padding, self.dilation, self.ceil
        )


def output_side_through(side: int, windows: Sequence[Window]) -> int:
    """Return the output size of a sequence of layers along one dimension.

    Raises:
        GeometryError: A window does not fit; the message names the layer, its input
            size, and the smallest image size that all layers accept.

    Example:
        >>> pool = Window(name="pool", kernel=2, stride=2)
        >>> output_side_through(28, [Window(name="conv", kernel=5), pool])
        12
    """
    got = side
    for window in windows:
        try:
            got = window.output(got)
        except GeometryError as error:
            needed = smallest_side(windows)
            what = f"layer {window.name}: {error.what}"
            fix = f"use images of at least {needed}×{needed} (--image-size {needed})"
            image = f"image height or width {side}"
            raise GeometryError(f"{what} ({image})", fix=fix) from error
    return got


def smallest_side(windows: Sequence[Window]) -> int:
    """Return the smallest input size that all layers accept.

    Example:
        >>> pool = Window(name="pool", kernel=2)
        >>> smallest_side([Window(name="conv", kernel=5), pool])
        6
    """
    side = 1
    while not _fits(side, windows):
        side += 1
    return side


def _fits(side: int, windows: Sequence[Window]) -> bool:
    try:
        for window in windows:
            side = window.output(side)
    except GeometryError:
        return False
    return True
