"""ONNX nodes of each graph operation (opset 18, standard operators only)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from striate.exporters.graph import BATCH, GraphNode, NetworkGraph
from striate.exporters.onnx_model import OnnxModel

Writer = Callable[[OnnxModel, GraphNode, NetworkGraph], None]


def write_nodes(model: OnnxModel, graph: NetworkGraph) -> None:
    """Append all operations of a graph, and the constants that they read."""
    for node in graph.nodes:
        _WRITERS[node.kind](model, node, graph)
    used = {name for node in model.nodes for name in node.input}
    for name, value in graph.constants.items():
        if name in used:
            model.constant(value, name)


def _simple(
    model: OnnxModel, node: GraphNode, graph: NetworkGraph, operator: str
) -> None:
    model.add(operator, node.inputs, node.output)


def _window(node: GraphNode) -> dict[str, Any]:
    """Return the attributes of a convolution or pooling window."""
    attrs, names = node.attrs, {"stride": "strides", "dilation": "dilations"}
    window = {names[key]: attrs[key] for key in names if key in attrs}
    if "kernel" in attrs:
        window["kernel_shape"] = attrs["kernel"]
    low, high = zip(*attrs["padding"], strict=True)
    return {**window, "pads": [*low, *high]}


def _conv(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    window = {**_window(node), "group": node.attrs["groups"]}
    window["kernel_shape"] = list(graph.shape(node.inputs[1])[2:])
    if node.kind == "conv":
        model.add("Conv", node.inputs, node.output, **window)
    else:
        window["output_padding"] = node.attrs["output_padding"]
        model.add("ConvTranspose", node.inputs, node.output, **window)


def _linear(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    weight = graph.constants[node.inputs[1]]
    if len(graph.shape(node.inputs[0])) == 2:
        model.add("Gemm", node.inputs, node.output, transB=1)
        return
    transposed = model.constant(np.ascontiguousarray(weight.T), f"{node.output}/weight")
    has_bias = len(node.inputs) > 2
    product = f"{node.output}/product" if has_bias else node.output
    model.add("MatMul", [node.inputs[0], transposed], product)
    if has_bias:
        model.add("Add", [product, node.inputs[2]], node.output)


def _batch_norm(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    eps = node.attrs["eps"]
    model.add("BatchNormalization", node.inputs, node.output, epsilon=eps)


def _layer_norm(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    count, inputs = node.attrs["count"], list(node.inputs)
    if len(inputs) == 1:
        ones = np.ones(graph.shape(inputs[0])[-count:], np.float32)
        inputs.append(model.constant(ones, f"{node.output}/weight"))
    attrs = {"axis": -count, "epsilon": node.attrs["eps"]}
    model.add("LayerNormalization", inputs, node.output, **attrs)


def _group_norm(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    """Normalize groups of channels as instances, then scale each channel."""
    x, weight, bias = node.inputs
    shape, groups = graph.shape(x), node.attrs["groups"]
    ones = model.constant(np.ones(groups, np.float32), f"{node.output}/ones")
    zeros = model.constant(np.zeros(groups, np.float32), f"{node.output}/zeros")
    grouped = model.reshape(x, [BATCH, groups, -1], f"{node.output}/groups", first=0)
    normalized = f"{node.output}/normalized"
    inputs = [grouped, ones, zeros]
    eps = node.attrs["eps"]
    model.add("InstanceNormalization", inputs, normalized, epsilon=eps)
    back = model.reshape(normalized, list(shape), f"{node.output}/channels")
    tail = [1] * (len(shape) - 2)
    names = []
    for name in (weight, bias):
        value = graph.constants[name].reshape(-1, *tail)
        names.append(model.constant(value, f"{node.output}/{name}"))
    model.add("Mul", [back, names[0]], f"{node.output}/scaled")
    model.add("Add", [f"{node.output}/scaled", names[1]], node.output)


def _prelu(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    slope = graph.constants[node.inputs[1]]
    rank = len(graph.shape(node.inputs[0]))
    if slope.size > 1:
        slope = slope.reshape(-1, *[1] * (rank - 2))
    name = model.constant(slope, f"{node.output}/slope")
    model.add("PRelu", [node.inputs[0], name], node.output)


def _lrn(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    attrs = node.attrs
    size = attrs["size"]  # ONNX divides alpha by the size
    model.add(
        "LRN",
        node.inputs,
        node.output,
        size=size,
        alpha=float(attrs["alpha"] * size),
        beta=float(attrs["beta"]),
        bias=float(attrs["k"]),
    )


def _product(
    model: OnnxModel, node: GraphNode, graph: NetworkGraph, operator: str
) -> None:
    """Append x · operator(x)."""
    model.add(operator, node.inputs, f"{node.output}/factor")
    model.add("Mul", [node.inputs[0], f"{node.output}/factor"], node.output)


def _hard_sigmoid(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    model.add("HardSigmoid", node.inputs, node.output, alpha=1 / 6, beta=0.5)


def _gelu(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    """Append GELU (Hendrycks and Gimpel 2016): x·Φ(x), or its approximation by tanh."""
    x, out = node.inputs[0], node.output
    if node.attrs["approximate"] == "tanh":
        cube = model.binary("Mul", model.binary("Mul", x, x, f"{out}/2"), x, f"{out}/3")
        inner = model.binary("Mul", cube, 0.044715, f"{out}/4")
        inner = model.binary("Add", x, inner, f"{out}/5")
        inner = model.binary("Mul", inner, 0.7978845608028654, f"{out}/6")
        model.add("Tanh", [inner], f"{out}/7")
    else:
        inner = model.binary("Mul", x, 0.7071067811865476, f"{out}/6")
        model.add("Erf", [inner], f"{out}/7")
    gate = model.binary("Add", f"{out}/7", 1.0, f"{out}/8")
    product = model.binary("Mul", x, gate, f"{out}/9")
    model.binary("Mul", product, 0.5, out)


def _clamp(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    names = [node.inputs[0]]
    for key in ("low", "high"):
        bound = node.attrs[key]
        array = np.array(0 if bound is None else bound, np.float32)
        names.append("" if bound is None else model.constant(array))
    model.add("Clip", names if names[2] else names[:2], node.output)


def _attributes(**names: str) -> Callable[[GraphNode], dict[str, Any]]:
    return lambda node: {new: node.attrs[old] for new, old in names.items()}


def _with_attributes(
    model: OnnxModel,
    node: GraphNode,
    graph: NetworkGraph,
    operator: str,
    attributes: Callable[[GraphNode], dict[str, Any]],
) -> None:
    model.add(operator, node.inputs, node.output, **attributes(node))


def _pow(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    model.binary("Pow", node.inputs[0], node.attrs["exponent"], node.output)


def _max_pool(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    window, x = _window(node), node.inputs[0]
    size = _size_with_ceil(node, graph)
    window["ceil_mode"] = int(size is not None)
    model.add("MaxPool", [x], node.output, **window)


def _size_with_ceil(node: GraphNode, graph: NetworkGraph) -> list[int] | None:
    """Return the output size if it is rounded up, else None."""
    if not node.attrs["ceil"]:
        return None
    return list(graph.shape(node.output)[2:])


def _avg_pool(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    window = _window(node)
    window["ceil_mode"] = int(node.attrs["ceil"])
    window["count_include_pad"] = int(node.attrs["count_padding"])
    model.add("AveragePool", node.inputs, node.output, **window)


def _reduce(
    model: OnnxModel, node: GraphNode, graph: NetworkGraph, operator: str
) -> None:
    dims, keep = node.attrs["dims"], int(node.attrs["keepdim"])
    if (
        operator == "ReduceMean"
        and dims == [2, 3]
        and len(graph.shape(node.inputs[0])) == 4
    ):
        pooled = node.output if keep else f"{node.output}/pooled"
        model.add("GlobalAveragePool", node.inputs, pooled)
        if not keep:
            model.reshape(pooled, list(graph.shape(node.output)), node.output)
        return
    axes = model.constant(np.array(dims, np.int64))
    model.add(operator, [node.inputs[0], axes], node.output, keepdims=keep)


def _concat(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    model.add("Concat", node.inputs, node.output, axis=node.attrs["dim"])


def _reshape(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    model.reshape(node.inputs[0], list(node.attrs["shape"]), node.output)


def _expand(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    shape: list[int] = list(node.attrs["shape"])
    given = graph.shape(node.inputs[0])
    for dim, length in enumerate(reversed(given), start=1):
        if length == BATCH:
            shape[-dim] = 1  # of two sizes ONNX takes the larger one
    if BATCH not in shape:
        size = model.constant(np.array(shape, np.int64))
    else:
        model.add("Shape", [graph.input], f"{node.output}/batch", start=0, end=1)
        position = shape.index(BATCH)
        rows = (shape[:position], shape[position + 1 :])
        parts = [model.constant(np.array(row, np.int64)) for row in rows if len(row)]
        parts.insert(int(position > 0), f"{node.output}/batch")
        size = f"{node.output}/shape"
        model.add("Concat", parts, size, axis=0)
    model.add("Expand", [node.inputs[0], size], node.output)


def _slice(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    keys = ("start", "end", "dim", "step")
    arrays = [np.array([node.attrs[key]], np.int64) for key in keys]
    model.add("Slice", [node.inputs[0], *map(model.constant, arrays)], node.output)


def _flip(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    dims = node.attrs["dims"]
    last = np.iinfo(np.int64).min
    rows = [-1] * len(dims), [last] * len(dims), dims, [-1] * len(dims)
    arrays = [model.constant(np.array(row, np.int64)) for row in rows]
    model.add("Slice", [node.inputs[0], *arrays], node.output)


def _pad(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    low, high = zip(*node.attrs["padding"], strict=True)
    amounts = model.constant(np.array([*low, *high], np.int64))
    inputs, mode = [node.inputs[0], amounts], node.attrs["mode"]
    if mode == "constant":
        inputs.append(model.constant(np.array(node.attrs["value"], np.float32)))
    model.add("Pad", inputs, node.output, mode=mode)


def _resize(model: OnnxModel, node: GraphNode, graph: NetworkGraph) -> None:
    mode = {"nearest": "nearest", "bilinear": "linear", "bicubic": "cubic"}
    attrs: dict[str, Any] = {"mode": mode[node.attrs["mode"]]}
    if node.attrs["mode"] == "nearest":
        attrs |= {"coordinate_transformation_mode": "asymmetric"}
        attrs |= {"nearest_mode": "floor"}
    elif node.attrs["align_corners"]:
        attrs["coordinate_transformation_mode"] = "align_corners"
    else:
        attrs["coordinate_transformation_mode"] = "half_pixel"
    if mode[node.attrs["mode"]] == "cubic":
        attrs["cubic_coeff_a"] = -0.75
    sizes, new_sizes = graph.shape(node.inputs[0])[2:], node.attrs["size"]
    ratios = [new / old for old, new in zip(sizes, new_sizes, strict=True)]
    scales = model.constant(np.array([1.0, 1.0, *ratios], np.float32))
    model.add("Resize", [node.inputs[0], "", scales], node.output, **attrs)


_SIMPLE = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hardswish": "HardSwish",
    "mish": "Mish",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "neg": "Neg",
    "erf": "Erf",
    "reciprocal": "Reciprocal",
    "softplus": "Softplus",
    "sin": "Sin",
    "cos": "Cos",
    "selu": "Selu",
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "matmul": "MatMul",
}
_WITH_ATTRIBUTES = {
    "leaky_relu": ("LeakyRelu", _attributes(alpha="slope")),
    "elu": ("Elu", _attributes(alpha="alpha")),
    "softmax": ("Softmax", _attributes(axis="dim")),
    "log_softmax": ("LogSoftmax", _attributes(axis="dim")),
    "permute": ("Transpose", _attributes(perm="dims")),
}
_WRITERS: dict[str, Writer] = {
    **{kind: partial(_simple, operator=name) for kind, name in _SIMPLE.items()},
    **{
        kind: partial(_with_attributes, operator=name, attributes=attributes)
        for kind, (name, attributes) in _WITH_ATTRIBUTES.items()
    },
    "conv": _conv,
    "conv_transpose": _conv,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": _prelu,
    "lrn": _lrn,
    "silu": partial(_product, operator="Sigmoid"),
    "hardsigmoid": _hard_sigmoid,
    "gelu": _gelu,
    "clamp": _clamp,
    "pow": _pow,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": partial(_reduce, operator="ReduceMean"),
    "sum": partial(_reduce, operator="ReduceSum"),
    "max": partial(_reduce, operator="ReduceMax"),
    "concat": _concat,
    "reshape": _reshape,
    "expand": _expand,
    "slice": _slice,
    "flip": _flip,
    "pad": _pad,
    "resize": _resize,
}
