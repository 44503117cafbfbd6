"""Rules of operations that only move values: reshape, slice, concatenate, pad."""

from __future__ import annotations

from functools import partial
from typing import Any

from striate.exporters.aten_registry import (
    StepArguments,
    aten_rule,
    known_shape,
    per_dimension,
    shape_of,
)
from striate.exporters.graph import BATCH
from striate.exporters.graph_builder import GraphBuilder


@aten_rule("cat")
def _concat(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    builder.assign(s.ref(), builder.add("concat", s.x, s.shape, dim=dim))


@aten_rule("stack")
def _stack(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    shape = (*s.shape[:dim], 1, *s.shape[dim + 1 :])
    parts = [builder.add("reshape", [x], shape, shape=list(shape)) for x in s.x]
    builder.assign(s.ref(), builder.add("concat", parts, s.shape, dim=dim))


@aten_rule(
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
)
def _reshape(builder: GraphBuilder, s: StepArguments) -> None:
    if s.shape.count(BATCH) > 1:
        raise builder.error("a shape in which two dimensions depend on the batch size")
    name = builder.name_of(s.x)
    if known_shape(builder, name) != s.shape:
        name = builder.add("reshape", [name], s.shape, shape=list(s.shape))
    builder.assign(s.ref(), name)


@aten_rule("pixel_shuffle")
def _pixel_shuffle(builder: GraphBuilder, s: StepArguments) -> None:
    r = s.get("upscale_factor")
    batch, channels, height, width = s.shape
    split = [batch, channels, r, r, height // r, width // r]
    name = builder.add("reshape", [s.x], split, shape=split)
    dims = [0, 1, 4, 2, 5, 3]
    name = builder.add("permute", [name], [split[d] for d in dims], dims=dims)
    output = builder.add("reshape", [name], s.shape, shape=list(s.shape))
    builder.assign(s.ref(), output)


def _permuted(builder: GraphBuilder, s: StepArguments, dims: list[int]) -> None:
    builder.assign(s.ref(), builder.add("permute", [s.x], s.shape, dims=dims))


@aten_rule("permute")
def _permute(builder: GraphBuilder, s: StepArguments) -> None:
    _permuted(builder, s, [dim % len(s.shape) for dim in s.get("dims")])


@aten_rule("transpose")
def _transpose(builder: GraphBuilder, s: StepArguments) -> None:
    rank = len(s.shape)
    dims = list(range(rank))
    a, b = s.get("dim0") % rank, s.get("dim1") % rank
    dims[a], dims[b] = dims[b], dims[a]
    _permuted(builder, s, dims)


@aten_rule("t")
def _matrix_transpose(builder: GraphBuilder, s: StepArguments) -> None:
    _permuted(builder, s, [1, 0])


@aten_rule("expand")
def _expand(builder: GraphBuilder, s: StepArguments) -> None:
    name = builder.name_of(s.x)
    if known_shape(builder, name) != s.shape:
        name = builder.add("expand", [name], s.shape, shape=list(s.shape))
    builder.assign(s.ref(), name)


@aten_rule("repeat")
def _repeat(builder: GraphBuilder, s: StepArguments) -> None:
    name = builder.name_of(s.x)
    shape = list(known_shape(builder, name))
    counts = list(s.get("repeats"))
    if len(counts) > len(shape):
        shape = [1] * (len(counts) - len(shape)) + shape
        name = builder.add("reshape", [name], shape, shape=shape)
    for dim, count in enumerate(counts):
        if count == 1:
            continue
        if shape[dim] == BATCH or count == BATCH:
            raise builder.error("a repetition of the images of the batch")
        shape[dim] *= count
        name = builder.add("concat", [name] * count, shape, dim=dim)
    builder.assign(s.ref(), name)


def _sliced(
    builder: GraphBuilder, x: Any, dim: int, bounds: tuple[int, int], step: int = 1
) -> str:
    """Append a slice of a value, unless it is the whole value."""
    name = builder.name_of(x) if not isinstance(x, str) else x
    shape = list(known_shape(builder, name))
    size = shape[dim]
    if size == BATCH:
        if bounds[0] == 0 and step == 1 and (bounds[1] == BATCH or bounds[1] > 2**30):
            return name
        raise builder.error("a slice of the images of the batch")
    start, end = (min(max(b + size if b < 0 else b, 0), size) for b in bounds)
    if (start, end, step) == (0, size, 1):
        return name
    shape[dim] = max(0, -(-(end - start) // step))
    attrs = {"dim": dim, "start": start, "end": end, "step": step}
    return builder.add("slice", [name], shape, **attrs)


@aten_rule("slice")
def _slice(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    start = s.get("start") or 0
    end = 2**31 if s.get("end") is None else s.get("end")
    output = _sliced(builder, s.x, dim, (start, end), s.get("step"))
    builder.assign(s.ref(), output)


@aten_rule("narrow")
def _narrow(builder: GraphBuilder, s: StepArguments) -> None:
    dim, start = s.get("dim") % len(s.shape), s.get("start")
    output = _sliced(builder, s.x, dim, (start, start + s.get("length")))
    builder.assign(s.ref(), output)


def _selected(
    builder: GraphBuilder, x: Any, dim: int, index: int, shape: tuple[int, ...]
) -> str:
    size = shape_of(builder, x)[dim]
    if size == BATCH:
        raise builder.error("a selection of one image of the batch")
    index %= size
    name = _sliced(builder, x, dim, (index, index + 1))
    return builder.add("reshape", [name], shape, shape=list(shape))


@aten_rule("select")
def _select(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % (len(s.shape) + 1)
    output = _selected(builder, s.x, dim, s.get("index"), s.shape)
    builder.assign(s.ref(), output)


@aten_rule("unbind")
def _unbind(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % (len(s.shape) + 1)
    for index, shape in enumerate(s.shapes):
        output = _selected(builder, s.x, dim, index, shape)
        builder.assign(s.ref(index), output)


@aten_rule("split", "split_with_sizes", "chunk", "tensor_split")
def _split(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    start = 0
    for index, shape in enumerate(s.shapes):
        output = _sliced(builder, s.x, dim, (start, start + shape[dim]))
        builder.assign(s.ref(index), output)
        start += shape[dim]


@aten_rule("flip")
def _flip(builder: GraphBuilder, s: StepArguments) -> None:
    dims = [dim % len(s.shape) for dim in s.get("dims")]
    if any(s.shape[dim] == BATCH for dim in dims):
        raise builder.error("a reversal of the images of the batch")
    builder.assign(s.ref(), builder.add("flip", [s.x], s.shape, dims=dims))


@aten_rule("roll")
def _roll(builder: GraphBuilder, s: StepArguments) -> None:
    name = builder.name_of(s.x)
    for dim, shift in zip(
        per_dimension(s.get("dims"), 1), per_dimension(s.get("shifts"), 1), strict=True
    ):
        size = s.shape[dim]
        if size == BATCH:
            raise builder.error("a rotation of the images of the batch")
        start = -shift % size
        if start:
            parts = [(start, size), (0, start)]
            names = [_sliced(builder, name, dim, bounds) for bounds in parts]
            name = builder.add("concat", names, s.shape, dim=dim)
    builder.assign(s.ref(), name)


def _padded(builder: GraphBuilder, s: StepArguments, mode: str, value: float) -> None:
    amounts = list(s.get("pad") if mode == "constant" else s.get("padding"))
    pairs = [amounts[i : i + 2] for i in range(0, len(amounts), 2)]
    padding = [[0, 0]] * (len(s.shape) - len(pairs)) + pairs[::-1]
    name = builder.name_of(s.x)
    for dim, (low, high) in enumerate(padding):  # negative amounts cut
        if low < 0 or high < 0:
            size = known_shape(builder, name)[dim]
            bounds = max(0, -low), size - max(0, -high)
            name = _sliced(builder, name, dim, bounds)
    padding = [[max(0, low), max(0, high)] for low, high in padding]
    output = builder.add(
        "pad", [name], s.shape, padding=padding, mode=mode, value=value
    )
    builder.assign(s.ref(), output)


@aten_rule("constant_pad_nd")
def _constant_pad(builder: GraphBuilder, s: StepArguments) -> None:
    _padded(builder, s, "constant", float(s.get("value")))


@aten_rule("reflection_pad1d", "reflection_pad2d")
def _reflection_pad(builder: GraphBuilder, s: StepArguments) -> None:
    _padded(builder, s, "reflect", 0.0)


@aten_rule("replication_pad1d", "replication_pad2d")
def _replication_pad(builder: GraphBuilder, s: StepArguments) -> None:
    _padded(builder, s, "edge", 0.0)


def _resize(builder: GraphBuilder, s: StepArguments, mode: str) -> None:
    aligned = mode != "nearest" and bool(s.get("align_corners"))
    size = list(s.shape[2:])
    output = builder.add(
        "resize", [s.x], s.shape, size=size, mode=mode, align_corners=aligned
    )
    builder.assign(s.ref(), output)


for _name in ("nearest", "bilinear", "bicubic"):
    aten_rule(f"upsample_{_name}2d")(partial(_resize, mode=_name))


@aten_rule("as_strided")
def _as_strided(builder: GraphBuilder, s: StepArguments) -> None:
    """Pass a value on, if only its strides change (adaptive pooling to one value)."""
    if s.step.func is None or not s.step.func._schema.is_mutable:
        raise builder.error("as_strided")
    _reshape(builder, s)


@aten_rule(
    "clone",
    "contiguous",
    "detach",
    "alias",
    "lift_fresh",
    "dropout",
    "_to_copy",
    "to",
)
def _identity(builder: GraphBuilder, s: StepArguments) -> None:
    if not s.step.results[0].is_floating_point():
        raise builder.error(f"a conversion to {s.step.results[0].dtype}")
    builder.assign(s.ref(), builder.name_of(s.x))
