"""Calls of the kernels for single values: activations, arithmetic, reductions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from striate.exporters.c_source.c_program import (
    CArray,
    CProgram,
    braced,
    dense_strides,
    memory_order,
)
from striate.exporters.c_source.c_text import c_float
from striate.exporters.graph import GraphNode, NetworkGraph

# Functions of one value v.
_EXPRESSIONS: Mapping[str, str] = {
    "relu": "v > 0 ? v : 0",
    "sigmoid": "1 / (1 + expf(-v))",
    "tanh": "tanhf(v)",
    "silu": "v / (1 + expf(-v))",
    "hardswish": "v * fminf(fmaxf(v + 3, 0), 6) / 6",
    "hardsigmoid": "fminf(fmaxf(v + 3, 0), 6) / 6",
    "softplus": "v > 20 ? v : log1pf(expf(v))",
    "mish": "v * tanhf(v > 20 ? v : log1pf(expf(v)))",
    "exp": "expf(v)",
    "log": "logf(v)",
    "sqrt": "sqrtf(v)",
    "abs": "fabsf(v)",
    "neg": "-v",
    "erf": "erff(v)",
    "reciprocal": "1 / v",
    "sin": "sinf(v)",
    "cos": "cosf(v)",
    "gelu": "v * 0.5f * (1 + erff(v * 0.70710678f))",
    "gelu_tanh": "v * 0.5f * (1 + tanhf(0.79788456f * (v + 0.044715f * v * v * v)))",
}
_OPERATORS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "maximum": ">",
    "minimum": "<",
}
_REDUCTIONS = {"mean": "m", "sum": "s", "max": ">"}


def _expression(node: GraphNode) -> str:
    """Return the C expression of v; its numbers are part of the text."""
    a = node.attrs
    if node.kind == "clamp":
        low, high = (
            c_float(limit if a[key] is None else a[key])
            for key, limit in (("low", -math.inf), ("high", math.inf))
        )
        return f"fminf(fmaxf(v, {low}), {high})"
    if node.kind == "leaky_relu":
        return f"v > 0 ? v : v * {c_float(a['slope'])}"
    if node.kind == "elu":
        return f"v > 0 ? v : {c_float(a['alpha'])} * expm1f(v)"
    if node.kind == "pow":
        return f"powf(v, {c_float(a['exponent'])})"
    if node.kind == "gelu" and a["approximate"] == "tanh":
        return _EXPRESSIONS["gelu_tanh"]
    return _EXPRESSIONS[node.kind]


def write_unary(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a function of single values, in the order of memory."""
    x = program.values[node.inputs[0]]
    if not x.is_dense:
        x = program.ordered(x, memory_order(len(x.shape)))
    y = program.like(x.shape, x.strides, x.size)
    expression = _expression(node)
    same = [e for e in program.functions if e.startswith(f"{node.kind}:")]
    key = f"{node.kind}:{expression}"
    if key not in program.functions:
        name = f"apply_{node.kind}{len(same) + 1 if same else ''}"
        program.functions[key] = name
    name = program.functions[key]
    program.step("", f"{name}({x.address}, {y.address}, {x.size});")
    program.values[node.output] = y


def function_text(key: str, name: str) -> str:
    """Return the C function of an elementwise operation.

    Example:
        >>> print(function_text("neg:-v", "apply_neg"))
        static void apply_neg(const float *x, float *y, int count) {
            for (int i = 0; i < count; i++) {
                float v = x[i];
                y[i] = -v;
            }
        }
    """
    expression = key.partition(":")[2]
    return (
        f"static void {name}(const float *x, float *y, int count) {{\n"
        "    for (int i = 0; i < count; i++) {\n"
        "        float v = x[i];\n"
        f"        y[i] = {expression};\n"
        "    }\n"
        "}"
    )


def write_binary(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append arithmetic of two arrays with broadcasting."""
    operands = [_operand(program, name, graph) for name in node.inputs]
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    full = [x for x in operands if x.shape == shape and x.is_dense]
    if full and full[0].buffer is not None:
        y = program.like(shape, full[0].strides, math.prod(shape))
    else:
        y = program.new(shape)
    strides = [_broadcast(x, shape) for x in operands]
    sizes, (a_steps, b_steps, _) = program.loops(shape, (*strides, y.strides))
    a, b = operands
    numbers = ", ".join(f"INTS{braced(v)}" for v in (sizes, a_steps, b_steps))
    operator = _OPERATORS[node.kind]
    places = f"{a.address}, {b.address}, {y.address}"
    program.step("binary", f"binary('{operator}', {places}, {numbers});")
    program.values[node.output] = y


def _operand(program: CProgram, name: str, graph: NetworkGraph) -> CArray:
    if name in graph.constants:
        return program.constant(graph.constants[name])
    return program.values[name]


def _broadcast(x: CArray, shape: tuple[int, ...]) -> list[int]:
    """Return the strides of an array in a larger shape; 0 repeats a value."""
    missing = len(shape) - len(x.shape)
    strides = [0] * missing + list(x.strides)
    sizes = [1] * missing + list(x.shape)
    return [0 if size == 1 else step for size, step in zip(sizes, strides, strict=True)]


def write_reduction(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a mean, sum or maximum over dimensions."""
    x, dims = program.values[node.inputs[0]], list(node.attrs["dims"])
    remaining = [d for d in x.order if d not in dims and x.shape[d] > 1]
    reduced = [d for d in x.order if d in dims and x.shape[d] > 1]
    if len(remaining) > 4 or len(reduced) > 4:
        raise program.error("values with too many dimensions")
    # The results lie side by side in the order of the input.
    shape = tuple(1 if d in dims else size for d, size in enumerate(x.shape))
    y = program.new(
        shape, [*(d for d in range(len(shape)) if d not in remaining), *remaining]
    )
    rows = []
    for group in (remaining, reduced):
        sizes = [x.shape[d] for d in group]
        steps = [x.strides[d] for d in group]
        missing = 4 - len(group)
        rows += [[1] * missing + sizes, [0] * missing + steps]
    numbers = ", ".join(f"INTS{braced(row)}" for row in rows)
    operator = _REDUCTIONS[node.kind]
    program.step(
        "reduce", f"reduce('{operator}', {x.address}, {y.address}, {numbers});"
    )
    if not node.attrs["keepdim"]:
        left = [d for d in range(len(shape)) if d not in dims]
        y = CArray(
            buffer=y.buffer,
            shape=tuple(shape[d] for d in left),
            strides=tuple(y.strides[d] for d in left),
        )
    program.values[node.output] = y


def write_softmax(program: CProgram, node: GraphNode, graph: NetworkGraph) -> None:
    """Append a softmax over one dimension."""
    given, dim = program.values[node.inputs[0]], node.attrs["dim"]
    order = [*(d for d in given.order if d != dim), dim]
    x = program.ordered(given, order)
    y = program.like(x.shape, dense_strides(x.shape, order), x.size)
    count = x.shape[dim]
    places = f"{x.address}, {y.address}, {x.size // count}, {count}"
    program.step("softmax", f"softmax({places});")
    program.values[node.output] = y


Writer = Callable[[CProgram, GraphNode, NetworkGraph], None]
ELEMENTWISE_WRITERS: Mapping[str, Writer] = {
    **dict.fromkeys(
        (*_EXPRESSIONS, "clamp", "leaky_relu", "elu", "pow"),
        write_unary,
    ),
    **dict.fromkeys(_OPERATORS, write_binary),
    **dict.fromkeys(_REDUCTIONS, write_reduction),
    "softmax": write_softmax,
}
