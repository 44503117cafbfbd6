"""Fast rules for the output shapes of the most common torch operations.

torch's own rules for the meta device import about 800 modules on first use (1.5 s) and
take 0.1 to 5 ms per call; these rules take microseconds. torch computes all other
operations and memory layouts. The tests compare every rule with torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from striate.audit.fused_calls import lstm_workspace
from striate.audit.window_args import per_axis
from striate.core.conv_arithmetic import output_side, pooled_side, transposed_side
from striate.core.errors import GeometryError

aten = torch.ops.aten
META = torch.device("meta")
Rule = Callable[..., Any]

# In-place operations that change the shape of their input.
_RESHAPING = {"resize_", "set_", "t_", "transpose_", "squeeze_", "unsqueeze_"}


def output_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return the output of an operation as meta tensors; None if there is no rule.

    Example:
        >>> image = torch.empty(1, 3, 8, 8, device="meta")
        >>> kernel = torch.empty(4, 3, 3, 3, device="meta")
        >>> args = (image, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
        >>> output_of(aten.convolution.default, args, {}).shape
        torch.Size([1, 4, 6, 6])
    """
    rule = _RULES.get(func)
    if rule is None:
        rule = _RULES[func] = _rule_by_kind(func)
    return rule(*args, **kwargs)


def _rule_by_kind(func: Any) -> Rule:
    name = str(func.overloadpacket.__name__)
    if name.endswith("_") and name not in _RESHAPING and not name.endswith("__"):
        return _in_place
    if name in _POINTWISE and func._schema.returns[0].type.kind() == "TensorType":
        return _pointwise
    return _unknown


def _unknown(*args: Any, **kwargs: Any) -> None:
    return None


def _in_place(*args: Any, **kwargs: Any) -> Any:
    return args[0] if isinstance(args[0], Tensor) and args[0].is_meta else None


def _detached(x: Tensor) -> Any:
    return x.detach() if x.is_meta else None


def _new(like: Tensor, shape: Any, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or like.dtype, device=META)


def _contiguous(*tensors: Any) -> bool:
    """Return whether all tensors are contiguous meta tensors."""
    for t in tensors:
        if t is not None and not (t.is_meta and t.is_contiguous()):
            return False
    return True


def _contiguous_or_expanded(tensor: Tensor) -> bool:
    """Return whether a meta tensor is contiguous or expanded (with a stride of 0)."""
    return tensor.is_meta and (tensor.is_contiguous() or 0 in tensor.stride())


_POINTWISE_NAMES = """
    relu add sub mul div sigmoid tanh neg abs exp sqrt rsqrt pow gelu silu hardtanh
    hardswish hardsigmoid leaky_relu elu softplus mish clamp clamp_min threshold
    clone softmax _softmax _log_softmax empty_like zeros_like ones_like rand_like
    threshold_backward hardtanh_backward sigmoid_backward tanh_backward
    gelu_backward silu_backward hardswish_backward leaky_relu_backward
"""
_POINTWISE = frozenset(_POINTWISE_NAMES.split())


def _pointwise(*args: Any, **kwargs: Any) -> Any:
    tensors = [a for a in args if isinstance(a, Tensor)]
    first = tensors[0]
    if kwargs.get("dtype") or kwargs.get("memory_format") not in (
        None,
        torch.contiguous_format,
        torch.preserve_format,
    ):
        return None
    if not first.is_floating_point() or not all(
        _contiguous_or_expanded(t) for t in tensors
    ):
        return None
    if any(t.dtype != first.dtype for t in tensors):
        return None
    if all(t.shape == first.shape for t in tensors):
        return _new(first, first.shape)
    return _broadcast(tensors)


def _broadcast(tensors: list[Tensor]) -> Tensor | None:
    """Return the output if the largest tensor is contiguous and has its shape."""
    largest = max(tensors, key=Tensor.numel)
    if not largest.is_contiguous():
        return None
    for tensor in tensors:
        if tensor.dim() > largest.dim():
            return None
        sides = zip(reversed(tensor.shape), reversed(largest.shape), strict=False)
        if any(side not in (1, whole) for side, whole in sides):
            return None
    return _new(largest, largest.shape)


def _convolution(x: Tensor, weight: Tensor, *settings: Any) -> Any:
    _, stride, padding, dilation, transposed, output_padding, groups = settings
    sides = len(stride)
    if not _contiguous(x, weight) or x.dim() != sides + 2 or x.dtype != weight.dtype:
        return None
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    if x.shape[1] != channels or not sides == len(padding) == len(dilation):
        return None  # torch raises the error
    if not transposed and weight.shape[0] % groups:
        return None
    out = []
    try:
        for i in range(sides):
            n, f = x.shape[2 + i], weight.shape[2 + i]
            s, p, d = stride[i], padding[i], dilation[i]
            if transposed:
                out.append(transposed_side(n, f, s, p, d, output_padding[i]))
            else:
                out.append(output_side(n, f, s, p, d))
    except GeometryError:
        if transposed:  # torch's meta rule accepts what its kernels reject
            raise
        return None
    out_channels = weight.shape[1] * groups if transposed else weight.shape[0]
    return _new(x, (x.shape[0], out_channels, *out))


def _batch_norm(
    x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, training: bool, *_: Any
) -> Any:
    if not _contiguous(x):
        return None
    statistics = x.shape[1] if training else 0
    return _new(x, x.shape), _new(x, (statistics,)), _new(x, (statistics,))


def _pool(
    x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
) -> Tensor | None:
    if not _contiguous(x) or x.dim() != 4:
        return None
    f, s = per_axis(kernel, 2), per_axis(stride or kernel, 2)
    p, d = per_axis(padding, 2), per_axis(dilation, 2)
    try:
        sides = [
            pooled_side(x.shape[2 + i], f[i], s[i], p[i], d[i], ceil) for i in (0, 1)
        ]
    except GeometryError:
        return None
    return _new(x, (*x.shape[:2], *sides))


def _max_pool(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any
) -> Any:
    dilation, ceil = rest[0] if rest else 1, len(rest) > 1 and rest[1]
    out = _pool(x, kernel, stride, padding, dilation, ceil)
    return None if out is None else (out, _new(x, out.shape, torch.int64))


def _average_pool(
    x: Tensor, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any
) -> Any:
    return _pool(x, kernel, stride, padding, 1, bool(rest and rest[0]))


def _adaptive(x: Tensor, sides: list[int]) -> Any:
    return _new(x, (*x.shape[:-2], *sides)) if _contiguous(x) else None


def _mean(
    x: Tensor, dims: list[int] | None, keep: bool = False, *, dtype: Any = None
) -> Any:
    if dtype or not dims or not x.is_meta or not x.is_floating_point():
        return None
    reduced = {d % x.dim() for d in dims}
    if keep:
        return _new(x, [1 if i in reduced else n for i, n in enumerate(x.shape)])
    return _new(x, [n for i, n in enumerate(x.shape) if i not in reduced])


def _cat(tensors: list[Tensor], dim: int = 0) -> Any:
    first = tensors[0]
    axis = dim % max(first.dim(), 1)
    shapes = {(t.dtype, t.shape[:axis], t.shape[axis + 1 :]) for t in tensors}
    if len(shapes) > 1 or not _contiguous(*tensors) or not first.dim():
        return None
    total = sum(t.shape[axis] for t in tensors)
    return _new(first, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _mm(a: Tensor, b: Tensor) -> Any:
    if a.shape[1] != b.shape[0] or a.dtype != b.dtype or not (a.is_meta and b.is_meta):
        return None
    return _new(a, (a.shape[0], b.shape[1]))


def _addmm(bias: Tensor, a: Tensor, b: Tensor, **scales: Any) -> Any:
    return _mm(a, b) if bias.shape[-1] == b.shape[1] else None


def _bmm(a: Tensor, b: Tensor) -> Any:
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1] or a.dtype != b.dtype:
        return None
    return _new(a, (a.shape[0], a.shape[1], b.shape[2]))


def _total(x: Tensor, **dtype: Any) -> Any:
    return _new(x, ()) if x.is_meta and x.is_floating_point() and not dtype else None


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Any, *rest: Any
) -> Any:
    return _gradients(x, (x.shape, weight.shape, bias), rest[-1])


def _batch_norm_backward(gradient: Tensor, x: Tensor, *rest: Any) -> Any:
    return _gradients(x, (x.shape, (x.shape[1],), (x.shape[1],)), rest[-1])


def _gradients(x: Tensor, shapes: tuple[Any, ...], needed: list[bool]) -> Any:
    """Return a tuple of gradients of given shapes; None if a gradient is not needed."""
    pairs = zip(shapes, needed, strict=True)
    return tuple([_new(x, n) if need and n is not None else None for n, need in pairs])


def _layer_norm(x: Tensor, shape: Any, weight: Any, bias: Any, epsilon: float) -> Any:
    if not _contiguous(x, weight, bias) or not x.is_floating_point():
        return None
    if any(t is not None and t.dtype != x.dtype for t in (weight, bias)):
        return None
    statistics = *x.shape[: x.dim() - len(shape)], *[1] * len(shape)
    return _new(x, x.shape), _new(x, statistics), _new(x, statistics)


def _layer_norm_backward(gradient: Tensor, x: Tensor, shape: Any, *rest: Any) -> Any:
    if not _contiguous(gradient, x):
        return None
    return _gradients(x, (x.shape, shape, shape), rest[-1])


def _attention(query: Tensor, *_: Any, **settings: Any) -> Any:
    batch, heads, queries, features = query.shape
    out = _new(query, (batch, queries, heads, features)).transpose(1, 2)
    return out, _new(query, (batch, queries, heads)).transpose(1, 2)


def _attention_backward(gradient: Tensor, *tensors: Any, **settings: Any) -> Any:
    shapes = [(t.shape[0], t.shape[2], t.shape[1], t.shape[3]) for t in tensors[:3]]
    return tuple([_new(gradient, shape).transpose(1, 2) for shape in shapes])


def _lstm(x: Tensor, *rest: Any) -> Any:
    states, units, trains = rest[4:6], rest[9], rest[-1]
    steps, batch, inputs = x.shape
    size = lstm_workspace(steps, batch, inputs, units) if trains else 0
    workspace = _new(x, (size,), torch.uint8)
    last = tuple([_new(x, state.shape) for state in states])
    return _new(x, (steps, batch, units)), *last, workspace


def _lstm_backward(*args: Any) -> Any:
    return tuple([_new(tensor, tensor.shape) for tensor in args[:7]])


def _like_second(gradient: Tensor, x: Tensor, *_: Any) -> Any:
    return _new(x, x.shape)


_RULES: dict[Any, Rule] = {
    aten.detach.default: _detached,
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten._adaptive_avg_pool2d.default: _adaptive,
    aten.mean.dim: _mean,
    aten.sum.dim_IntList: _mean,
    aten.sum.default: _total,
    aten.cat.default: _cat,
    aten.mm.default: _mm,
    aten.addmm.default: _addmm,
    aten.bmm.default: _bmm,
    aten.native_layer_norm.default: _layer_norm,
    aten.native_layer_norm_backward.default: _layer_norm_backward,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: (
        _attention_backward
    ),
    aten.mkldnn_rnn_layer.default: _lstm,
    aten.mkldnn_rnn_layer_backward.default: _lstm_backward,
    aten.convolution_backward.default: _convolution_backward,
    aten.native_batch_norm_backward.default: _batch_norm_backward,
    aten.max_pool2d_with_indices_backward.default: _like_second,
    aten.avg_pool2d_backward.default: _like_second,
    aten._adaptive_avg_pool2d_backward.default: _like_second,
}
