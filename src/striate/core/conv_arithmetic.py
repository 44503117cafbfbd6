"""Convolution arithmetic: output size, padding and parameter count, without torch.

`n` input side, `f` kernel side, `p` padding (before, after), `s` stride,
`d` dilation, `g` groups; 1 MAC is one multiply-add, 2 FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from striate.core.errors import GeometryError

Padding = int | str | tuple[int, int]


def kernel_extent(kernel: int, dilation: int = 1) -> int:
    """Return how many input positions a kernel spans: d·(f − 1) + 1.

    Example:
        >>> kernel_extent(3), kernel_extent(3, dilation=2)
        (3, 5)
    """
    return dilation * (kernel - 1) + 1


def output_side(
    side: int,
    kernel: int,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    ceil: bool = False,
) -> int:
    """Return one side of a convolution's or pooling's output.

    ⌊(n + p_before + p_after − d·(f − 1) − 1)/s⌋ + 1; with d = 1 and p on both sides
    the familiar ⌊(n + 2p − f)/s⌋ + 1.

    Args:
        side: Input positions along this side.
        kernel: Kernel positions along this side.
        stride: Step between windows.
        padding: An amount on both ends, a (before, after) pair, `valid` (none) or
            `same` (as many outputs as ⌈n/s⌉).
        dilation: Step between kernel positions.
        ceil: Round up, as some poolings do: a last window may hang over the end,
            if it begins inside.

    Raises:
        GeometryError: The window does not fit even once.

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
        what = f"a window of {span} does not fit a side of {side}"
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
    """Return one side of a pooling's output; windows of padding alone are refused.

    Raises:
        GeometryError: The window does not fit, or the padding is over half of the
            kernel, so that a window could lie in the padding alone.

    Example:
        >>> pooled_side(112, 3, stride=2, ceil=True)
        56
    """
    _check(kernel, stride, dilation)
    if padding > kernel // 2:
        raise GeometryError(f"padding {padding} is over half of a window of {kernel}")
    return output_side(side, kernel, stride, padding, dilation, ceil)


def transposed_side(
    side: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    extra: int = 0,
) -> int:
    """Return one side of a transposed convolution's output.

    (n − 1)·s − 2p + d·(f − 1) + 1 + extra: the side whose convolution gives n.

    Raises:
        GeometryError: Nothing is left, or `extra` reaches the stride or dilation.

    Example:
        >>> transposed_side(14, 2, stride=2), transposed_side(7, 3, 2, 1, extra=1)
        (28, 14)
    """
    _check(kernel, stride, dilation)
    if extra and extra >= max(stride, dilation):
        what = f"output padding {extra} must be smaller than the stride ({stride}) or "
        raise GeometryError(f"{what}the dilation ({dilation})")
    outputs = (
        (side - 1) * stride - 2 * padding + kernel_extent(kernel, dilation) + extra
    )
    if min(side, outputs) < 1:
        what = f"padding {padding} removes all of a side of {side}: no output is left"
        raise GeometryError(what)
    return outputs


def _check(kernel: int, stride: int, dilation: int) -> None:
    if min(kernel, stride, dilation) < 1:
        what = f"kernel {kernel}, stride {stride} and dilation {dilation}"
        raise GeometryError(f"{what} must each be at least 1")


def padding_amounts(
    padding: Padding, side: int, kernel: int, stride: int = 1, dilation: int = 1
) -> tuple[int, int]:
    """Return padding as (before, after), whatever form it was given in.

    `same` at stride 1 pads d·(f − 1) in all, the odd one after, so an odd kernel
    gets p = (f − 1)/2 on each end.

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


def conv_parameters(
    kernel: tuple[int, int],
    channels_in: int,
    channels_out: int,
    groups: int = 1,
    bias: bool = True,
) -> int:
    """Return a convolution's parameters: (f·f·C_in/g + 1)·C_out.

    They do not depend on the image's size.

    Example:
        >>> conv_parameters((3, 3), 3, 2), conv_parameters((3, 3), 1, 10)
        (56, 100)
    """
    weights = kernel[0] * kernel[1] * (channels_in // groups)
    return (weights + bias) * channels_out


def dense_parameters(inputs: int, outputs: int, bias: bool = True) -> int:
    """Return a dense layer's parameters: (inputs + 1)·outputs.

    Example:
        >>> dense_parameters(1000 * 1000, 100, bias=False)
        100000000
    """
    return (inputs + bias) * outputs


@dataclass(frozen=True, kw_only=True)
class Window:
    """A sliding window of a network, with the layer's name for error messages.

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
        """Return this window's output side for an input side."""
        return output_side(
            side, self.kernel, self.stride, self.padding, self.dilation, self.ceil
        )


def output_side_through(side: int, windows: Sequence[Window]) -> int:
    """Return one output side after a sequence of windows.

    Raises:
        GeometryError: A window does not fit; names the layer, the size it got, the
            size it needs, and the smallest image that goes through.

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
            what = f"{window.name} got a side of {got}: {error.what}"
            fix = f"use images of at least {needed}×{needed} (--image-size {needed})"
            got_text = f"an image side of {side}"
            raise GeometryError(f"{what}; from {got_text}", fix=fix) from error
    return got


def smallest_side(windows: Sequence[Window]) -> int:
    """Return the smallest input side that passes every window.

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
    return side >= 1
