"""Build the torch modules of one layer of a sketch (a network in one line)."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

from torch import nn

from striate.core.conv_arithmetic import output_side, padding_amounts, transposed_side
from striate.core.errors import GeometryError, SettingError
from striate.core.format import count_text

Shape = tuple[int, ...]  # channels, height, width; or features alone
BuiltLayers = list[tuple[str, nn.Module, Shape]]

_NAMED = {
    **{"stride": "stride", "s": "stride", "/": "stride", "pad": "pad", "p": "pad"},
    **{"dilation": "dilation", "d": "dilation", "groups": "groups", "g": "groups"},
}
_FLAGS = ("same", "valid", "depthwise", "nobias", "ceil")


@dataclass
class LayerOptions:
    """Settings of a layer in a sketch, such as kernel size and number of outputs."""

    kernel: tuple[int, int] | None = None
    count: int | None = None
    named: dict[str, int] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    def window(self) -> tuple[int, int]:
        """Return the kernel size; a single number means a square kernel.

        Raises:
            SettingError: The kernel size is given twice, as `3x3` and as a number.
        """
        if self.kernel is None:
            side = self.count or 2
            return side, side
        if self.count is not None:
            written = self.written()
            what = f"two kernel sizes: {written['kernel']} and {written['count']}"
            raise SettingError(what, where="sketch", fix="write: pool 3x3 stride 2")
        return self.kernel

    def written(self) -> dict[str, str]:
        """Return the text of each given setting, by name, such as `kernel`: `5x5`.

        Example:
            >>> read_options(["5x5", "32", "same", "/2"]).written()
            {'kernel': '5x5', 'count': '32', 'stride': 'stride 2', 'same': 'same'}
        """
        kernel = {"kernel": "{}x{}".format(*self.kernel)} if self.kernel else {}
        count = {"count": str(self.count)} if self.count is not None else {}
        named = {name: f"{name} {number}" for name, number in self.named.items()}
        flags = {flag: flag for flag in _FLAGS if flag in self.flags}
        return {**kernel, **count, **named, **flags}

    def required_count(self, word: str) -> int:
        """Return the number of outputs; raise an error if the number is missing."""
        if self.count is None:
            what = f"{word} needs the number of outputs"
            raise SettingError(what, where="sketch", fix=f"write: {word} … 32")
        return self.count


def read_options(words: Sequence[str]) -> LayerOptions:
    """Parse the settings of a layer, such as `5x5`, `32`, `same`, `stride 2` or `/2`.

    Raises:
        SettingError: A word is not a setting.

    Example:
        >>> read_options(["5x5", "32", "same", "/2"]).named
        {'stride': 2}
    """
    options = LayerOptions()
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
            allowed = ", ".join(["5x5", "32", *_FLAGS, *dict.fromkeys(_NAMED.values())])
            what = f"'{word}' is not a layer setting"
            raise SettingError(what, where="sketch", fix=f"settings are: {allowed}")
    counts = [*options.named.items(), ("count", options.count)]
    for name, number in counts:
        if number is not None and number < 1 and name != "pad":
            what = f"{name} must be at least 1, got {number}"
            raise SettingError(what, where="sketch")
    return options


def _map_of(shape: Shape, word: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        what = (
            f"{word} needs a feature map, but its input has "
            f"{count_text(shape[0], 'flat feature')}"
        )
        raise GeometryError(what, where="sketch", fix="move it before dense or flatten")
    return shape[0], shape[1], shape[2]


def _convolution(options: LayerOptions, shape: Shape) -> BuiltLayers:
    channels, *sides = _map_of(shape, "conv")
    if "depthwise" in options.flags:
        out_channels, groups = options.count or channels, channels
    else:
        out_channels = options.required_count("conv")
        groups = options.named.get("groups", 1)
    kernel = options.kernel or (3, 3)
    stride, dilation = options.named.get("stride", 1), options.named.get("dilation", 1)
    if channels % groups or out_channels % groups:
        what = f"groups={groups} does not divide {channels} → {out_channels}"
        fix = "set groups to a divisor of both channel numbers"
        raise GeometryError(what, where="sketch", fix=fix)
    padding = "same" if "same" in options.flags else options.named.get("pad", 0)
    pads, out = [], []
    for side, f in zip(sides, kernel, strict=True):
        pads.append(padding_amounts(padding, side, f, stride, dilation))
        out.append(output_side(side, f, stride, pads[-1], dilation))
    even = all(before == after for before, after in pads)
    conv = nn.Conv2d(
        channels,
        out_channels,
        kernel,
        stride,
        (pads[0][0], pads[1][0]) if even else 0,
        dilation,
        groups,
        bias="nobias" not in options.flags,
    )
    layer = ("conv", conv, (out_channels, *out))
    if even:
        return [layer]
    padded = channels, sides[0] + sum(pads[0]), sides[1] + sum(pads[1])
    return [("pad", nn.ZeroPad2d((*pads[1], *pads[0])), padded), layer]


def _transposed(options: LayerOptions, shape: Shape) -> BuiltLayers:
    channels, *sides = _map_of(shape, "deconv")
    out_channels = options.required_count("deconv")
    kernel = options.kernel or (2, 2)
    stride, pad = options.named.get("stride", 2), options.named.get("pad", 0)
    out = [
        transposed_side(side, f, stride, pad)
        for side, f in zip(sides, kernel, strict=True)
    ]
    bias = "nobias" not in options.flags
    layer = nn.ConvTranspose2d(channels, out_channels, kernel, stride, pad, bias=bias)
    return [("deconv", layer, (out_channels, *out))]


def _pool(maximum: bool) -> Callable[[LayerOptions, Shape], BuiltLayers]:
    def make(options: LayerOptions, shape: Shape) -> BuiltLayers:
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


def _pool_padding(options: LayerOptions, kernel: int) -> int:
    if "same" in options.flags and kernel % 2 == 0:
        what = f"`same` pooling needs an odd kernel, got {kernel}"
        raise GeometryError(what, where="sketch", fix="use 3x3 or set `pad`")
    return kernel // 2 if "same" in options.flags else options.named.get("pad", 0)


def _global(options: LayerOptions, shape: Shape) -> BuiltLayers:
    side = options.count or 1
    layer = nn.AdaptiveAvgPool2d(side)
    return [("gap", layer, (_map_of(shape, "gap")[0], side, side))]


def _dense(options: LayerOptions, shape: Shape) -> BuiltLayers:
    out_channels: BuiltLayers = _flatten(options, shape) if len(shape) > 1 else []
    count, bias = options.required_count("dense"), "nobias" not in options.flags
    layer = nn.Linear(prod(shape), count, bias=bias)
    return [*out_channels, ("dense", layer, (count,))]


def _flatten(options: LayerOptions, shape: Shape) -> BuiltLayers:
    return [("flatten", nn.Flatten(), (prod(shape),))]


def _norm(options: LayerOptions, shape: Shape) -> BuiltLayers:
    kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
    return [("bn", kind(shape[0]), shape)]


def _upsample(options: LayerOptions, shape: Shape) -> BuiltLayers:
    channels, height, width = _map_of(shape, "upsample")
    times = options.count or 2
    grown = (channels, height * times, width * times)
    return [("upsample", nn.Upsample(scale_factor=times), grown)]


def _same_shape(
    word: str, build: Callable[[], nn.Module]
) -> Callable[..., BuiltLayers]:
    return lambda options, shape: [(word, build(), shape)]


_PADDING = ("same", "valid", "pad")
_EXCLUSIVE = (_PADDING, ("depthwise", "groups"))  # at most one of each
_POOL = ("kernel", "count", "stride", *_PADDING, "ceil")
_CONVOLUTION = "kernel", "count", *_PADDING, "stride", "dilation", "groups"


@dataclass(frozen=True)
class LayerSpec:
    """Specification of a layer type: its builder and its allowed settings."""

    # Function that builds the layer from its settings and the input shape.
    make: Callable[[LayerOptions, Shape], BuiltLayers]
    settings: tuple[str, ...] = ()  # allowed settings; any other setting is an error


LAYERS = {
    "conv": LayerSpec(_convolution, (*_CONVOLUTION, "depthwise", "nobias")),
    "deconv": LayerSpec(_transposed, ("kernel", "count", "stride", "pad", "nobias")),
    "pool": LayerSpec(_pool(maximum=True), _POOL),
    "maxpool": LayerSpec(_pool(maximum=True), _POOL),
    "avgpool": LayerSpec(_pool(maximum=False), _POOL),
    "gap": LayerSpec(_global, ("count",)),
    "dense": LayerSpec(_dense, ("count", "nobias")),
    "flatten": LayerSpec(_flatten),
    "bn": LayerSpec(_norm),
    "upsample": LayerSpec(_upsample, ("count",)),
    "relu": LayerSpec(_same_shape("relu", nn.ReLU)),
    "tanh": LayerSpec(_same_shape("tanh", nn.Tanh)),
    "sigmoid": LayerSpec(_same_shape("sigmoid", nn.Sigmoid)),
    "softmax": LayerSpec(_same_shape("softmax", lambda: nn.Softmax(1))),
    "dropout": LayerSpec(_same_shape("dropout", nn.Dropout)),
    "lrn": LayerSpec(_same_shape("lrn", lambda: nn.LocalResponseNorm(5))),
    "id": LayerSpec(_same_shape("id", nn.Identity)),
}


def make_layer(word: str, words: Sequence[str], shape: Shape) -> BuiltLayers:
    """Build the modules of one layer of a sketch.

    Raises:
        SettingError: A setting is unknown or not allowed; the message lists valid ones.
        GeometryError: The layer does not fit its input.
    """
    layer, options = LAYERS[word], read_options(words)
    written = options.written()
    unsupported = [v for name, v in written.items() if name not in layer.settings]
    if unsupported:
        example = {"kernel": "5x5", "count": "32"}
        allowed = ", ".join(example.get(name, name) for name in layer.settings)
        what = f"{word} does not accept '{unsupported[0]}'"
        fix = f"allowed settings: {allowed}" if allowed else "remove all settings"
        raise SettingError(what, where="sketch", fix=fix)
    for exclusive in _EXCLUSIVE:
        both = [written[name] for name in exclusive if name in written]
        if both[1:]:
            what = f"{' and '.join(both)} cannot be combined"
            raise SettingError(what, where="sketch", fix="keep one of them")
    return layer.make(options, shape)
