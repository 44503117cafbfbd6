"""Rules from torch's operations (ATen) to the operations of a `NetworkGraph`.

A rule appends the nodes of one traced step and names its outputs. `RULES` is the list
of all operations that can be exported; their names are those of `torch.ops.aten`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from striate.exporters.graph import BATCH
from striate.exporters.graph_builder import GraphBuilder
from striate.interpret.trace import TensorRef, TraceStep
from striate.layers.lrn import LRN


@dataclass(frozen=True)
class StepArguments:
    """One step of a trace: its arguments by name, and the shapes of its results."""

    step: TraceStep
    number: int  # index in the trace
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shapes: list[tuple[int, ...]]  # of the results, with BATCH

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first result."""
        return self.shapes[0]

    @property
    def x(self) -> Any:
        """Return the first argument."""
        return self.args[0]

    def get(self, name: str) -> Any:
        """Return an argument by the name in the operation's signature, or its default."""
        if name in self.kwargs:
            return self.kwargs[name]
        arguments = self.step.func._schema.arguments
        for index, argument in enumerate(arguments):
            if argument.name == name:
                given = index < len(self.args)
                return self.args[index] if given else argument.default_value
        raise KeyError(name)

    def ref(self, index: int = 0) -> TensorRef:
        """Return the reference to a result."""
        return TensorRef(self.number, index)


Rule = Callable[[GraphBuilder, StepArguments], None]
RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for operations and their in-place variants."""

    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = RULES[f"{name}_"] = rule
        return rule

    return register


def _dims(value: int | list[int], count: int) -> list[int]:
    """Return one number for each spatial dimension."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _pairs(padding: list[int]) -> list[list[int]]:
    return [[amount, amount] for amount in padding]


def _shape_of(builder: GraphBuilder, argument: Any) -> tuple[int, ...]:
    return builder_shape(builder, builder.name_of(argument))


def builder_shape(builder: GraphBuilder, name: str) -> tuple[int, ...]:
    """Return the shape of a value or constant of an unfinished graph."""
    if name in builder.shapes:
        return builder.shapes[name]
    return tuple(builder.constants[name].shape)


# --- layers with weights ---


@_rule("convolution")
def _convolution(builder: GraphBuilder, s: StepArguments) -> None:
    weight, bias = s.get("weight"), s.get("bias")
    if not isinstance(weight, Tensor):
        raise builder.error("a convolution whose weights are computed from the image")
    count = weight.ndim - 2
    attrs: dict[str, Any] = {
        "stride": _dims(s.get("stride"), count),
        "padding": _pairs(_dims(s.get("padding"), count)),
        "dilation": _dims(s.get("dilation"), count),
        "groups": s.get("groups"),
    }
    kind = "conv"
    if s.get("transposed"):
        kind = "conv_transpose"
        attrs["output_padding"] = _dims(s.get("output_padding"), count)
    inputs = [s.x, weight] if bias is None else [s.x, weight, bias]
    builder.assign(s.ref(), builder.add(kind, inputs, s.shape, **attrs))


@_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(builder: GraphBuilder, s: StepArguments) -> None:
    names = [argument.name for argument in s.step.func._schema.arguments]
    mean, var = s.get("running_mean"), s.get("running_var")
    if mean is None or var is None or ("training" in names and s.get("training")):
        what = "batch normalization with the statistics of the batch: the answer for "
        raise builder.error(what + "an image depends on the other images")
    weight = np.ones(len(mean), np.float32) if s.get("weight") is None else s.get("weight")
    bias = np.zeros(len(mean), np.float32) if s.get("bias") is None else s.get("bias")
    inputs = [s.x, _const(builder, weight), _const(builder, bias), mean, var]
    builder.assign(
        s.ref(), builder.add("batch_norm", inputs, s.shape, eps=float(s.get("eps")))
    )


def _const(builder: GraphBuilder, value: Any) -> str:
    return builder.constant(value) if isinstance(value, np.ndarray) else (
        builder.name_of(value)
    )


@_rule("native_layer_norm")
def _layer_norm(builder: GraphBuilder, s: StepArguments) -> None:
    count = len(s.get("normalized_shape"))
    inputs = [x for x in (s.x, s.get("weight"), s.get("bias")) if x is not None]
    if s.get("weight") is None and s.get("bias") is not None:
        raise builder.error("layer normalization with bias and without weight")
    output = builder.add(
        "layer_norm", inputs, s.shape, eps=float(s.get("eps")), count=count
    )
    builder.assign(s.ref(), output)


@_rule("native_group_norm")
def _group_norm(builder: GraphBuilder, s: StepArguments) -> None:
    channels = s.shape[1]
    weight = np.ones(channels, np.float32) if s.get("weight") is None else s.get("weight")
    bias = np.zeros(channels, np.float32) if s.get("bias") is None else s.get("bias")
    inputs = [s.x, _const(builder, weight), _const(builder, bias)]
    output = builder.add(
        "group_norm", inputs, s.shape, groups=s.get("group"), eps=float(s.get("eps"))
    )
    builder.assign(s.ref(), output)


def _linear(builder: GraphBuilder, s: StepArguments, x: Any, w: Any, b: Any) -> None:
    """Append x·w + b; with constant w a linear layer."""
    shape = s.shape
    if isinstance(w, Tensor) and w.ndim == 2:
        is_bias = isinstance(b, Tensor) and b.ndim == 1 and b.shape[0] == shape[-1]
        inputs = [x, w.t()] + ([b] if is_bias else [])
        output = builder.add("linear", inputs, shape)
        b = None if is_bias else b
    else:
        output = builder.add("matmul", [x, w], shape)
    if b is not None:
        output = builder.add("add", [output, b], shape)
    builder.assign(s.ref(), output)


@_rule("addmm", "baddbmm")
def _addmm(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("beta") != 1 or s.get("alpha") != 1:
        raise builder.error(f"operation {s.step.name} with alpha or beta")
    bias, x, weight = s.args[:3]
    _linear(builder, s, x, weight, bias)


@_rule("mm", "bmm", "matmul")
def _matmul(builder: GraphBuilder, s: StepArguments) -> None:
    _linear(builder, s, s.args[0], s.args[1], None)


@_rule("linear")
def _linear_layer(builder: GraphBuilder, s: StepArguments) -> None:
    bias = s.get("bias")
    weight = s.get("weight")
    if not isinstance(weight, Tensor):
        raise builder.error("a linear layer whose weights are computed from the image")
    inputs = [s.x, weight] if bias is None else [s.x, weight, bias]
    builder.assign(s.ref(), builder.add("linear", inputs, s.shape))


@_rule(
    "_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"
)
def _attention(builder: GraphBuilder, s: StepArguments) -> None:
    query, key, value = (builder.name_of(x) for x in s.args[:3])
    if s.get("is_causal") or s.get("dropout_p"):
        raise builder.error("attention with a causal mask or dropout")
    shape = builder_shape(builder, key)
    transposed = (*shape[:-2], shape[-1], shape[-2])
    dims = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    key = builder.add("permute", [key], transposed, dims=dims)
    q_shape = builder_shape(builder, query)
    score_shape = (*q_shape[:-1], shape[-2])
    given = s.get("scale")
    scale = 1 / math.sqrt(q_shape[-1]) if given is None else float(given)
    scores = builder.add("matmul", [query, key], score_shape)
    scores = builder.add("mul", [scores, scale], score_shape)
    if s.get("attn_mask") is not None:
        scores = builder.add("add", [scores, s.get("attn_mask")], score_shape)
    last = len(score_shape) - 1
    scores = builder.add("softmax", [scores], score_shape, dim=last)
    builder.assign(s.ref(), builder.add("matmul", [scores, value], s.shape))


# --- elementwise ---


def _unary(builder: GraphBuilder, s: StepArguments, kind: str) -> None:
    builder.assign(s.ref(), builder.add(kind, [s.x], s.shape))


for _name in (
    "relu sigmoid tanh silu hardswish hardsigmoid mish exp log sqrt abs neg erf "
    "reciprocal sin cos selu"
).split():
    _rule(_name)(partial(_unary, kind=_name))


@_rule("rsqrt")
def _rsqrt(builder: GraphBuilder, s: StepArguments) -> None:
    root = builder.add("sqrt", [s.x], s.shape)
    builder.assign(s.ref(), builder.add("reciprocal", [root], s.shape))


@_rule("square")
def _square(builder: GraphBuilder, s: StepArguments) -> None:
    builder.assign(s.ref(), builder.add("mul", [s.x, s.x], s.shape))


@_rule("softplus")
def _softplus(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("beta") != 1:
        raise builder.error("softplus with beta")
    _unary(builder, s, "softplus")


@_rule("gelu")
def _gelu(builder: GraphBuilder, s: StepArguments) -> None:
    output = builder.add("gelu", [s.x], s.shape, approximate=s.get("approximate"))
    builder.assign(s.ref(), output)


def _clamp(builder: GraphBuilder, s: StepArguments, low: Any, high: Any) -> None:
    for bound in (low, high):
        if isinstance(bound, Tensor | TensorRef):
            raise builder.error("clamp with tensors as bounds")
    bounds = [None if bound is None else float(bound) for bound in (low, high)]
    output = builder.add("clamp", [s.x], s.shape, low=bounds[0], high=bounds[1])
    builder.assign(s.ref(), output)


@_rule("hardtanh")
def _hardtanh(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min_val"), s.get("max_val"))


@_rule("clamp")
def _clamp_both(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min"), s.get("max"))


@_rule("clamp_min")
def _clamp_min(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min"), None)


@_rule("clamp_max")
def _clamp_max(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, None, s.get("max"))


@_rule("leaky_relu")
def _leaky_relu(builder: GraphBuilder, s: StepArguments) -> None:
    slope = float(s.get("negative_slope"))
    builder.assign(s.ref(), builder.add("leaky_relu", [s.x], s.shape, slope=slope))


@_rule("elu")
def _elu(builder: GraphBuilder, s: StepArguments) -> None:
    alpha, scale = float(s.get("alpha")), float(s.get("scale"))
    if s.get("input_scale") != 1:
        raise builder.error("ELU with an input scale")
    output = builder.add("elu", [s.x], s.shape, alpha=alpha)
    if scale != 1:
        output = builder.add("mul", [output, scale], s.shape)
    builder.assign(s.ref(), output)


@_rule("_prelu_kernel", "prelu")
def _prelu(builder: GraphBuilder, s: StepArguments) -> None:
    builder.assign(s.ref(), builder.add("prelu", list(s.args[:2]), s.shape))


@_rule("pow")
def _pow(builder: GraphBuilder, s: StepArguments) -> None:
    exponent = s.get("exponent")
    if not isinstance(exponent, int | float):
        raise builder.error("a power whose exponent is a tensor")
    output = builder.add("pow", [s.x], s.shape, exponent=float(exponent))
    builder.assign(s.ref(), output)


def _binary(builder: GraphBuilder, s: StepArguments, kind: str) -> None:
    a, b = s.args[:2]
    if s.kwargs.get("rounding_mode") is not None:
        raise builder.error("division with rounding")
    alpha = s.kwargs.get("alpha", 1)
    names = [builder.name_of(item) for item in (a, b)]
    if alpha != 1:
        shape = builder_shape(builder, names[1])
        names[1] = builder.add("mul", [names[1], float(alpha)], shape)
    builder.assign(s.ref(), builder.add(kind, names, s.shape))


for _name in ("add", "sub", "mul", "div", "maximum", "minimum"):
    _rule(_name)(partial(_binary, kind=_name))


@_rule("addcmul")
def _addcmul(builder: GraphBuilder, s: StepArguments) -> None:
    x, a, b = s.args[:3]
    product = builder.add("mul", [a, b], s.shape)
    if s.get("value") != 1:
        product = builder.add("mul", [product, float(s.get("value"))], s.shape)
    builder.assign(s.ref(), builder.add("add", [x, product], s.shape))


@_rule("rsub")
def _rsub(builder: GraphBuilder, s: StepArguments) -> None:
    if s.kwargs.get("alpha", 1) != 1:
        raise builder.error("rsub with alpha")
    builder.assign(s.ref(), builder.add("sub", [s.args[1], s.x], s.shape))


@_rule("LRN")
def _lrn(builder: GraphBuilder, s: StepArguments) -> None:
    module = s.step.call.args[0]  # type: ignore[attr-defined]
    if not isinstance(module, LRN):
        raise builder.error(f"there is no export of the layer {type(module).__name__}")
    attrs = {name: getattr(module, name) for name in ("size", "alpha", "beta", "k")}
    builder.assign(s.ref(), builder.add("lrn", [s.x], s.shape, **attrs))


# --- pooling and reductions ---


@_rule("max_pool2d_with_indices", "max_pool2d")
def _max_pool(builder: GraphBuilder, s: StepArguments) -> None:
    kernel = _dims(s.get("kernel_size"), 2)
    output = builder.add(
        "max_pool",
        [s.x],
        s.shape,
        kernel=kernel,
        stride=_dims(s.get("stride") or kernel, 2),
        padding=_pairs(_dims(s.get("padding"), 2)),
        dilation=_dims(s.get("dilation"), 2),
        ceil=bool(s.get("ceil_mode")),
    )
    builder.assign(s.ref(), output)


@_rule("avg_pool2d")
def _avg_pool(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("divisor_override") is not None:
        raise builder.error("average pooling with another divisor")
    kernel = _dims(s.get("kernel_size"), 2)
    output = builder.add(
        "avg_pool",
        [s.x],
        s.shape,
        kernel=kernel,
        stride=_dims(s.get("stride") or kernel, 2),
        padding=_pairs(_dims(s.get("padding"), 2)),
        ceil=bool(s.get("ceil_mode")),
        count_padding=bool(s.get("count_include_pad")),
    )
    builder.assign(s.ref(), output)


@_rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d")
def _adaptive_avg_pool(builder: GraphBuilder, s: StepArguments) -> None:
    """Append average pooling; windows of unequal size become two matrix products."""
    name = builder.name_of(s.x)
    *rest, height, width = builder_shape(builder, name)
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


@_rule("adaptive_max_pool2d")
def _adaptive_max_pool(builder: GraphBuilder, s: StepArguments) -> None:
    height, width = _shape_of(builder, s.x)[-2:]
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
    shape = _shape_of(builder, s.x)
    rank = len(shape)
    names = [argument.name for argument in s.step.func._schema.arguments]
    given = s.get("dim") if "dim" in names else None
    dims = list(range(rank)) if given in (None, []) else _dims(given, 1)
    dims = sorted(dim % rank for dim in dims)
    if any(shape[dim] == BATCH for dim in dims):
        raise builder.error(f"operation {s.step.name} over the images of the batch")
    keepdim = bool(s.get("keepdim")) if "keepdim" in names else False
    output = builder.add(kind, [s.x], s.shape, dims=dims, keepdim=keepdim)
    builder.assign(s.ref(), output)


for _name, _kind in (("mean", "mean"), ("sum", "sum"), ("amax", "max")):
    _rule(_name)(partial(_reduction, kind=_kind))


@_rule("linalg_vector_norm")
def _vector_norm(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("ord") not in (2, 2.0) or s.get("dim") is None:
        raise builder.error("a vector norm other than the Euclidean norm of dimensions")
    shape = _shape_of(builder, s.x)
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


# --- shapes ---


@_rule("cat")
def _concat(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    builder.assign(s.ref(), builder.add("concat", s.x, s.shape, dim=dim))


@_rule("stack")
def _stack(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    shape = (*s.shape[:dim], 1, *s.shape[dim + 1 :])
    parts = [builder.add("reshape", [x], shape, shape=list(shape)) for x in s.x]
    builder.assign(s.ref(), builder.add("concat", parts, s.shape, dim=dim))


@_rule(
    *"view _unsafe_view reshape _reshape_alias flatten unflatten squeeze unsqueeze".split()
)
def _reshape(builder: GraphBuilder, s: StepArguments) -> None:
    if s.shape.count(BATCH) > 1:
        raise builder.error("a shape in which two dimensions depend on the batch size")
    name = builder.name_of(s.x)
    if builder_shape(builder, name) != s.shape:
        name = builder.add("reshape", [name], s.shape, shape=list(s.shape))
    builder.assign(s.ref(), name)


def _permuted(builder: GraphBuilder, s: StepArguments, dims: list[int]) -> None:
    builder.assign(s.ref(), builder.add("permute", [s.x], s.shape, dims=dims))


@_rule("permute")
def _permute(builder: GraphBuilder, s: StepArguments) -> None:
    _permuted(builder, s, [dim % len(s.shape) for dim in s.get("dims")])


@_rule("transpose")
def _transpose(builder: GraphBuilder, s: StepArguments) -> None:
    rank = len(s.shape)
    dims = list(range(rank))
    a, b = s.get("dim0") % rank, s.get("dim1") % rank
    dims[a], dims[b] = dims[b], dims[a]
    _permuted(builder, s, dims)


@_rule("t")
def _matrix_transpose(builder: GraphBuilder, s: StepArguments) -> None:
    _permuted(builder, s, [1, 0])


@_rule("expand")
def _expand(builder: GraphBuilder, s: StepArguments) -> None:
    name = builder.name_of(s.x)
    if builder_shape(builder, name) != s.shape:
        name = builder.add("expand", [name], s.shape, shape=list(s.shape))
    builder.assign(s.ref(), name)


def _sliced(
    builder: GraphBuilder, x: Any, dim: int, bounds: tuple[int, int], step: int = 1
) -> str:
    """Append a slice of a value, unless it is the whole value."""
    name = builder.name_of(x) if not isinstance(x, str) else x
    shape = list(builder_shape(builder, name))
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


@_rule("slice")
def _slice(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    start = s.get("start") or 0
    end = 2**31 if s.get("end") is None else s.get("end")
    output = _sliced(builder, s.x, dim, (start, end), s.get("step"))
    builder.assign(s.ref(), output)


@_rule("narrow")
def _narrow(builder: GraphBuilder, s: StepArguments) -> None:
    dim, start = s.get("dim") % len(s.shape), s.get("start")
    output = _sliced(builder, s.x, dim, (start, start + s.get("length")))
    builder.assign(s.ref(), output)


def _selected(
    builder: GraphBuilder, x: Any, dim: int, index: int, shape: tuple[int, ...]
) -> str:
    size = _shape_of(builder, x)[dim]
    if size == BATCH:
        raise builder.error("a selection of one image of the batch")
    index %= size
    name = _sliced(builder, x, dim, (index, index + 1))
    return builder.add("reshape", [name], shape, shape=list(shape))


@_rule("select")
def _select(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % (len(s.shape) + 1)
    output = _selected(builder, s.x, dim, s.get("index"), s.shape)
    builder.assign(s.ref(), output)


@_rule("unbind")
def _unbind(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % (len(s.shape) + 1)
    for index, shape in enumerate(s.shapes):
        output = _selected(builder, s.x, dim, index, shape)
        builder.assign(s.ref(index), output)


@_rule("split", "split_with_sizes", "chunk", "tensor_split")
def _split(builder: GraphBuilder, s: StepArguments) -> None:
    dim = s.get("dim") % len(s.shape)
    start = 0
    for index, shape in enumerate(s.shapes):
        output = _sliced(builder, s.x, dim, (start, start + shape[dim]))
        builder.assign(s.ref(index), output)
        start += shape[dim]


@_rule("flip")
def _flip(builder: GraphBuilder, s: StepArguments) -> None:
    dims = [dim % len(s.shape) for dim in s.get("dims")]
    if any(s.shape[dim] == BATCH for dim in dims):
        raise builder.error("a reversal of the images of the batch")
    builder.assign(s.ref(), builder.add("flip", [s.x], s.shape, dims=dims))


@_rule("roll")
def _roll(builder: GraphBuilder, s: StepArguments) -> None:
    name = builder.name_of(s.x)
    for dim, shift in zip(_dims(s.get("dims"), 1), _dims(s.get("shifts"), 1), strict=True):
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
            size = builder_shape(builder, name)[dim]
            bounds = max(0, -low), size - max(0, -high)
            name = _sliced(builder, name, dim, bounds)
    padding = [[max(0, low), max(0, high)] for low, high in padding]
    output = builder.add(
        "pad", [name], s.shape, padding=padding, mode=mode, value=value
    )
    builder.assign(s.ref(), output)


@_rule("constant_pad_nd")
def _constant_pad(builder: GraphBuilder, s: StepArguments) -> None:
    _padded(builder, s, "constant", float(s.get("value")))


@_rule("reflection_pad1d", "reflection_pad2d")
def _reflection_pad(builder: GraphBuilder, s: StepArguments) -> None:
    _padded(builder, s, "reflect", 0.0)


@_rule("replication_pad1d", "replication_pad2d")
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
    _rule(f"upsample_{_name}2d")(partial(_resize, mode=_name))


@_rule("as_strided")
def _as_strided(builder: GraphBuilder, s: StepArguments) -> None:
    """Pass a value on, if only its strides change (adaptive pooling to one value)."""
    if s.step.func is None or not s.step.func._schema.is_mutable:
        raise builder.error("as_strided")
    _reshape(builder, s)


@_rule(*"clone contiguous detach alias lift_fresh dropout _to_copy to".split())
def _identity(builder: GraphBuilder, s: StepArguments) -> None:
    if not s.step.results[0].is_floating_point():
        raise builder.error(f"a conversion to {s.step.results[0].dtype}")
    builder.assign(s.ref(), builder.name_of(s.x))
