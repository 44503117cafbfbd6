"""Graph of a network in evaluation mode: a closed list of operations and constants.

All exporters start from this graph. It contains no Python code: a file with a graph
cannot execute anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from striate.core.errors import GeometryError
from striate.core.registry import unknown_name_error

# Size of the batch dimension in `shapes`, and in the attributes `shape`.
BATCH = -1

# Operations: what they compute, with their attributes. Padding is a pair of integers
# (before, after) for each spatial dimension. Dimensions count from 0, never backwards.
OPERATIONS: Mapping[str, str] = {
    # layers with weights
    "conv": "x, weight[, bias]; stride, padding, dilation: per dimension; groups",
    "conv_transpose": "as conv, with output_padding",
    "linear": "x, weight (outputs, inputs)[, bias] over the last dimension",
    "batch_norm": "x, weight, bias, mean, var; eps",
    "layer_norm": "x[, weight[, bias]] over the last `count` dimensions; eps",
    "group_norm": "x, weight, bias; groups; eps",
    "prelu": "x, weight",
    "lrn": "x; size, alpha, beta, k, as in striate.layers.lrn.LRN",
    # elementwise, one input
    **dict.fromkeys(
        ("relu", "sigmoid", "tanh", "silu", "hardswish", "hardsigmoid", "mish", "exp",
         "log", "sqrt", "abs", "neg", "erf", "reciprocal", "softplus", "sin", "cos"),
        "x",
    ),
    "gelu": "x; approximate: none or tanh",
    "clamp": "x; low and high: a number or None",
    "leaky_relu": "x; slope",
    "elu": "x; alpha",
    "selu": "x",
    "pow": "x; exponent: a number",
    # elementwise, two inputs with broadcasting
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum"), "a, b"),
    "matmul": "a, b",
    # reductions and pooling
    "max_pool": "x; kernel, stride, padding, dilation: per dimension; ceil",
    "avg_pool": "x; kernel, stride, padding; ceil; count_padding",
    "mean": "x; dims; keepdim",
    "sum": "x; dims; keepdim",
    "max": "x; dims; keepdim",
    "softmax": "x; dim",
    "log_softmax": "x; dim",
    # shapes
    "concat": "any number of inputs; dim",
    "reshape": "x; shape: at most one BATCH",
    "permute": "x; dims",
    "expand": "x; shape",
    "slice": "x; dim, start, end, step",
    "flip": "x; dims",
    "pad": "x; padding: per dimension, all dimensions; mode: constant, reflect, edge",
    "resize": "x; size: per spatial dimension; mode: nearest, bilinear, bicubic; "
    "align_corners",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GraphNode:
    """One operation: its inputs and its output by name, and its attributes."""

    kind: str  # key of OPERATIONS
    inputs: tuple[str, ...]  # names of values or constants
    output: str
    attrs: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    layer: str = ""  # dotted name of the module call that ran the operation

    def __post_init__(self) -> None:
        if self.kind not in OPERATIONS:
            raise unknown_name_error("operation", self.kind, OPERATIONS)

    @property
    def where(self) -> str:
        """Return the layer and the operation, for messages."""
        return f"{self.layer or 'forward()'} ({self.kind})"


@dataclass(frozen=True, kw_only=True)
class NetworkGraph:
    """Operations in execution order; each name is assigned once.

    Shapes:
        (batch, channels, height, width) float32 → (batch, classes) float32
    """

    nodes: tuple[GraphNode, ...]
    constants: Mapping[str, np.ndarray]  # weights and other constants, float32 or int64
    shapes: Mapping[str, tuple[int, ...]]  # of all values; BATCH for the batch size
    input: str = "input"
    output: str = "logits"

    def __post_init__(self) -> None:
        known = {self.input, *self.constants}
        for node in self.nodes:
            missing = [name for name in node.inputs if name not in known]
            if missing or node.output in known or node.output not in self.shapes:
                what = f"damaged graph: value {[*missing, node.output][0]!r}"
                raise GeometryError(what, where=node.where)
            known.add(node.output)
        if self.output not in known:
            raise GeometryError(f"damaged graph: no value {self.output!r}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an input image."""
        _, channels, height, width = self.shapes[self.input]
        return channels, height, width

    @property
    def num_classes(self) -> int:
        """Return the number of outputs per image."""
        return self.shapes[self.output][-1]

    @property
    def num_weights(self) -> int:
        """Return the number of values in all constants."""
        return sum(value.size for value in self.constants.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a value or of a constant."""
        if name in self.constants:
            return tuple(self.constants[name].shape)
        return self.shapes[name]

    def uses(self) -> dict[str, list[GraphNode]]:
        """Return the nodes that read each value or constant."""
        uses: dict[str, list[GraphNode]] = {}
        for node in self.nodes:
            for name in node.inputs:
                uses.setdefault(name, []).append(node)
        return uses

    def with_nodes(
        self,
        nodes: Sequence[GraphNode],
        constants: Mapping[str, np.ndarray] | None = None,
    ) -> NetworkGraph:
        """Return a graph with other nodes; without constants that no node reads."""
        constants = self.constants if constants is None else constants
        read = {name for node in nodes for name in node.inputs} | {self.output}
        values = {self.input, *(node.output for node in nodes)}
        return replace(
            self,
            nodes=tuple(nodes),
            constants={k: v for k, v in constants.items() if k in read},
            shapes={k: v for k, v in self.shapes.items() if k in values},
        )

    def renamed_input(self, name: str) -> NetworkGraph:
        """Return a graph that reads its input under another name."""

        def renamed(value: str) -> str:
            return name if value == self.input else value

        nodes = [
            replace(node, inputs=tuple(map(renamed, node.inputs)))
            for node in self.nodes
        ]
        shapes = {renamed(value): shape for value, shape in self.shapes.items()}
        return replace(self, nodes=tuple(nodes), shapes=shapes, input=name)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the constants as JSON values (`network.json`)."""
        nodes = [
            {
                "kind": node.kind,
                "inputs": list(node.inputs),
                "output": node.output,
                "attrs": dict(node.attrs),
                "layer": node.layer,
            }
            for node in self.nodes
        ]
        shapes = {name: list(shape) for name, shape in self.shapes.items()}
        ends = {"input": self.input, "output": self.output}
        return {**ends, "nodes": nodes, "shapes": shapes}

    @classmethod
    def from_dict(
        cls, fields: Mapping[str, Any], constants: Mapping[str, np.ndarray]
    ) -> NetworkGraph:
        """Create a graph from the result of `as_dict` and its constants."""
        nodes = tuple(
            GraphNode(**{**node, "inputs": tuple(node["inputs"])})
            for node in fields["nodes"]
        )
        return cls(
            nodes=nodes,
            constants=constants,
            shapes={name: tuple(shape) for name, shape in fields["shapes"].items()},
            input=fields["input"],
            output=fields["output"],
        )


def per_image(shape: Sequence[int]) -> int:
    """Return the number of values of one image in a shape that starts with BATCH.

    Example:
        >>> per_image((BATCH, 3, 4))
        12
    """
    return math.prod(shape[1:])


def last_values(graph: NetworkGraph) -> Iterator[tuple[str, str]]:
    """Yield (layer, name of its last value) in execution order."""
    last = {node.layer: node.output for node in graph.nodes if node.layer}
    yield from last.items()
