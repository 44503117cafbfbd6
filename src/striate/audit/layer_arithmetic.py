"""Formulas of one layer with inserted values: output size, parameters, MACs."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod

from striate.audit.layer import Layer, Operation, shape_text
from striate.audit.network import Audit
from striate.audit.window_args import SlidingWindow
from striate.core.findings import Column, Table
from striate.core.registry import unknown_name_error

Line = tuple[str, str, str]
COLUMNS = (
    Column("Quantity", key="what"),
    Column("Calculation", "code", key="arithmetic"),
    Column("Result", "code"),
)
AXES = ("height", "width", "depth")


def explain_layer(audit: Audit, name: str) -> Table:
    """Return a table of the formulas of a layer: output size, parameters and MACs.

    Raises:
        UnknownNameError: No layer has this name; lists the nearest.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> conv = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        >>> table = explain_layer(audit(nn.Sequential(conv), (3, 224, 224)), "0")
        >>> print(*table.rows[0])
        height ⌊(224 + 2·3 − 7)/2⌋ + 1 112
    """
    layers = {layer.name: layer for layer in audit.layers}
    if name not in layers:
        raise unknown_name_error("layer", name, layers)
    layer = layers[name]
    lines = [line for o in layer.operations for line in _operation(o, layer)]
    output = "" if layer.output is None else shape_text(layer.output)
    if not lines:
        lines = [("shape", "same as the input", output)]
    title = f"{name}: {layer.kind}, {output}"
    return Table(columns=COLUMNS, rows=tuple(lines), title=title)


def _operation(operation: Operation, layer: Layer) -> Iterator[Line]:
    window = operation.window
    if window is not None:
        yield from _sides(operation, window)
        if not window.pooling:
            yield from _convolution(operation, window, layer)
        yield from _receptive_field(operation, window)
    elif operation.macs:
        yield from _matmul(operation, layer)
    else:
        yield from _other_operation(operation)


def _sides(operation: Operation, window: SlidingWindow) -> Iterator[Line]:
    count = len(window.kernel)
    inputs, outputs = operation.inputs[0][-count:], operation.output[-count:]
    names = AXES[:count] if count < 3 else ("depth", "height", "width")
    lines = [
        (names[i], _side(window, i, inputs[i], outputs[i]), f"{outputs[i]:,}")
        for i in range(count)
    ]
    if len(lines) == 2 and lines[0][1:] == lines[1][1:]:
        lines[1] = ("width", "same as height", lines[0][2])
    yield from lines


def _side(window: SlidingWindow, i: int, side: int, out: int) -> str:
    f, s, p, d = window.axis(i)
    padding = f" + 2·{p}" if p else ""
    if window.transposed:
        base = (side - 1) * s - 2 * p + d * (f - 1) + 1
        less = f" − 2·{p}" if p else ""
        extra = f" + {out - base}" if out > base else ""
        return f"({side} − 1)·{s}{less} + {d}·({f} − 1) + 1{extra}"
    span = f"{f}" if d == 1 else f"{d}·({f} − 1) − 1"
    floor = (side + 2 * p - d * (f - 1) - 1) // s + 1
    left, right = ("⌊", "⌋") if floor == out else ("⌈", "⌉")
    return f"{left}({side}{padding} − {span})/{s}{right} + 1"


def _convolution(
    operation: Operation, window: SlidingWindow, layer: Layer
) -> Iterator[Line]:
    weight = operation.inputs[1]
    kernel = "·".join(map(str, window.kernel))
    channels, outputs = operation.inputs[0][1], operation.output[1]
    groups = window.groups
    inner = f"{channels}/{groups}" if groups > 1 else f"{channels}"
    weights = prod(weight)
    bias = layer.parameters - weights
    if bias == outputs:
        yield "parameters", f"({kernel}·{inner} + 1)·{outputs}", f"{layer.parameters:,}"
    else:
        yield "parameters", f"{kernel}·{inner}·{outputs}", f"{weights:,}"
    positions = operation.inputs[0] if window.transposed else operation.output
    places = "·".join(map(str, positions[-len(window.kernel) :]))
    macs = f"{places} · {kernel}·{inner}·{outputs}"
    yield "multiply-adds", macs, f"{operation.macs:,}"


def _matmul(operation: Operation, layer: Layer) -> Iterator[Line]:
    """Yield the formulas of a matrix product: parameter count and multiply-adds."""
    left, right = [shape for shape in operation.inputs if len(shape) > 1][-2:]
    rows, inner, columns = left[-2], left[-1], right[-1]
    if layer.parameters == (inner + 1) * columns:
        yield "parameters", f"({inner} + 1)·{columns}", f"{layer.parameters:,}"
    elif layer.parameters == inner * columns:
        yield "parameters", f"{inner}·{columns}", f"{layer.parameters:,}"
    batch = [left[0]] if len(left) == 3 and left[0] > 1 else []
    factors = [*batch, *([rows] if rows > 1 else []), inner, columns]
    yield "multiply-adds", "·".join(map(str, factors)), f"{operation.macs:,}"


def _other_operation(operation: Operation) -> Iterator[Line]:
    """Yield the formula of an operation without MACs: concat, flatten, norm or mean."""
    if not operation.inputs:
        return
    inputs = operation.inputs[0]
    name, outputs = operation.name, operation.output
    if name == "cat":
        parts = " + ".join(str(shape[1]) for shape in operation.inputs)
        yield "channels", parts, f"{outputs[1]:,}"
    elif name == "native_batch_norm" and len(operation.inputs) > 3:
        yield "parameters", f"2·{inputs[1]}", f"{2 * inputs[1]:,}"
    elif name == "view" and len(outputs) == 2 and len(inputs) > 2:
        yield "features", "·".join(map(str, inputs[1:])), f"{outputs[1]:,}"
    elif name in ("mean", "_adaptive_avg_pool2d") and len(inputs) == 4:
        sides = "·".join(map(str, inputs[2:]))
        yield "each output", f"mean of {sides} values", shape_text(outputs[1:])


def _receptive_field(operation: Operation, window: SlidingWindow) -> Iterator[Line]:
    """Return the formulas of the output's receptive field along the height."""
    field_in, field_out = operation.input_field, operation.receptive_field
    if field_in is None or field_out is None or window.transposed:
        return
    before, after = field_in.axes[0].formula, field_out.axes[0].formula
    if before is None or after is None or len(window.kernel) != 2:
        return
    f, s, p, d = window.axis(0)
    jump = _number(before.jump)
    step = f"({f} − 1)·{jump}" if d == 1 else f"{d}·({f} − 1)·{jump}"
    yield "receptive field", f"{_number(before.size)} + {step}", _number(after.size)
    yield "jump", f"{jump}·{s}", _number(after.jump)
    half = f"({_number(d * (f - 1))}/2 − {p})·{jump}"
    yield "first center", f"{_number(before.center)} + {half}", _number(after.center)


def _number(value: int | Fraction) -> str:
    text = str(int(value)) if value == int(value) else f"{float(value):g}"
    return text.replace("-", "−")
