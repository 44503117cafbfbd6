"""Preprocessing as ONNX nodes: bit-equal to that of training, for images of any size.

ONNX's own operator Resize gives other pixels. Here the two passes of the resize are
products with matrices of integer weights (see `resize_reference`), in double precision,
in which all sums are exact. Most weights of a matrix are 0: each pass computes blocks
of neighboring outputs, each from the inputs that it needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from striate.core.preprocess_config import Preprocess
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.resize_reference import MAX_PRECISION, WEIGHT_LIMIT

BLOCKS = 8  # of one pass
_UINT8, _INT64, _DOUBLE = 2, 7, 11  # data types of ONNX


def write_preprocess(
    model: OnnxModel, preprocess: Preprocess, *, input_kind: str, batch: int | str
) -> str:
    """Declare the input, append the preprocessing; return the name of its result.

    Args:
        model: File in the making.
        preprocess: Size, resize mode, mean and standard deviation.
        input_kind: `image`: (batch, H, W, C) uint8 of any size; `resized`: (batch, h,
            w, C) uint8; `tensor`: (batch, C, h, w) float32, normalized.
        batch: Fixed batch size, or the name of the free dimension.
    """
    p = preprocess
    if input_kind == "tensor":
        model.input("normalized", np.float32, [batch, *p.spec.shape])
        return "normalized"
    if input_kind == "resized":
        model.input("resized", np.uint8, [batch, *p.shape])
    else:
        model.input("image", np.uint8, [batch, "height", "width", p.channels])
        _write_resize(model, p)
    _write_normalization(model, p)
    return "normalized"


def _write_normalization(model: OnnxModel, preprocess: Preprocess) -> None:
    """Append (v − 255·mean) / (255·std) for each channel, in single precision."""
    model.add("Transpose", ["resized"], "resized/chw", perm=[0, 3, 1, 2])
    model.add("Cast", ["resized/chw"], "resized/float", to=1)
    mean, std = (
        model.constant((np.float32(255) * np.array(v, np.float32)).reshape(-1, 1, 1))
        for v in (preprocess.mean, preprocess.std)
    )
    model.binary("Sub", "resized/float", mean, "resized/centered")
    model.binary("Div", "resized/centered", std, "normalized")


class _Nodes:
    """Shorthand for nodes: numbers are constants, results are numbered."""

    def __init__(self, model: OnnxModel, scope: str) -> None:
        self._model = model
        self._scope = scope
        self._count = 0

    def add(
        self, operator: str, *inputs: str | float | np.ndarray, **attrs: object
    ) -> str:
        """Append a node; numbers become constants in double precision."""
        names = [x if isinstance(x, str) else self._constant(x) for x in inputs]
        self._count += 1
        output = f"{self._scope}/{self._count}"
        return self._model.add(operator, names, output, **attrs)

    def _constant(self, value: float | np.ndarray) -> str:
        return self._model.constant(np.asarray(value, getattr(value, "dtype", float)))

    def part(self, x: str, axis: int, start: str | int, end: str | int) -> str:
        """Append a slice; texts are names of values with one element."""
        ends = (v if isinstance(v, str) else np.array([v]) for v in (start, end))
        return self.add("Slice", x, *ends, np.array([axis]))

    def cast(self, x: str, dtype: int = _DOUBLE) -> str:
        """Append a conversion, by default to double precision."""
        return self.add("Cast", x, to=dtype)


def _write_resize(model: OnnxModel, preprocess: Preprocess) -> None:
    p, n = preprocess, _Nodes(model, "resize")
    sides = [_side(model, n, axis) for axis in (1, 2)]
    scaled = _scaled_sides(n, p, *sides)
    pixels = n.add("Transpose", "image", perm=[0, 3, 1, 2])
    insides = []
    for axis, target in ((3, p.width), (2, p.height)):
        side, new_side = sides[axis - 2], scaled[axis - 2]
        index, inside = _positions(n, p.resize, new_side, target)
        weights = _integer_weights(n, p.resize, side, new_side, index)
        pixels = _pass(n, pixels, weights, axis, target)
        insides.append(inside)
    if p.resize == "pad":
        columns, rows = insides
        image = n.add("And", n.add("Unsqueeze", rows, np.array([1])), columns)
        pixels = n.add("Where", image, pixels, np.array(p.background, np.uint8))
    model.add("Transpose", [pixels], "resized", perm=[0, 2, 3, 1])


def _side(model: OnnxModel, n: _Nodes, axis: int) -> str:
    """Return the height or the width of the image, as a scalar in double precision."""
    shape = model.add("Shape", ["image"], f"image/side{axis}", start=axis, end=axis + 1)
    return n.cast(n.add("Squeeze", shape, np.array([0])))


def _scaled_sides(
    n: _Nodes, preprocess: Preprocess, height: str, width: str
) -> tuple[str | float, str | float]:
    """Return the size after resizing, before cropping or padding."""
    rows, columns = float(preprocess.height), float(preprocess.width)
    if preprocess.resize == "stretch":
        return rows, columns
    vertical, horizontal = n.add("Div", rows, height), n.add("Div", columns, width)
    operator = "Max" if preprocess.resize == "crop" else "Min"
    ratio = n.add(operator, vertical, horizontal)
    sides = (n.add("Round", n.add("Mul", side, ratio)) for side in (height, width))
    new_height, new_width = (n.add("Max", side, 1.0) for side in sides)
    return new_height, new_width


def _positions(
    n: _Nodes, mode: str, scaled: str | float, target: int
) -> tuple[str | np.ndarray, str]:
    """Return the places of the outputs in the resized image, and which are inside it.

    The odd pixel of a border goes to the bottom right. Outputs in the border get the
    place of the nearest pixel.
    """
    index = np.arange(target, dtype=np.float64)
    if mode == "stretch":
        return index, ""
    free = n.add("Sub", float(target), scaled)
    border = n.add("Floor", n.add("Mul", free, 0.5))
    places = n.add("Sub", index, border)
    if mode == "crop":
        return places, ""
    last = n.add("Sub", scaled, 1.0)
    nearest = n.add("Min", n.add("Max", places, 0.0), last)
    return nearest, n.add("Equal", places, nearest)


@dataclass(frozen=True, kw_only=True)
class _Taps:
    """Weights of some outputs of a pass; for each output, of neighboring inputs."""

    first: str  # (outputs, 1): the first input of each output
    last: str  # (outputs, 1): the last one + 1
    offsets: str  # 0, 1, 2, … up to the largest number of inputs of one output
    weights: str  # (outputs, number of offsets)


def _taps(n: _Nodes, side: str, scaled: str | float, index: str | np.ndarray) -> _Taps:
    """Append the weights of the outputs `index`, with the sum 1, not yet rounded."""
    scale = n.add("Div", side, scaled)
    support = n.add("Max", scale, 1.0)
    column = n.add("Unsqueeze", index, np.array([1]))
    center = n.add("Mul", scale, n.add("Add", column, 0.5))
    low = n.add("Add", n.add("Sub", center, support), 0.5)
    first = n.add("Max", n.add("Floor", low), 0.0)
    high = n.add("Add", n.add("Add", center, support), 0.5)
    last = n.add("Min", n.add("Floor", high), side)
    count = n.add("Add", n.add("Mul", n.add("Ceil", support), 2.0), 1.0)
    offsets = n.add("Range", 0.0, count, 1.0)
    position = n.add("Add", offsets, first)
    distance = n.add("Add", n.add("Sub", position, center), 0.5)
    distance = n.add("Abs", n.add("Mul", distance, n.add("Div", 1.0, support)))
    triangle = n.add("Max", n.add("Sub", 1.0, distance), 0.0)
    weights = n.add("Mul", triangle, n.cast(n.add("Less", position, last)))
    total = n.add("ReduceSum", weights, np.array([1]), keepdims=1)
    weights = n.add("Div", weights, total)
    return _Taps(first=first, last=last, offsets=offsets, weights=weights)


def _integer_weights(
    n: _Nodes, mode: str, side: str, scaled: str | float, index: str | np.ndarray
) -> tuple[_Taps, str]:
    """Append the weights as integers, divided by 2^p; return also the matrix of them.

    The largest weight, which decides p, is that of all outputs, inside the crop or not.
    If the image grows, it is the 1 of the first output.
    """
    taps = everything = _taps(n, side, scaled, index)
    if mode == "crop":
        some = n.add("Range", 0.0, n.add("Min", side, scaled), 1.0)
        everything = _taps(n, side, scaled, some)
    power = _power(n, everything.weights)
    scaled_up = n.add("Mul", taps.weights, power)
    integers = n.add("Floor", n.add("Add", scaled_up, 0.5))
    fractions = n.add("Div", integers, power)
    places = n.cast(n.add("Add", taps.offsets, taps.first), _INT64)
    # As many columns as the largest place needs; weights behind the image are 0.
    shape = n.add("Shape", fractions)
    extra = n.add("Gather", shape, np.array([1]))
    columns = n.add("Add", extra, n.cast(n.add("Reshape", side, np.array([1])), _INT64))
    outputs = n.add("Gather", shape, np.array([0]))
    size = n.add("Concat", outputs, columns, axis=0)
    zeros = n.add("Expand", 0.0, size)
    return taps, n.add("ScatterElements", zeros, places, fractions, axis=1)


def _power(n: _Nodes, weights: str) -> str:
    """Append 2^p, with the largest p for which all integer weights are small enough."""
    powers = 2.0 ** np.arange(1, MAX_PRECISION + 1)
    largest = n.add("ReduceMax", weights, keepdims=0)
    levels = n.add("Floor", n.add("Add", n.add("Mul", powers, largest), 0.5))
    fits = n.cast(n.add("Less", levels, float(WEIGHT_LIMIT)))
    # 2^p is the largest of the powers that fit; 2^14 always fits.
    return n.add("ReduceMax", n.add("Mul", powers, fits), keepdims=0)


def _pass(
    n: _Nodes, pixels: str, weights: tuple[_Taps, str], axis: int, target: int
) -> str:
    """Append the resize of one side, `axis`, block by block; 8-bit pixels result."""
    taps, matrix = weights
    bounds = np.linspace(0, target, min(BLOCKS, target) + 1).astype(int).tolist()
    first, last = (n.cast(v, _INT64) for v in (taps.first, taps.last))
    blocks = []
    for start, end in pairwise(bounds):
        low = n.add("Reshape", n.add("Gather", first, np.array(start)), np.array([1]))
        high = n.add("Reshape", n.add("Gather", last, np.array(end - 1)), np.array([1]))
        values = n.cast(n.part(pixels, axis, low, high))
        rows = n.part(n.part(matrix, 0, start, end), 1, low, high)
        if axis == 3:
            blocks.append(n.add("MatMul", values, n.add("Transpose", rows)))
        else:
            blocks.append(n.add("MatMul", rows, values))
    sums = n.add("Concat", *blocks, axis=axis)
    levels = n.add("Floor", n.add("Add", sums, 0.5))
    return n.cast(n.add("Min", levels, 255.0), _UINT8)
