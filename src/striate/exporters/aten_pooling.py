"""Rules of pooling, means, sums and softmax."""

from __future__ import annotations

from functools import partial

import numpy as np

from striate.exporters.aten_registry import (
    RULES,
    StepArguments,
    aten_rule,
    known_shape,
    per_dimension,
    shape_of,
    symmetric,
)
from striate.exporters.graph import BATCH
from striate.exporters.graph_builder import GraphBuilder


@aten_rule("max_pool2d_with_indices", "max_pool2d")
def _max_pool(builder: GraphBuilder, s: StepArguments) -> None:
    kernel = per_dimension(s.get("kernel_size"), 2)
    output = builder.add(
        "max_pool",
        [s.x],
        s.shape,
        kernel=kernel,
        stride=per_dimension(s.get("stride") or kernel, 2),
        padding=symmetric(per_dimension(s.get("padding"), 2)),
        dilation=per_dimension(s.get("dilation"), 2),
        ceil=bool(s.get("ceil_mode")),
    )
    builder.assign(s.ref(), output)


@aten_rule("avg_pool2d", "avg_pool3d")
def _avg_pool(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("divisor_override") is not None:
        raise builder.error("average pooling with another divisor")
    count = len(s.shape) - 2
    kernel = per_dimension(s.get("kernel_size"), count)
    output = builder.add(
        "avg_pool",
        [s.x],
        s.shape,
        kernel=kernel,
        stride=per_dimension(s.get("stride") or kernel, count),
        padding=symmetric(per_dimension(s.get("padding"), count)),
        ceil=bool(s.get("ceil_mode")),
        count_padding=bool(s.get("count_include_pad")),
    )
    builder.assign(s.ref(), output)


@aten_rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(builder: GraphBuilder, s: StepArguments) -> None:
    """Append average pooling; windows of unequal size become two matrix products."""
    name = builder.name_of(s.x)
    *rest, height, width = known_shape(builder, name)
    rows, columns = s.shape[-2:]
    if height % rows == 0 and width % columns == 0:
        kernel = [height // rows, width // columns]
        attrs = {"kernel": kernel, "stride": kernel, "padding": [[0, 0], [0, 0]]}
        output = builder.add(
            "avg_pool", [name], s.shape, **attrs, ceil=False, count_padding=True
        )
    else:
        right = _pool_matrix(width, columns).T
        shape = (*rest, height, columns)
        output = builder.add("matmul", [name, builder.constant(right)], shape)
        left = builder.constant(_pool_matrix(height, rows))
        output = builder.add("matmul", [left, output], s.shape)
    builder.assign(s.ref(), output)


def _pool_matrix(size: int, count: int) -> np.ndarray:
    """Return the (count, size) matrix of adaptive average pooling."""
    matrix = np.zeros((count, size), np.float32)
    for i in range(count):
        start, end = i * size // count, -(-(i + 1) * size // count)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


@aten_rule("adaptive_max_pool2d")
def _adaptive_max_pool(builder: GraphBuilder, s: StepArguments) -> None:
    height, width = shape_of(builder, s.x)[-2:]
    rows, columns = s.shape[-2:]
    if height % rows or width % columns:
        raise builder.error("adaptive max pooling with windows of unequal size")
    kernel = [height // rows, width // columns]
    attrs = {"kernel": kernel, "stride": kernel, "padding": [[0, 0], [0, 0]]}
    output = builder.add(
        "max_pool", [s.x], s.shape, **attrs, dilation=[1, 1], ceil=False
    )
    builder.assign(s.ref(), output)


def _reduction(builder: GraphBuilder, s: StepArguments, kind: str) -> None:
    shape = shape_of(builder, s.x)
    rank = len(shape)
    names = [argument.name for argument in s.step.func._schema.arguments]
    given = s.get("dim") if "dim" in names else None
    dims = list(range(rank)) if given in (None, []) else per_dimension(given, 1)
    dims = sorted(dim % rank for dim in dims)
    if any(shape[dim] == BATCH for dim in dims):
        raise builder.error(f"operation {s.step.name} over the images of the batch")
    keepdim = bool(s.get("keepdim")) if "keepdim" in names else False
    output = builder.add(kind, [s.x], s.shape, dims=dims, keepdim=keepdim)
    builder.assign(s.ref(), output)


for _name, _kind in (("mean", "mean"), ("sum", "sum"), ("amax", "max")):
    aten_rule(_name)(partial(_reduction, kind=_kind))


@aten_rule("linalg_vector_norm")
def _vector_norm(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("ord") not in (2, 2.0) or s.get("dim") is None:
        raise builder.error("a vector norm other than the Euclidean norm of dimensions")
    shape = shape_of(builder, s.x)
    dims = sorted(dim % len(shape) for dim in s.get("dim"))
    square = builder.add("mul", [s.x, s.x], shape)
    keepdim = bool(s.get("keepdim"))
    total = builder.add("sum", [square], s.shape, dims=dims, keepdim=keepdim)
    builder.assign(s.ref(), builder.add("sqrt", [total], s.shape))


def _softmax(builder: GraphBuilder, s: StepArguments, kind: str) -> None:
    dim = s.get("dim") % len(s.shape)
    builder.assign(s.ref(), builder.add(kind, [s.x], s.shape, dim=dim))


for _name, _kind in (
    ("_softmax", "softmax"),
    ("_safe_softmax", "softmax"),
    ("_log_softmax", "log_softmax"),
):
    RULES[_name] = partial(_softmax, kind=_kind)
