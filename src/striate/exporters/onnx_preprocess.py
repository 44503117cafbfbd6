"""Preprocessing as ONNX nodes: bit-equal to that of training, for images of any size.

ONNX's own operator Resize gives other pixels. Here the two passes of the resize are
products with matrices of integer weights (see `resize_reference`), in double precision,
in which all sums are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from striate.core.preprocess_config import Preprocess
from striate.exporters.onnx_model import OnnxModel
from striate.exporters.resize_reference import MAX_PRECISION, WEIGHT_LIMIT


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
    model.add("Cast", ["resized"], "resized/float", to=1)
    model.add("Transpose", ["resized/float"], "resized/chw", perm=[0, 3, 1, 2])
    mean, std = (
        model.constant((np.float32(255) * np.array(v, np.float32)).reshape(-1, 1, 1))
        for v in (preprocess.mean, preprocess.std)
    )
    model.binary("Sub", "resized/chw", mean, "resized/centered")
    model.binary("Div", "resized/centered", std, "normalized")


class _Doubles:
    """Shorthand for nodes on values in double precision."""

    def __init__(self, model: OnnxModel, scope: str) -> None:
        self._model = model
        self._scope = scope
        self._count = 0

    def add(self, operator: str, *inputs: str | float, **attrs: int) -> str:
        """Append a node; numbers become constants in double precision."""
        names = [
            x if isinstance(x, str) else self._model.constant(np.array(x, np.float64))
            for x in inputs
        ]
        self._count += 1
        output = f"{self._scope}/{self._count}"
        return self._model.add(operator, names, output, **attrs)

    def cast(self, name: str, dtype: int = 11) -> str:
        """Append a conversion, by default to double precision."""
        return self.add("Cast", name, to=dtype)


def _write_resize(model: OnnxModel, preprocess: Preprocess) -> None:
    p, d = preprocess, _Doubles(model, "resize")
    height, width = (_side(model, d, axis) for axis in (1, 2))
    scaled = _scaled_sides(d, p, height, width)
    vertical = _Axis(height, scaled[0], p.height, crop=p.resize == "crop")
    horizontal = _Axis(width, scaled[1], p.width, crop=p.resize == "crop")
    pixels = model.add("Transpose", ["image"], "resize/chw", perm=[0, 3, 1, 2])
    values = _resized(model, d, d.cast(pixels), horizontal, transposed=True)
    values = _resized(model, d, values, vertical, transposed=False)
    if p.resize == "pad":
        values = _padded(model, d, values, p, scaled)
    pixels = d.cast(values, dtype=2)
    model.add("Transpose", [pixels], "resized", perm=[0, 2, 3, 1])


class _Axis(NamedTuple):
    """One side of the image: its size, the size after resizing, and that of the input."""

    size: str
    scaled: str | float
    target: int
    crop: bool


def _side(model: OnnxModel, d: _Doubles, axis: int) -> str:
    """Return the height or the width of the image, as a scalar in double precision."""
    shape = model.add("Shape", ["image"], f"image/side{axis}", start=axis, end=axis + 1)
    axes = model.constant(np.array([0], np.int64))
    return d.cast(d.add("Squeeze", shape, axes))


def _scaled_sides(
    d: _Doubles, preprocess: Preprocess, height: str, width: str
) -> tuple[str | float, str | float]:
    """Return the size after resizing, before cropping or padding."""
    rows, columns = float(preprocess.height), float(preprocess.width)
    if preprocess.resize == "stretch":
        return rows, columns
    ratios = d.add("Div", rows, height), d.add("Div", columns, width)
    ratio = d.add("Max" if preprocess.resize == "crop" else "Min", *ratios)
    sides = (d.add("Round", d.add("Mul", side, ratio)) for side in (height, width))
    new_height, new_width = (d.add("Max", side, 1.0) for side in sides)
    return new_height, new_width


def _resized(
    model: OnnxModel, d: _Doubles, values: str, axis: _Axis, transposed: bool
) -> str:
    """Append one pass: along the rows (`transposed`), or along the columns."""
    weights, power = _weights(model, d, axis)
    if transposed:
        weights = d.add("Transpose", weights)
        sums = d.add("MatMul", values, weights)
    else:
        sums = d.add("MatMul", weights, values)
    rounded = d.add("Add", sums, d.add("Mul", power, 0.5))
    levels = d.add("Floor", d.add("Div", rounded, power))
    return d.add("Clip", levels, 0.0, 255.0)


def _weights(model: OnnxModel, d: _Doubles, axis: _Axis) -> tuple[str, str]:
    """Append `resize_weights`; return the weights and 2^p.

    Of a center crop only the rows inside the crop are computed: an image of 1×4,000
    would be resized to 224×896,000. The largest weight, which decides p, is that of all
    rows; an enlarged image has it, 1, in its first row.
    """
    if not axis.crop:
        weights = _fractions(model, d, axis, d.add("Range", 0.0, axis.scaled, 1.0))
        power = _power(model, d, weights)
    else:
        most = d.add("Min", axis.scaled, axis.size)
        rows = _fractions(model, d, axis, d.add("Range", 0.0, most, 1.0))
        power = _power(model, d, rows)
        free = d.add("Sub", float(axis.target), axis.scaled)
        start = d.add("Neg", d.add("Floor", d.add("Div", free, 2.0)))
        index = model.constant(np.arange(axis.target, dtype=np.float64))
        weights = _fractions(model, d, axis, d.add("Add", index, start))
    return d.add("Floor", d.add("Add", d.add("Mul", weights, power), 0.5)), power


def _fractions(model: OnnxModel, d: _Doubles, axis: _Axis, index: str) -> str:
    """Append the weights of some rows before they are rounded, (rows, size)."""
    scale = d.add("Div", axis.size, axis.scaled)
    support = d.add("Max", scale, 1.0)
    column = model.constant(np.array([-1, 1], np.int64))
    index = d.add("Reshape", index, column)
    center = d.add("Mul", scale, d.add("Add", index, 0.5))
    low = d.add("Add", d.add("Sub", center, support), 0.5)
    first = d.add("Max", d.add("Floor", low), 0.0)
    high = d.add("Add", d.add("Add", center, support), 0.5)
    last = d.add("Min", d.add("Floor", high), axis.size)
    position = d.add("Range", 0.0, axis.size, 1.0)
    offset = d.add("Add", d.add("Sub", position, center), 0.5)
    distance = d.add("Abs", d.add("Mul", offset, d.add("Div", 1.0, support)))
    weights = d.add("Max", d.add("Sub", 1.0, distance), 0.0)
    after_first = d.add("Not", d.add("Less", position, first))
    inside = d.add("And", after_first, d.add("Less", position, last))
    weights = d.add("Mul", weights, d.cast(inside))
    dims = model.constant(np.array([1], np.int64))
    return d.add("Div", weights, d.add("ReduceSum", weights, dims, keepdims=1))


def _power(model: OnnxModel, d: _Doubles, weights: str) -> str:
    """Append 2^p, with the largest p for which all integer weights are small enough."""
    powers = model.constant(2.0 ** np.arange(1, MAX_PRECISION + 1))
    largest = d.add("ReduceMax", weights, keepdims=0)
    levels = d.add("Floor", d.add("Add", d.add("Mul", powers, largest), 0.5))
    fits = d.cast(d.add("Less", levels, float(WEIGHT_LIMIT)))
    # 2^p is the largest of the powers that fit, or 2^0.
    return d.add("Max", d.add("ReduceMax", d.add("Mul", powers, fits), keepdims=0), 1.0)


def _padded(
    model: OnnxModel,
    d: _Doubles,
    values: str,
    preprocess: Preprocess,
    sides: tuple[str | float, str | float],
) -> str:
    """Append a border of the background; the odd pixel goes to the bottom right."""
    p = preprocess
    lows, highs = [], []
    for size, side in zip((p.height, p.width), sides, strict=True):
        free = d.add("Sub", float(size), side)
        low = d.add("Floor", d.add("Div", free, 2.0))
        lows.append(low)
        highs.append(d.add("Sub", free, low))
    vector = model.constant(np.array([1], np.int64))
    parts = [d.add("Reshape", amount, vector) for amount in (*lows, *highs)]
    amounts = d.cast(d.add("Concat", *parts, axis=0), dtype=7)
    axes = model.constant(np.array([2, 3], np.int64))
    return d.add("Pad", values, amounts, float(p.background), axes)
