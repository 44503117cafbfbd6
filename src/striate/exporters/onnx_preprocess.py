"""Preprocessing as ONNX nodes: bit-equal to that of training, for images of any size.

ONNX's own operator Resize gives other pixels. Here the two passes of the resize are
products with matrices of integer weights (see `resize_reference`), in double precision,
in which all sums are exact.
"""

from __future__ import annotations

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
    new_height, new_width = _scaled_sides(d, p, height, width)
    pixels = model.add("Transpose", ["image"], "resize/chw", perm=[0, 3, 1, 2])
    values = d.cast(pixels)
    values = _resized(model, d, values, (width, new_width), transposed=True)
    values = _resized(model, d, values, (height, new_height), transposed=False)
    if p.resize != "stretch":
        values = _centered(model, d, values, p, (new_height, new_width))
    pixels = d.cast(values, dtype=2)
    model.add("Transpose", [pixels], "resized", perm=[0, 2, 3, 1])


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
    model: OnnxModel,
    d: _Doubles,
    values: str,
    sizes: tuple[str, str | float],
    transposed: bool,
) -> str:
    """Append one pass: along the rows (`transposed`), or along the columns."""
    weights, power = _weights(model, d, *sizes)
    if transposed:
        weights = d.add("Transpose", weights)
        sums = d.add("MatMul", values, weights)
    else:
        sums = d.add("MatMul", weights, values)
    rounded = d.add("Add", sums, d.add("Mul", power, 0.5))
    levels = d.add("Floor", d.add("Div", rounded, power))
    return d.add("Clip", levels, 0.0, 255.0)


def _weights(
    model: OnnxModel, d: _Doubles, size: str, out_size: str | float
) -> tuple[str, str]:
    """Append `resize_weights`; return the weights and 2^p."""
    scale = d.add("Div", size, out_size)
    support = d.add("Max", scale, 1.0)
    column = model.constant(np.array([-1, 1], np.int64))
    index = d.add("Reshape", d.add("Range", 0.0, out_size, 1.0), column)
    center = d.add("Mul", scale, d.add("Add", index, 0.5))
    low = d.add("Add", d.add("Sub", center, support), 0.5)
    first = d.add("Max", d.add("Floor", low), 0.0)
    high = d.add("Add", d.add("Add", center, support), 0.5)
    last = d.add("Min", d.add("Floor", high), size)
    position = d.add("Range", 0.0, size, 1.0)
    offset = d.add("Add", d.add("Sub", position, center), 0.5)
    scaled = d.add("Mul", offset, d.add("Div", 1.0, support))
    weights = d.add("Max", d.add("Sub", 1.0, d.add("Abs", scaled)), 0.0)
    after_first = d.add("Not", d.add("Less", position, first))
    before_last = d.add("Less", position, last)
    inside = d.add("And", after_first, before_last)
    weights = d.add("Mul", weights, d.cast(inside))
    axis = model.constant(np.array([1], np.int64))
    total = d.add("ReduceSum", weights, axis, keepdims=1)
    weights = d.add("Div", weights, total)
    power = _power(model, d, weights)
    return d.add("Floor", d.add("Add", d.add("Mul", weights, power), 0.5)), power


def _power(model: OnnxModel, d: _Doubles, weights: str) -> str:
    """Append 2^p, with the largest p for which all integer weights are small enough."""
    powers = model.constant(2.0 ** np.arange(1, MAX_PRECISION + 1))
    largest = d.add("ReduceMax", weights, keepdims=0)
    levels = d.add("Floor", d.add("Add", d.add("Mul", powers, largest), 0.5))
    fits = d.cast(d.add("Less", levels, float(WEIGHT_LIMIT)))
    # 2^p is the largest of the powers that fit, or 2^0.
    return d.add("Max", d.add("ReduceMax", d.add("Mul", powers, fits), keepdims=0), 1.0)


def _centered(
    model: OnnxModel,
    d: _Doubles,
    values: str,
    preprocess: Preprocess,
    sides: tuple[str | float, str | float],
) -> str:
    """Append a center crop, or a border; the odd pixel goes to the bottom right."""
    p = preprocess
    axes = model.constant(np.array([2, 3], np.int64))
    lows, highs = [], []
    for size, side in zip((p.height, p.width), sides, strict=True):
        free = d.add("Sub", float(size), side)
        low = d.add("Floor", d.add("Div", free, 2.0))
        lows.append(low)
        highs.append(d.add("Sub", free, low))
    vector = model.constant(np.array([1], np.int64))

    def joined(*amounts: str) -> str:
        parts = [d.add("Reshape", amount, vector) for amount in amounts]
        return d.cast(d.add("Concat", *parts, axis=0), dtype=7)

    if p.resize == "crop":
        starts = [d.add("Neg", low) for low in lows]
        ends = [
            d.add("Add", start, float(size))
            for start, size in zip(starts, (p.height, p.width), strict=True)
        ]
        return d.add("Slice", values, joined(*starts), joined(*ends), axes)
    return d.add("Pad", values, joined(*lows, *highs), float(p.background), axes)
