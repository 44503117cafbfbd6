"""Calls of the kernels for layers with weights, pooling and normalization."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from striate.exporters.c_source.c_fuse import FusedNode
from striate.exporters.c_source.c_program import CArray, CProgram, braced, memory_order
from striate.exporters.c_source.c_text import c_float
from striate.exporters.c_source.pack_weights import (
    pack_bias,
    pack_blocks,
    pack_depthwise,
)
from striate.exporters.fold import batch_norm_affine
from striate.exporters.graph import GraphNode, NetworkGraph

# Up to this many channels the pixels below a row of the kernel are one longer pixel.
_FEW_CHANNELS = 7


def write_conv(program: CProgram, fused: FusedNode, graph: NetworkGraph) -> None:
    """Append a convolution with what is fused into its store."""
    node = fused.node
    weight = graph.constants[node.inputs[1]]
    if weight.ndim != 4:
        raise program.error(f"convolution over {weight.ndim - 2} dimensions")
    x, groups = program.image(node.inputs[0]), node.attrs["groups"]
    shape = graph.shape(node.output)
    y = program.new((1, *shape[1:]))
    window = _Window(node, list(weight.shape[2:]))
    outputs, depth = weight.shape[0] // groups, weight.shape[1]
    if groups > 1 and outputs == depth == 1:
        packed = pack_depthwise(weight)
        kernel = "depthwise"
    else:
        packed = pack_blocks(weight, groups)
        kernel = "conv"
        narrow = groups == 1 and window.dilation[1] == 1 and window.kernel[1] > 1
        if narrow and depth <= _FEW_CHANNELS:
            x, depth = _joined_columns(program, x, window)
    program.zeros = max(program.zeros, depth * groups)
    program.taps = max(program.taps, math.prod(window.kernel))
    out = _output(program, fused, graph, y, weight.shape[0])
    text = (
        f"{x.address}, {program.weights(packed)}, {out}, {x.shape[2]}, {x.shape[3]}, "
        f"{_pixel(x)}, {shape[2]}, {shape[3]}, {window}, {depth}, {outputs}, {groups}"
    )
    program.step(kernel, f"{kernel}(&(struct conv){{{text}}}, table);")
    program.values[fused.output] = y


class _Window:
    """Window of a convolution; its text is the initializer of the C fields."""

    def __init__(self, node: GraphNode, kernel: list[int]) -> None:
        self.kernel = kernel
        self.stride = list(node.attrs["stride"])
        self.padding = [list(pair) for pair in node.attrs["padding"]]
        self.dilation = list(node.attrs["dilation"])

    def __str__(self) -> str:
        before = [pair[0] for pair in self.padding]
        fields = self.kernel, self.stride, before, self.dilation
        return ", ".join(map(braced, fields))


def _joined_columns(
    program: CProgram, x: CArray, window: _Window
) -> tuple[CArray, int]:
    """Pad the columns, and let one row of the kernel be one long pixel."""
    x = program.ordered(x, memory_order(4))
    channels = x.shape[1]
    before, after = window.padding[1]
    if before or after:
        x = write_pad(program, x, [[0, 0], [0, 0], [0, 0], [before, after]])
    depth = channels * window.kernel[1]
    window.kernel[1], window.padding[1] = 1, [0, 0]
    return x, depth


def write_pad(
    program: CProgram,
    x: CArray,
    padding: list[list[int]],
    mode: str = "constant",
    value: float = 0.0,
) -> CArray:
    """Append the padding of an image in the order H, W, C."""
    dims = (2, 3, 1)
    shape = [size + sum(pair) for size, pair in zip(x.shape, padding, strict=True)]
    y = program.new(shape)
    sizes = braced([x.shape[d] for d in dims])
    before, after = (braced([padding[d][side] for d in dims]) for side in (0, 1))
    program.step(
        "pad",
        f"pad({x.address}, {y.address}, INTS{sizes}, INTS{before}, INTS{after}, "
        f"'{mode[0]}', {c_float(value)});",
    )
    return y


def _pixel(x: CArray) -> int:
    """Return the number of floats from pixel to pixel."""
    _, channels, height, width = x.shape
    if width > 1:
        return x.strides[3]
    return x.strides[2] if height > 1 else channels


def _output(
    program: CProgram, fused: FusedNode, graph: NetworkGraph, y: CArray, count: int
) -> str:
    """Return the initializer of `struct output`."""
    node, residual, step = fused.node, "NULL", 0
    bias = np.zeros(count, np.float32)
    if len(node.inputs) > 2:
        bias = graph.constants[node.inputs[2]]
    if fused.residual is not None:
        if len(y.shape) == 4:
            other = program.image(fused.residual)
            step = _pixel(other)
        else:
            order = range(len(y.shape))
            other = program.ordered(program.values[fused.residual], list(order))
            step = count
        residual = other.address
    limits = f"{c_float(fused.low)}, {c_float(fused.high)}"
    packed = program.weights(pack_bias(bias))
    return f"{{{y.address}, {packed}, {residual}, {count}, {step}, {count}, {limits}}}"


def write_linear(program: CProgram, fused: FusedNode, graph: NetworkGraph) -> None:
    """Append a linear layer: a convolution with one tap."""
    node = fused.node
    weight = graph.constants[node.inputs[1]]
    given = program.values[node.inputs[0]]
    x = program.ordered(given, list(range(len(given.shape))))
    outputs, depth = weight.shape
    shape = (*x.shape[:-1], outputs)
    y = program.new(shape, list(range(len(shape))))
    positions = math.prod(shape[:-1])
    packed = pack_blocks(weight.reshape(outputs, depth, 1, 1), 1)
    out = _output(program, fused, graph, y, outputs)
    program.zeros = max(program.zeros, depth)
    text = (
        f"{x.address}, {program.weights(packed)}, {out}, 1, {positions}, {depth}, "
        f"1, {positions}, {{1, 1}}, {{1, 1}}, {{0, 0}}, {{1, 1}}, {depth}, {outputs}, 1"
    )
    program.step("conv", f"conv(&(struct conv){{{text}}}, table);")
    program.values[fused.output] = y


def write_batch_norm(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a batch normalization as a scale and a shift of each channel."""
    given = program.values[node.inputs[0]]
    rank = len(given.shape)
    order = [0, *range(2, rank), 1]
    x = program.ordered(given, order)
    y = program.new(x.shape, order)
    pair = batch_norm_affine(node, dict(graph.constants))
    scale, shift = (program.weights(value.astype(np.float32)) for value in pair)
    channels = x.shape[1]
    pixels = x.size // channels
    places = f"{x.address}, {y.address}, {pixels}, {channels}, {scale}, {shift}"
    program.step("scale", f"scale({places});")
    program.values[node.output] = y


def write_lrn(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a local response normalization."""
    x = program.ordered(program.values[node.inputs[0]], memory_order(4))
    y = program.new(x.shape)
    channels = x.shape[1]
    a = node.attrs
    numbers = ", ".join(c_float(a[key]) for key in ("alpha", "beta", "k"))
    places = f"{x.address}, {y.address}, {x.size // channels}, {channels}"
    program.step("lrn", f"lrn({places}, {a['size']}, {numbers});")
    program.values[node.output] = y


def write_pool(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a maximum or average pooling."""
    a = node.attrs
    if len(a["kernel"]) != 2:
        raise program.error(f"pooling over {len(a['kernel'])} dimensions")
    x = program.image(node.inputs[0])
    if node.kind == "avg_pool" and list(a["kernel"]) == list(a["stride"]) == [1, 1]:
        program.values[node.output] = x
        return
    shape = graph.shape(node.output)
    y = program.new((1, *shape[1:]))
    before, after = zip(*a["padding"], strict=True)
    dilation = a.get("dilation", [1, 1])
    fields = (a["kernel"], a["stride"], before, dilation)
    count_padding = int(a.get("count_padding", False))
    text = (
        f"{x.address}, {y.address}, {x.shape[2]}, {x.shape[3]}, {x.shape[1]}, "
        f"{_pixel(x)}, {shape[2]}, {shape[3]}, {', '.join(map(braced, fields))}, "
        f"{after[0]}, {after[1]}, {count_padding}"
    )
    program.step(node.kind, f"{node.kind}(&(struct pool){{{text}}});")
    program.values[node.output] = y


FUSED_WRITERS: Mapping[str, Callable[[CProgram, FusedNode, NetworkGraph], None]] = {
    "conv": write_conv,
    "linear": write_linear,
}
LAYER_WRITERS: Mapping[str, Callable[[CProgram, GraphNode, NetworkGraph], None]] = {
    "batch_norm": write_batch_norm,
    "lrn": write_lrn,
    "max_pool": write_pool,
    "avg_pool": write_pool,
}
