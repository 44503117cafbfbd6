"""Rules of activation functions and of arithmetic on single values."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from striate.exporters.aten_registry import (
    StepArguments,
    aten_rule,
    known_shape,
)
from striate.exporters.graph_builder import GraphBuilder
from striate.interpret.trace import TensorRef
from striate.layers.lrn import LRN


def _unary(builder: GraphBuilder, s: StepArguments, kind: str) -> None:
    builder.assign(s.ref(), builder.add(kind, [s.x], s.shape))


for _name in [
    "relu",
    "sigmoid",
    "tanh",
    "silu",
    "hardswish",
    "hardsigmoid",
    "mish",
    "exp",
    "log",
    "sqrt",
    "abs",
    "neg",
    "erf",
    "reciprocal",
    "sin",
    "cos",
    "selu",
]:
    aten_rule(_name)(partial(_unary, kind=_name))


@aten_rule("rsqrt")
def _rsqrt(builder: GraphBuilder, s: StepArguments) -> None:
    root = builder.add("sqrt", [s.x], s.shape)
    builder.assign(s.ref(), builder.add("reciprocal", [root], s.shape))


@aten_rule("square")
def _square(builder: GraphBuilder, s: StepArguments) -> None:
    builder.assign(s.ref(), builder.add("mul", [s.x, s.x], s.shape))


@aten_rule("softplus")
def _softplus(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("beta") != 1:
        raise builder.error("softplus with beta")
    _unary(builder, s, "softplus")


@aten_rule("gelu")
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


@aten_rule("hardtanh")
def _hardtanh(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min_val"), s.get("max_val"))


@aten_rule("clamp")
def _clamp_both(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min"), s.get("max"))


@aten_rule("clamp_min")
def _clamp_min(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, s.get("min"), None)


@aten_rule("clamp_max")
def _clamp_max(builder: GraphBuilder, s: StepArguments) -> None:
    _clamp(builder, s, None, s.get("max"))


@aten_rule("leaky_relu")
def _leaky_relu(builder: GraphBuilder, s: StepArguments) -> None:
    slope = float(s.get("negative_slope"))
    builder.assign(s.ref(), builder.add("leaky_relu", [s.x], s.shape, slope=slope))


@aten_rule("elu")
def _elu(builder: GraphBuilder, s: StepArguments) -> None:
    alpha, scale = float(s.get("alpha")), float(s.get("scale"))
    if s.get("input_scale") != 1:
        raise builder.error("ELU with an input scale")
    output = builder.add("elu", [s.x], s.shape, alpha=alpha)
    if scale != 1:
        output = builder.add("mul", [output, scale], s.shape)
    builder.assign(s.ref(), output)


@aten_rule("_prelu_kernel", "prelu")
def _prelu(builder: GraphBuilder, s: StepArguments) -> None:
    builder.assign(s.ref(), builder.add("prelu", list(s.args[:2]), s.shape))


@aten_rule("pow")
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
        shape = known_shape(builder, names[1])
        names[1] = builder.add("mul", [names[1], float(alpha)], shape)
    builder.assign(s.ref(), builder.add(kind, names, s.shape))


for _name in ("add", "sub", "mul", "div", "maximum", "minimum"):
    aten_rule(_name)(partial(_binary, kind=_name))


@aten_rule("addcmul")
def _addcmul(builder: GraphBuilder, s: StepArguments) -> None:
    x, a, b = s.args[:3]
    product = builder.add("mul", [a, b], s.shape)
    if s.get("value") != 1:
        product = builder.add("mul", [product, float(s.get("value"))], s.shape)
    builder.assign(s.ref(), builder.add("add", [x, product], s.shape))


@aten_rule("rsub")
def _rsub(builder: GraphBuilder, s: StepArguments) -> None:
    if s.kwargs.get("alpha", 1) != 1:
        raise builder.error("rsub with alpha")
    builder.assign(s.ref(), builder.add("sub", [s.args[1], s.x], s.shape))


@aten_rule("LRN")
def _lrn(builder: GraphBuilder, s: StepArguments) -> None:
    module = s.step.call.args[0]  # type: ignore[attr-defined]
    if not isinstance(module, LRN):
        raise builder.error(f"there is no export of the layer {type(module).__name__}")
    attrs = {name: getattr(module, name) for name in ("size", "alpha", "beta", "k")}
    builder.assign(s.ref(), builder.add("lrn", [s.x], s.shape, **attrs))
