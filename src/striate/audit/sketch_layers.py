"""The layers that a sketch knows, each as a word: settings and shape → module."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from torch import nn

from striate.core.conv_arithmetic import output_side, padding_amounts, transposed_side
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
        """Return the kernel; one number stands for a square.

        Raises:
            SettingError: There are both.
        """
        if self.kernel is None:
            side = self.count or 2
            return side, side
        if self.count is not None:
            given = self.given()
            what = f"a window is {given['kernel']} or {given['count']}, not both"
            raise SettingError(what, where="sketch", fix="write: pool 3x3 stride 2")
        return self.kernel

    def given(self) -> dict[str, str]:
        """Return the words that were there, each by what it sets.

        Example:
            >>> read_options(["5x5", "32", "same", "/2"]).given()
            {'kernel': '5x5', 'count': '32', 'stride': 'stride 2', 'same': 'same'}
        """
        kernel = {"kernel": "{}x{}".format(*self.kernel)} if self.kernel else {}
        count = {"count": str(self.count)} if self.count is not None else {}
        named = {name: f"{name} {number}" for name, number in self.named.items()}
        flags = {flag: flag for flag in _FLAGS if flag in self.flags}
        return {**kernel, **count, **named, **flags}

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
        stride = options.named.get("stride")
        strides = kernel if stride is None else (stride, stride)
        ceil = "ceil" in options.flags
        pads = [_pool_padding(options, f) for f in kernel]
        out = [
            output_side(side, f, step, pad, ceil=ceil)
            for side, f, step, pad in zip(sides, kernel, strides, pads, strict=True)
        ]
        kind = nn.MaxPool2d if maximum else nn.AvgPool2d
        layer = kind(kernel, strides, (pads[0], pads[1]), ceil_mode=ceil)
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


_PADDING = ("same", "valid", "pad")
_RIVALS = (_PADDING, ("depthwise", "groups"))  # of each at most one is written
_POOL = ("kernel", "count", "stride", *_PADDING, "ceil")
_CONVOLUTION = "kernel", "count", *_PADDING, "stride", "dilation", "groups"


@dataclass(frozen=True)
class Layer:
    """How a layer is made, and which words it understands.

    Args:
        make: From its settings and the shape of its input.
        takes: What it may be told; nothing else is passed over in silence.
    """

    make: Callable[[Options, Shape], Made]
    takes: tuple[str, ...] = ()


LAYERS = {
    "conv": Layer(_convolution, (*_CONVOLUTION, "depthwise", "nobias")),
    "deconv": Layer(_transposed, ("kernel", "count", "stride", "pad", "nobias")),
    "pool": Layer(_pool(maximum=True), _POOL),
    "maxpool": Layer(_pool(maximum=True), _POOL),
    "avgpool": Layer(_pool(maximum=False), _POOL),
    "gap": Layer(_global, ("count",)),
    "dense": Layer(_dense, ("count", "nobias")),
    "flatten": Layer(_flatten),
    "bn": Layer(_norm),
    "upsample": Layer(_upsample, ("count",)),
    "relu": Layer(_keeping("relu", nn.ReLU)),
    "tanh": Layer(_keeping("tanh", nn.Tanh)),
    "sigmoid": Layer(_keeping("sigmoid", nn.Sigmoid)),
    "softmax": Layer(_keeping("softmax", lambda: nn.Softmax(1))),
    "dropout": Layer(_keeping("dropout", nn.Dropout)),
    "lrn": Layer(_keeping("lrn", lambda: nn.LocalResponseNorm(5))),
    "id": Layer(_keeping("id", nn.Identity)),
}


def make_layer(word: str, words: Sequence[str], shape: Shape) -> Made:
    """Return what a layer's name and the words behind it mean.

    Raises:
        SettingError: A word is no setting, or none of this layer; lists those it takes.
        GeometryError: The layer does not fit its input.
    """
    layer, options = LAYERS[word], read_options(words)
    given = options.given()
    if strange := [text for name, text in given.items() if name not in layer.takes]:
        example = {"kernel": "5x5", "count": "32"}
        known = ", ".join(example.get(name, name) for name in layer.takes)
        what = f"{word} has no use for '{strange[0]}'"
        fix = f"it takes: {known}" if known else "it stands alone"
        raise SettingError(what, where="sketch", fix=fix)
    for rivals in _RIVALS:
        written = [given[name] for name in rivals if name in given]
        if written[1:]:
            what = f"{' and '.join(written)} exclude each other"
            raise SettingError(what, where="sketch", fix="write one of them")
    return layer.make(options, shape)
