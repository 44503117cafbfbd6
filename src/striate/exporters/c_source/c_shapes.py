"""Operations that only move values: views where possible, copies elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from striate.exporters.c_source.c_layers import write_pad
from striate.exporters.c_source.c_program import CProgram, dense_strides, memory_order
from striate.exporters.graph import BATCH, GraphNode, NetworkGraph


def _reshape(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    x = program.values[node.inputs[0]]
    known = graph.shape(node.output)
    rest = x.size // math.prod(size for size in known if size != BATCH)
    shape = tuple(rest if size == BATCH else size for size in known)
    x = program.ordered(x, list(range(len(x.shape))))
    strides = dense_strides(shape, range(len(shape)))
    program.values[node.output] = replace(x, shape=shape, strides=strides)


def _permute(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    x, dims = program.values[node.inputs[0]], node.attrs["dims"]
    shape = tuple(x.shape[d] for d in dims)
    strides = tuple(x.strides[d] for d in dims)
    program.values[node.output] = replace(x, shape=shape, strides=strides)


def _slice(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    x, a = program.values[node.inputs[0]], node.attrs
    dim = a["dim"]
    shape, strides = list(x.shape), list(x.strides)
    shape[dim] = graph.shape(node.output)[dim]
    strides[dim] *= a["step"]
    offset = x.offset + a["start"] * x.strides[dim]
    program.values[node.output] = replace(
        x, shape=tuple(shape), strides=tuple(strides), offset=offset
    )


def _concat(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    dim = node.attrs["dim"]
    parts = [
        program.constant(graph.constants[name])
        if name in graph.constants
        else program.values[name]
        for name in node.inputs
    ]
    shape = list(parts[0].shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    y = program.new(shape)
    start = 0
    for x in parts:
        part = replace(y, shape=x.shape, offset=y.offset + start * y.strides[dim])
        program.copy(x, part)
        start += x.shape[dim]
    program.values[node.output] = y


def _pad(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    x, a = program.values[node.inputs[0]], node.attrs
    if len(x.shape) != 4 or any(a["padding"][0]):
        raise program.error(f"padding of {len(x.shape)} dimensions")
    x = program.ordered(x, memory_order(4))
    padding = [list(pair) for pair in a["padding"]]
    program.values[node.output] = write_pad(program, x, padding, a["mode"], a["value"])


Writer = Callable[[CProgram, GraphNode, NetworkGraph], None]
SHAPE_WRITERS: Mapping[str, Writer] = {
    "reshape": _reshape,
    "permute": _permute,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
}
