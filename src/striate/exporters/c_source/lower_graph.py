"""From a `NetworkGraph` to calls of C kernels."""

from __future__ import annotations

from striate.exporters.c_source.c_elementwise import ELEMENTWISE_WRITERS
from striate.exporters.c_source.c_fuse import FusedNode, fuse_nodes
from striate.exporters.c_source.c_layers import FUSED_WRITERS, LAYER_WRITERS
from striate.exporters.c_source.c_program import CProgram, memory_order
from striate.exporters.c_source.c_shapes import SHAPE_WRITERS
from striate.exporters.graph import NetworkGraph

_WRITERS = {**ELEMENTWISE_WRITERS, **LAYER_WRITERS, **SHAPE_WRITERS}
C_OPERATIONS = frozenset({*_WRITERS, *FUSED_WRITERS})


def lower_graph(graph: NetworkGraph) -> CProgram:
    """Return the C program of a network for one image.

    Raises:
        UnsupportedOperationError: An operation is not available in C; the message
            names it and its layer.
    """
    program = CProgram()
    for node in graph.nodes:  # all of them, before any work
        if node.kind not in C_OPERATIONS:
            program.node = node
            raise program.error("not available in C")
    program.values[graph.input] = program.new((1, *graph.input_shape))
    for fused in fuse_nodes(graph):
        _write(program, fused, graph)
    program.node = None
    logits = program.values[graph.output]
    program.values[graph.output] = program.ordered(logits, memory_order(2))
    return program


def _write(program: CProgram, fused: FusedNode, graph: NetworkGraph) -> None:
    node = program.node = fused.node
    for name in node.inputs[:1]:
        if name in graph.constants and name not in program.values:
            program.values[name] = program.constant(graph.constants[name])
    if node.kind in FUSED_WRITERS:
        FUSED_WRITERS[node.kind](program, fused, graph)
    else:
        _WRITERS[node.kind](program, node, graph)
