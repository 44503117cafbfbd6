"""The arithmetic of one layer, written out as on paper."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import prod

from striate.audit.layer import Layer, Operation, shape_text
from striate.audit.network import Audit
from striate.audit.window_args import Windows
from striate.core.findings import Column, Table
from striate.core.registry import unknown_name_error

Line = tuple[str, str, str]
COLUMNS = (
    Column(title="what", key="what"),
    Column(title="on paper", key="arithmetic", kind="code"),
    Column(title="result", key="result", kind="code"),
)
AXES = ("height", "width", "depth")


def explain(audit: Audit, name: str) -> Table:
    """Return how a layer's numbers come about.

    Args:
        audit: The network.
        name: A layer of it, as the table writes it.

    Raises:
        UnknownNameError: No layer has this name; lists the nearest.

    Example:
        >>> from torch import nn
        >>> from striate.audit.network import audit
        >>> conv = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        >>> table = explain(audit(nn.Sequential(conv), (3, 224, 224)), "0")
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
        lines = [("shape", "as its input", output)]
    title = f"{name}: {layer.kind}, {output}"
    return Table(columns=COLUMNS, rows=tuple(lines), title=title)


def _operation(operation: Operation, layer: Layer) -> Iterator[Line]:
    windows = operation.windows
    if windows is not None:
        yield from _sides(operation, windows)
        if not windows.pooling:
            yield from _convolution(operation, windows, layer)
        yield from _field(operation, windows)
    elif operation.macs:
        yield from _product(operation, layer)
    else:
        yield from _movement(operation)


def _sides(operation: Operation, windows: Windows) -> Iterator[Line]:
    count = len(windows.kernel)
    given, made = operation.inputs[0][-count:], operation.output[-count:]
    names = AXES[:count] if count < 3 else ("depth", "height", "width")
    lines = []
    for i, (name, side, out) in enumerate(zip(names, given, made, strict=True)):
        lines.append((name, _side(windows, i, side, out), f"{out:,}"))
    if len(lines) == 2 and lines[0][1:] == lines[1][1:]:
        lines[1] = ("width", "likewise", lines[0][2])
    yield from lines


def _side(windows: Windows, i: int, side: int, out: int) -> str:
    f, s, p, d = (
        sides[i]
        for sides in (windows.kernel, windows.stride, windows.padding, windows.dilation)
    )
    padding = f" + 2·{p}" if p else ""
    if windows.transposed:
        base = (side - 1) * s - 2 * p + d * (f - 1) + 1
        less = f" − 2·{p}" if p else ""
        extra = f" + {out - base}" if out > base else ""
        return f"({side} − 1)·{s}{less} + {d}·({f} − 1) + 1{extra}"
    span = f"{f}" if d == 1 else f"{d}·({f} − 1) − 1"
    floor = (side + 2 * p - d * (f - 1) - 1) // s + 1
    left, right = ("⌊", "⌋") if floor == out else ("⌈", "⌉")
    return f"{left}({side}{padding} − {span})/{s}{right} + 1"


def _convolution(
    operation: Operation, windows: Windows, layer: Layer
) -> Iterator[Line]:
    weight = operation.inputs[1]
    kernel = "·".join(map(str, windows.kernel))
    channels = operation.inputs[0][1]
    groups = windows.groups
    made = operation.output[1]
    inner = f"{channels}/{groups}" if groups > 1 else f"{channels}"
    weights = prod(weight)
    bias = layer.parameters - weights
    if bias == made:
        yield "parameters", f"({kernel}·{inner} + 1)·{made}", f"{layer.parameters:,}"
    else:
        yield "parameters", f"{kernel}·{inner}·{made}", f"{weights:,}"
    positions = operation.inputs[0] if windows.transposed else operation.output
    count = len(windows.kernel)
    places = "·".join(map(str, positions[-count:]))
    yield "multiply-adds", f"{places} · {kernel}·{inner}·{made}", f"{operation.macs:,}"


def _product(operation: Operation, layer: Layer) -> Iterator[Line]:
    """Explain a matrix product: its two last inputs are the matrices."""
    left, right = [shape for shape in operation.inputs if len(shape) > 1][-2:]
    rows, inner, columns = left[-2], left[-1], right[-1]
    if layer.parameters == (inner + 1) * columns:
        yield "parameters", f"({inner} + 1)·{columns}", f"{layer.parameters:,}"
    elif layer.parameters == inner * columns:
        yield "parameters", f"{inner}·{columns}", f"{layer.parameters:,}"
    batch = [left[0]] if len(left) == 3 and left[0] > 1 else []
    factors = [*batch, *([rows] if rows > 1 else []), inner, columns]
    yield "multiply-adds", "·".join(map(str, factors)), f"{operation.macs:,}"


def _movement(operation: Operation) -> Iterator[Line]:
    """Explain what computes no products: how its numbers come together."""
    if not operation.inputs:
        return
    given = operation.inputs[0]
    name, made = operation.name, operation.output
    if name == "cat":
        parts = " + ".join(str(shape[1]) for shape in operation.inputs)
        yield "channels", parts, f"{made[1]:,}"
    elif name == "native_batch_norm" and len(operation.inputs) > 3:
        yield "parameters", f"2·{given[1]}", f"{2 * given[1]:,}"
    elif name == "view" and len(made) == 2 and len(given) > 2:
        yield "numbers", "·".join(map(str, given[1:])), f"{made[1]:,}"
    elif name in ("mean", "_adaptive_avg_pool2d") and len(given) == 4:
        sides = "·".join(map(str, given[2:]))
        yield "each output", f"the mean of {sides}", shape_text(made[1:])


def _field(operation: Operation, windows: Windows) -> Iterator[Line]:
    """Explain how the window widens what a unit sees, along the height."""
    given, made = operation.given, operation.sight
    if given is None or made is None or windows.transposed:
        return
    before, after = given.axes[0].line, made.axes[0].line
    if before is None or after is None or len(windows.kernel) != 2:
        return
    f, s, p, d = (
        sides[0]
        for sides in (windows.kernel, windows.stride, windows.padding, windows.dilation)
    )
    jump = _plain(before.jump)
    step = f"({f} − 1)·{jump}" if d == 1 else f"{d}·({f} − 1)·{jump}"
    yield "receptive field", f"{_plain(before.size)} + {step}", _plain(after.size)
    yield "jump", f"{jump}·{s}", _plain(after.jump)
    half = f"({_plain(d * (f - 1))}/2 − {p})·{jump}"
    yield "first center", f"{_plain(before.center)} + {half}", _plain(after.center)


def _plain(value: int | Fraction) -> str:
    text = str(int(value)) if value == int(value) else f"{float(value):g}"
    return text.replace("-", "−")
