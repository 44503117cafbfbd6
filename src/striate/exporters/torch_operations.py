"""Torch functions of the graph operations: they take the inputs and the attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.exporters.graph import BATCH
from striate.layers.lrn import lrn

Pads = Sequence[Sequence[int]]


def _padded(x: Tensor, padding: Pads, value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Return x and the padding that is left, which is the same on both sides."""
    if all(low == high for low, high in padding):
        return x, [low for low, _ in padding]
    return F.pad(x, _reversed(padding), value=value), [0] * len(padding)


def _reversed(padding: Pads) -> list[int]:
    """Return the order of `F.pad`: the last dimension first."""
    return [amount for pair in reversed(padding) for amount in pair]


def _even(padding: Pads) -> list[int]:
    if any(low != high for low, high in padding):
        what = f"padding must be the same on both sides, got {list(padding)}"
        raise GeometryError(what)
    return [low for low, _ in padding]


def _by_rank(x: Tensor, *functions: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the function for 1, 2 or 3 spatial dimensions."""
    if not 3 <= x.ndim < 3 + len(functions):
        raise GeometryError(f"an image with {x.ndim - 2} spatial dimensions")
    return functions[x.ndim - 3]


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: list[int],
    padding: Pads,
    dilation: list[int],
    groups: int,
) -> Tensor:
    convolve = _by_rank(x, F.conv1d, F.conv2d, F.conv3d)
    x, amounts = _padded(x, padding)
    return convolve(x, weight, bias, stride, amounts, dilation, groups)


def _conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: list[int],
    padding: Pads,
    output_padding: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    convolve = _by_rank(x, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
    amounts = _even(padding)
    return convolve(x, weight, bias, stride, amounts, output_padding, groups, dilation)


def _batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, *, eps: float
) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, eps=eps)


def _layer_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    count: int,
    eps: float,
) -> Tensor:
    return F.layer_norm(x, x.shape[x.ndim - count :], weight, bias, eps)


def _group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float
) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _max_pool(
    x: Tensor,
    *,
    kernel: list[int],
    stride: list[int],
    padding: Pads,
    dilation: list[int],
    ceil: bool,
) -> Tensor:
    pool = _by_rank(x, F.max_pool1d, F.max_pool2d, F.max_pool3d)
    x, amounts = _padded(x, padding, float("-inf"))
    return pool(x, kernel, stride, amounts, dilation, ceil)


def _avg_pool(
    x: Tensor,
    *,
    kernel: list[int],
    stride: list[int],
    padding: Pads,
    ceil: bool,
    count_padding: bool,
) -> Tensor:
    pool = _by_rank(x, F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    return pool(x, kernel, stride, _even(padding), ceil, count_padding)


def _pad(x: Tensor, *, padding: Pads, mode: str, value: float = 0.0) -> Tensor:
    if mode == "constant":
        return F.pad(x, _reversed(padding), value=value)
    outer, inner = padding[:2], padding[2:]  # torch pads no images and no channels
    if any(amount for pair in outer for amount in pair):
        raise GeometryError(f"{mode} padding of images or channels")
    name = {"reflect": "reflect", "edge": "replicate"}[mode]
    return F.pad(x, _reversed(inner), name)


def _resize(x: Tensor, *, size: list[int], mode: str, align_corners: bool) -> Tensor:
    aligned = None if mode == "nearest" else align_corners
    return F.interpolate(x, size, mode=mode, align_corners=aligned)


def _expand(x: Tensor, image: Tensor, *, shape: Sequence[int]) -> Tensor:
    """Expand x; a BATCH is the number of images of the network's input."""
    return x.expand([image.shape[0] if size == BATCH else size for size in shape])


def _slice(x: Tensor, *, dim: int, start: int, end: int, step: int) -> Tensor:
    return x[(slice(None),) * dim + (slice(start, end, step),)]


def _concat(*parts: Tensor, dim: int) -> Tensor:
    return torch.cat(parts, dim)


def _clamp(x: Tensor, *, low: float | None, high: float | None) -> Tensor:
    return x if low is None and high is None else x.clamp(low, high)


TORCH_OPERATIONS: Mapping[str, Callable[..., Tensor]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": F.linear,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "prelu": lambda x, weight: F.prelu(x, weight.reshape(-1)),
    "lrn": lrn,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "mish": F.mish,
    "softplus": F.softplus,
    "gelu": F.gelu,
    "selu": F.selu,
    "clamp": _clamp,
    "leaky_relu": lambda x, slope: F.leaky_relu(x, slope),
    "elu": F.elu,
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "mean": lambda x, dims, keepdim: x.mean(dims, keepdim),
    "sum": lambda x, dims, keepdim: x.sum(dims, keepdim),
    "max": lambda x, dims, keepdim: x.amax(dims, keepdim),
    "softmax": torch.softmax,
    "log_softmax": torch.log_softmax,
    "concat": _concat,
    "reshape": lambda x, shape: x.reshape(shape),
    "permute": torch.permute,
    "expand": _expand,
    "slice": _slice,
    "flip": torch.flip,
    "pad": _pad,
    "resize": _resize,
    # names that torch has, too
    **{
        name: partial(getattr(torch, name))
        for name in (
            *("relu", "sigmoid", "tanh", "exp", "log", "sqrt", "abs", "neg", "erf"),
            *("reciprocal", "sin", "cos", "pow"),
            *("add", "sub", "mul", "div", "maximum", "minimum", "matmul"),
        )
    },
}
