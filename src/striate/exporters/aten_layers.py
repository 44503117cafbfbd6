"""Rules of layers with weights: convolution, normalization, products, attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from striate.exporters.aten_registry import (
    StepArguments,
    aten_rule,
    known_shape,
    per_dimension,
    symmetric,
)
from striate.exporters.graph_builder import GraphBuilder


@aten_rule("convolution")
def _convolution(builder: GraphBuilder, s: StepArguments) -> None:
    weight, bias = s.get("weight"), s.get("bias")
    if not isinstance(weight, Tensor):
        raise builder.error("a convolution whose weights are computed from the image")
    count = weight.ndim - 2
    attrs: dict[str, Any] = {
        "stride": per_dimension(s.get("stride"), count),
        "padding": symmetric(per_dimension(s.get("padding"), count)),
        "dilation": per_dimension(s.get("dilation"), count),
        "groups": s.get("groups"),
    }
    kind = "conv"
    if s.get("transposed"):
        kind = "conv_transpose"
        attrs["output_padding"] = per_dimension(s.get("output_padding"), count)
    inputs = [s.x, weight] if bias is None else [s.x, weight, bias]
    builder.assign(s.ref(), builder.add(kind, inputs, s.shape, **attrs))


@aten_rule("native_batch_norm", "_native_batch_norm_legit_no_training", "batch_norm")
def _batch_norm(builder: GraphBuilder, s: StepArguments) -> None:
    names = [argument.name for argument in s.step.func._schema.arguments]
    mean, var = s.get("running_mean"), s.get("running_var")
    if mean is None or var is None or ("training" in names and s.get("training")):
        what = "batch normalization with the statistics of the batch: the answer for "
        raise builder.error(what + "an image depends on the other images")
    weight = (
        np.ones(len(mean), np.float32) if s.get("weight") is None else s.get("weight")
    )
    bias = np.zeros(len(mean), np.float32) if s.get("bias") is None else s.get("bias")
    inputs = [s.x, _const(builder, weight), _const(builder, bias), mean, var]
    builder.assign(
        s.ref(), builder.add("batch_norm", inputs, s.shape, eps=float(s.get("eps")))
    )


def _const(builder: GraphBuilder, value: Any) -> str:
    return (
        builder.constant(value)
        if isinstance(value, np.ndarray)
        else (builder.name_of(value))
    )


@aten_rule("native_layer_norm")
def _layer_norm(builder: GraphBuilder, s: StepArguments) -> None:
    count = len(s.get("normalized_shape"))
    inputs = [x for x in (s.x, s.get("weight"), s.get("bias")) if x is not None]
    if s.get("weight") is None and s.get("bias") is not None:
        raise builder.error("layer normalization with bias and without weight")
    output = builder.add(
        "layer_norm", inputs, s.shape, eps=float(s.get("eps")), count=count
    )
    builder.assign(s.ref(), output)


@aten_rule("native_group_norm")
def _group_norm(builder: GraphBuilder, s: StepArguments) -> None:
    channels = s.shape[1]
    weight = (
        np.ones(channels, np.float32) if s.get("weight") is None else s.get("weight")
    )
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


@aten_rule("addmm", "baddbmm")
def _addmm(builder: GraphBuilder, s: StepArguments) -> None:
    if s.get("beta") != 1 or s.get("alpha") != 1:
        raise builder.error(f"operation {s.step.name} with alpha or beta")
    bias, x, weight = s.args[:3]
    _linear(builder, s, x, weight, bias)


@aten_rule("mm", "bmm", "matmul")
def _matmul(builder: GraphBuilder, s: StepArguments) -> None:
    _linear(builder, s, s.args[0], s.args[1], None)


@aten_rule("linear")
def _linear_layer(builder: GraphBuilder, s: StepArguments) -> None:
    bias = s.get("bias")
    weight = s.get("weight")
    if not isinstance(weight, Tensor):
        raise builder.error("a linear layer whose weights are computed from the image")
    inputs = [s.x, weight] if bias is None else [s.x, weight, bias]
    builder.assign(s.ref(), builder.add("linear", inputs, s.shape))


@aten_rule(
    "_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention"
)
def _attention(builder: GraphBuilder, s: StepArguments) -> None:
    query, key, value = (builder.name_of(x) for x in s.args[:3])
    if s.get("is_causal") or s.get("dropout_p"):
        raise builder.error("attention with a causal mask or dropout")
    shape = known_shape(builder, key)
    transposed = (*shape[:-2], shape[-1], shape[-2])
    dims = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    key = builder.add("permute", [key], transposed, dims=dims)
    q_shape = known_shape(builder, query)
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
