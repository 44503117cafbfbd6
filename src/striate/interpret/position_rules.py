"""Rules: which image row or column an output value of a torch operation stands for.

A convolution output stands for the center of its window, and a row of a matrix product
for the position of its first factor: in attention, this is the query. A value that
depends on most of the image has no position, which is written as NaN. Operations that
move values, such as `permute`, move the positions too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

_WHOLE = 0.55  # share of the image: a sum over a larger range has no position


@dataclass(frozen=True)
class StepContext:
    """One operation of a forward pass, for the rule of one image axis."""

    func: Any  # the torch operation
    outputs: tuple[Tensor, ...]
    axis: int  # 0 for rows, 1 for columns
    side: int  # number of rows or columns of the image


Rule = Callable[[StepContext, Any, Any], Sequence[Tensor]]


def contract(part: Tensor, axis: int, side: int) -> Tensor:
    """Return the position of a sum over an axis: the mean, or NaN for a wide range.

    Example:
        >>> part = torch.tensor([[2.0, 3.0], [0.0, 9.0]])
        >>> contract(part, 1, side=10).tolist()
        [[2.5], [nan]]
    """
    if part.shape[axis] and (part.stride(axis) == 0 or part.shape[axis] == 1):
        return part.narrow(axis, 0, 1)  # equal along this axis
    low = part.nan_to_num(nan=math.inf).amin(axis, keepdim=True)
    high = part.nan_to_num(nan=-math.inf).amax(axis, keepdim=True)
    mean = part.nanmean(axis, keepdim=True)
    return torch.where(high - low > _WHOLE * side, math.nan, mean)


def nearest_of(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of element-wise operations: the position of the first input that has one."""
    shape = step.outputs[0].shape
    parts = [
        item.expand(shape)
        for item in tree_leaves((args, kwargs))
        if isinstance(item, Tensor) and item.dtype == torch.float32
    ]
    result = parts[0]
    for part in parts[1:]:
        result = _filled(result, part)
    return [result] * len(step.outputs)


def _filled(part: Tensor, other: Tensor) -> Tensor:
    """Return positions, with those of another tensor where the first has none."""
    unknown = first_of_repeats(part).isnan()
    if not unknown.any():
        return part
    return other if unknown.all() else torch.where(part.isnan(), other, part)


def first_of_repeats(part: Tensor) -> Tensor:
    """Return a tensor with size 1 along the axes that `expand` has repeated.

    Example:
        >>> first_of_repeats(torch.zeros(2, 1).expand(2, 5)).shape
        torch.Size([2, 1])
    """
    for axis, stride in enumerate(part.stride()):
        if stride == 0 and part.shape[axis]:
            part = part.narrow(axis, 0, 1)
    return part


def _same(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of operations that keep the shape of their first input."""
    return [args[0]]


def _copied(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of a write into a tensor: the positions of the written values."""
    return [_filled(args[1].expand(step.outputs[0].shape), args[0])]


def _moved(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of an operation that moves values: move the positions."""
    results = tree_leaves(step.func(*args, **kwargs))
    return [result for result in results if isinstance(result, Tensor)]


def _reshaped(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    return [args[0].reshape(step.outputs[0].shape)]


def _padded(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    return [F.pad(args[0], args[1], value=math.nan)]


def _halved(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of a gated linear unit, which multiplies the two halves of an axis."""
    axis = args[1] if len(args) > 1 else -1
    return [args[0].chunk(2, axis)[0]]


def _product(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of matrix products: the position of the row, or else of the column."""
    first, second = args[-2:]
    rows = contract(first, first.ndim - 1, step.side)
    columns = contract(second, second.ndim - 2, step.side)
    shape = step.outputs[0].shape
    return [_filled(rows.expand(shape), columns.expand(shape))]


def _linear(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    part = contract(args[0], args[0].ndim - 1, step.side)
    return [part.expand(step.outputs[0].shape)]


def _attention(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of fused attention: the position of the query."""
    part = contract(args[0], args[0].ndim - 1, step.side)
    return [part.expand(step.outputs[0].shape)]


def _reduced(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of sums, means and maxima over some axes."""
    part: Tensor = args[0]
    dims = next((a for a in args[1:] if isinstance(a, list | tuple)), None)
    if dims is None:
        dims = [a for a in args[1:] if isinstance(a, int)][:1]
    if not dims:
        raise ValueError("a reduction over all values has no position")
    for dim in dims:
        part = contract(part, dim % part.ndim, step.side)
    shape = [1 if i in {d % part.ndim for d in dims} else n
             for i, n in enumerate(part.shape)]  # fmt: skip
    return [part.expand(shape).reshape(step.outputs[0].shape)]


def _convolution(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of a convolution: the center of the window."""
    part, weight, _, stride, padding, dilation, transposed, _, _ = args
    part = contract(part, 1, step.side)
    out = step.outputs[0]
    if part.ndim == 4 and part.isnan().all() and min(part.shape[2:]) > 1:
        # Two-dimensional by definition: a grid over the image, even after an operation
        # without a rule.
        part = _even_grid(step, part)
    if transposed:
        result = _resized(part, out.shape[2:], "linear")
    else:
        kernel = weight.shape[2:]
        result = _window_centers(part, kernel, stride, padding, dilation, out.shape[2:])
    return [result.expand(out.shape)]


def _even_grid(step: StepContext, part: Tensor) -> Tensor:
    axis = step.axis + 2
    count = part.shape[axis]
    line = (torch.arange(count) + 0.5) * step.side / count - 0.5
    shape = [1, 1, 1, 1]
    shape[axis] = count
    return line.view(shape).expand(part.shape)


def _pooled(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of pooling windows: the center of the window."""
    settings = dict(enumerate(args))
    part, kernel = args[0], args[1]
    stride = settings.get(2) or kernel
    padding, dilation = settings.get(3) or [0], [1]
    if step.func.overloadpacket.__name__.startswith("max"):
        dilation = settings.get(4) or [1]
    sides = step.outputs[0].shape[-2:]
    if max(sides) == 1 < max(part.shape[-2:]):  # global pooling
        return [torch.full((), math.nan).expand(step.outputs[0].shape)]
    planes = first_of_repeats(part)
    lead = planes.shape[:-2]
    planes = planes.expand(*lead, *part.shape[-2:]).reshape(-1, 1, *part.shape[-2:])
    centers = _window_centers(planes, kernel, stride, padding, dilation, sides)
    return [centers.view(*lead, *sides).expand(step.outputs[0].shape)]


def _window_centers(
    part: Tensor,  # (N, 1, …): positions of the inputs
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    sides: Sequence[int],  # sizes of the output
) -> Tensor:
    """Return the mean position of the central one or two inputs of each window."""
    for axis, size in enumerate(kernel):
        step, pad, spread = (
            values[min(axis, len(values) - 1)] for values in (stride, padding, dilation)
        )
        starts = torch.arange(sides[axis]) * step - pad
        taps = {(size - 1) // 2, size // 2}
        lines = [_line(part, 2 + axis, starts + tap * spread) for tap in taps]
        part = torch.stack(lines).mean(0)
    return part


def _line(part: Tensor, axis: int, at: Tensor) -> Tensor:
    """Return the positions at indices of an axis; outside, they continue evenly."""
    count = part.shape[axis]
    inside = at.clamp(0, count - 1)
    line = part.index_select(axis, inside)
    if torch.equal(inside, at) or count == 1:
        return line
    ends = part.narrow(axis, 0, 1), part.narrow(axis, count - 1, 1)
    shape = [1] * part.ndim
    shape[axis] = len(at)
    return line + (at - inside).view(shape) * (ends[1] - ends[0]) / (count - 1)


def _adaptive(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    """Rule of adaptive pooling; a cell of most of the image has no position."""
    part, sides = args[0].contiguous(), step.outputs[0].shape[-2:]
    size = (sides[0], sides[1])
    mean = F.adaptive_avg_pool2d(part, size)
    high = F.adaptive_max_pool2d(part.nan_to_num(-math.inf), size)
    low = -F.adaptive_max_pool2d(-part.nan_to_num(math.inf), size)
    return [torch.where(high - low > _WHOLE * step.side, math.nan, mean)]


def _upsampled(step: StepContext, args: Any, kwargs: Any) -> Sequence[Tensor]:
    nearest = "nearest" in step.func.overloadpacket.__name__
    mode = "nearest" if nearest else "linear"
    return [_resized(args[0], step.outputs[0].shape[2:], mode)]


def _resized(part: Tensor, sides: Sequence[int], mode: str) -> Tensor:
    planes = first_of_repeats(part)
    planes = planes.expand(*planes.shape[:2], *part.shape[2:]).contiguous()
    if mode == "linear":
        mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[part.ndim]
    out = F.interpolate(planes, list(sides), mode=mode)
    return out.expand(*part.shape[:2], *sides)


_SAME = """
    _to_copy to clone contiguous detach alias lift_fresh native_layer_norm
    native_group_norm native_batch_norm _native_batch_norm_legit _softmax _log_softmax
    _native_batch_norm_legit_no_training _batch_norm_with_update cudnn_batch_norm
    _safe_softmax cumsum native_dropout _fused_rms_norm rms_norm _prelu_kernel prelu
    gelu silu hardswish hardsigmoid mish elu celu selu leaky_relu hardtanh softplus
    relu relu6 logit special_logit
"""
_MOVES = """
    t transpose permute expand squeeze unsqueeze slice select flip roll pixel_shuffle
    pixel_unshuffle channel_shuffle native_channel_shuffle cat stack split unbind chunk
    unsafe_split unsafe_chunk split_with_sizes unsafe_split_with_sizes unfold diagonal
    repeat index index_select gather reflection_pad2d replication_pad2d rot90 movedim
    numpy_T swapaxes narrow
"""
_REDUCTIONS = """
    mean sum amax amin max min logsumexp linalg_vector_norm norm var std var_mean
"""
_ATTENTION = """
    _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention
    _scaled_dot_product_attention_math _scaled_dot_product_efficient_attention
    _scaled_dot_product_cudnn_attention scaled_dot_product_attention
"""
_UPSAMPLING = """
    upsample_nearest2d _upsample_nearest_exact2d upsample_bilinear2d upsample_bicubic2d
    _upsample_bilinear2d_aa _upsample_bicubic2d_aa
"""
RULES: dict[str, Rule] = {
    **dict.fromkeys(_SAME.split(), _same),
    **dict.fromkeys(_MOVES.split(), _moved),
    **dict.fromkeys(["view", "_unsafe_view", "reshape", "_reshape_alias"], _reshaped),
    **dict.fromkeys(["mm", "addmm", "bmm", "baddbmm"], _product),
    **dict.fromkeys(_REDUCTIONS.split(), _reduced),
    **dict.fromkeys(_ATTENTION.split(), _attention),
    **dict.fromkeys(_UPSAMPLING.split(), _upsampled),
    **dict.fromkeys(["max_pool2d_with_indices", "avg_pool2d", "max_pool2d"], _pooled),
    **dict.fromkeys(["_adaptive_avg_pool2d", "adaptive_max_pool2d"], _adaptive),
    "convolution": _convolution,
    "linear": _linear,
    "constant_pad_nd": _padded,
    "copy": _copied,
    "glu": _halved,
}
