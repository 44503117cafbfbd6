"""The layers that a sketch knows, each as a word: settings and shape → module."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from torch import nn

from striate.core.arithmetic import output_side, padding_amounts, transposed_side
from striate.core.errors import GeometryError, SettingError

Shape = tuple[int, ...]  # channels, height, width; or features alone
Made = list[tuple[str, nn.Module, Shape]]

_NAMED = {
    "stride": "stride",
    "s": "stride",
    "/": "stride",
    "pad": "pad",
    "p": "pad",
    "dilation": "dilation",
    "d": "dilation",
    "groups": "groups",
    "g": "groups",
}
_FLAGS = ("same", "valid", "depthwise", "nobias", "ceil")


@dataclass
class Options:
    """The words after a layer's name: a kernel, a count, settings, flags."""

    kernel: tuple[int, int] | None = None
    count: int | None = None
    named: dict[str, int] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    def window(self) -> tuple[int, int]:
        """Return the kernel; one number stands for a square."""
        if self.kernel is not None:
            return self.kernel
        side = self.count or 2
        return side, side

    def wanted(self, word: str) -> int:
        """Return the count, without which the layer means nothing."""
        if self.count is None:
            what = f"{word} needs a number of outputs"
            raise SettingError(what, where="sketch", fix=f"write: {word} … 32")
        return self.count


def read_options(words: Sequence[str]) -> Options:
    """Sort words: 5x5, 32, same, stride 2, s2, /2, d2, g4, nobias.

    Raises:
        SettingError: A word is none of these.

    Example:
        >>> read_options(["5x5", "32", "same", "/2"]).named
        {'stride': 2}
    """
    options = Options()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        glued = re.fullmatch(r"(/|[a-z]+)=?(\d+)", word)
        pair = re.fullmatch(r"(\d+)[x×](\d+)", word)
        if word in _FLAGS:
            options.flags.add(word)
        elif glued and glued[1] in _NAMED:
            options.named[_NAMED[glued[1]]] = int(glued[2])
        elif word in _NAMED and rest and rest[0].isdecimal():
            options.named[_NAMED[word]] = int(rest.pop(0))
        elif pair:
            options.kernel = int(pair[1]), int(pair[2])
        elif word.isdecimal() and options.count is None:
            options.count = int(word)
        else:
            known = ", ".join(["5x5", "32", *_FLAGS, *dict.fromkeys(_NAMED.values())])
            what = f"'{word}' is no setting of a layer"
            raise SettingError(what, where="sketch", fix=f"choose of: {known}")
    counts = [*options.named.items(), ("count", options.count)]
    for name, number in counts:
        if number is not None and number < 1 and name != "pad":
            what = f"{name} must be at least 1, got {number}"
            raise SettingError(what, where="sketch")
    return options


def _map_of(shape: Shape, word: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        what = f"{word} needs a map, and a dense layer gave {shape[0]} numbers"
        raise GeometryError(what, where="sketch", fix="put it before dense or flatten")
    return shape[0], shape[1], shape[2]


def _convolution(options: Options, shape: Shape) -> Made:
    channels, *sides = _map_of(shape, "conv")
    deep = "depthwise" in options.flags
    made = (options.count or channels) if deep else options.wanted("conv")
    groups = channels if deep else options.named.get("groups", 1)
    kernel = options.kernel or (3, 3)
    stride, dilation = options.named.get("stride", 1), options.named.get("dilation", 1)
    if channels % groups or made % groups:
        what = f"{groups} groups do not divide {channels} → {made} channels"
        raise GeometryError(what, where="sketch", fix="choose a common divisor")
    pads = [
        _padding(options, side, f, stride, dilation)
        for side, f in zip(sides, kernel, strict=True)
    ]
    out = [
        output_side(side, f, stride, pad, dilation)
        for side, f, pad in zip(sides, kernel, pads, strict=True)
    ]
    even = all(before == after for before, after in pads)
    conv = nn.Conv2d(
        channels,
        made,
        kernel,
        stride,
        (pads[0][0], pads[1][0]) if even else 0,
        dilation,
        groups,
        bias="nobias" not in options.flags,
    )
    layer = ("conv", conv, (made, *out))
    if even:
        return [layer]
    padded = (
        channels,
        *(side + sum(pad) for side, pad in zip(sides, pads, strict=True)),
    )
    return [("pad", nn.ZeroPad2d((*pads[1], *pads[0])), padded), layer]


def _padding(
    options: Options, side: int, kernel: int, stride: int, dilation: int
) -> tuple[int, int]:
    same = "same" in options.flags
    wanted = "same" if same else options.named.get("pad", 0)
    return padding_amounts(wanted, side, kernel, stride, dilation)


def _transposed(options: Options, shape: Shape) -> Made:
    channels, *sides = _map_of(shape, "deconv")
    made = options.wanted("deconv")
    kernel = options.kernel or (2, 2)
    stride, pad = options.named.get("stride", 2), options.named.get("pad", 0)
    out = [
        transposed_side(side, f, stride, pad)
        for side, f in zip(sides, kernel, strict=True)
    ]
    bias = "nobias" not in options.flags
    layer = nn.ConvTranspose2d(channels, made, kernel, stride, pad, bias=bias)
    return [("deconv", layer, (made, *out))]


def _pool(maximum: bool) -> Callable[[Options, Shape], Made]:
    def make(options: Options, shape: Shape) -> Made:
        channels, *sides = _map_of(shape, "pool")
        kernel = options.window()
        stride = options.named.get("stride", kernel[0])
        ceil = "ceil" in options.flags
        pads = [_pool_padding(options, f) for f in kernel]
        out = [
            output_side(side, f, stride, pad, ceil=ceil)
            for side, f, pad in zip(sides, kernel, pads, strict=True)
        ]
        kind = nn.MaxPool2d if maximum else nn.AvgPool2d
        layer = kind(kernel, stride, (pads[0], pads[1]), ceil_mode=ceil)
        return [("pool", layer, (channels, *out))]

    return make


def _pool_padding(options: Options, kernel: int) -> int:
    if "same" in options.flags and kernel % 2 == 0:
        what = f"a pool of {kernel} cannot be `same`: its padding has no middle"
        raise GeometryError(what, where="sketch", fix="use an odd window")
    return kernel // 2 if "same" in options.flags else options.named.get("pad", 0)


def _global(options: Options, shape: Shape) -> Made:
    side = options.count or 1
    layer = nn.AdaptiveAvgPool2d(side)
    return [("gap", layer, (_map_of(shape, "gap")[0], side, side))]


def _dense(options: Options, shape: Shape) -> Made:
    made: Made = _flatten(options, shape) if len(shape) > 1 else []
    count, bias = options.wanted("dense"), "nobias" not in options.flags
    layer = nn.Linear(prod(shape), count, bias=bias)
    return [*made, ("dense", layer, (count,))]


def _flatten(options: Options, shape: Shape) -> Made:
    return [("flatten", nn.Flatten(), (prod(shape),))]


def _norm(options: Options, shape: Shape) -> Made:
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return [("bn", kind(shape[0]), shape)]


def _upsample(options: Options, shape: Shape) -> Made:
    channels, height, width = _map_of(shape, "upsample")
    times = options.count or 2
    grown = (channels, height * times, width * times)
    return [("upsample", nn.Upsample(scale_factor=times), grown)]


def _keeping(word: str, build: Callable[[], nn.Module]) -> Callable[..., Made]:
    return lambda options, shape: [(word, build(), shape)]


LAYERS: dict[str, Callable[[Options, Shape], Made]] = {
    "conv": _convolution,
    "deconv": _transposed,
    "pool": _pool(maximum=True),
    "maxpool": _pool(maximum=True),
    "avgpool": _pool(maximum=False),
    "gap": _global,
    "dense": _dense,
    "flatten": _flatten,
    "bn": _norm,
    "upsample": _upsample,
    "relu": _keeping("relu", nn.ReLU),
    "tanh": _keeping("tanh", nn.Tanh),
    "sigmoid": _keeping("sigmoid", nn.Sigmoid),
    "softmax": _keeping("softmax", lambda: nn.Softmax(1)),
    "dropout": _keeping("dropout", nn.Dropout),
    "lrn": _keeping("lrn", lambda: nn.LocalResponseNorm(5)),
    "id": _keeping("id", nn.Identity),
}
