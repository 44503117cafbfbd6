"""MACs (multiply-adds) of each torch operation, from its shapes. 1 MAC = 2 FLOPs.

Convolutions and matrix products count. Element-wise arithmetic, pooling, normalization,
resampling and data movement count as zero, as is usual in the field. An operation with
arithmetic but no rule here is reported as not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from striate.audit.quantized import is_quantized_operation, packed_macs

aten = torch.ops.aten
Rule = Callable[[tuple[Any, ...], tuple[int, ...]], int]


def count_macs(func: Any, args: tuple[Any, ...], shape: tuple[int, ...]) -> int | None:
    """Return the MACs (multiply-adds) of one operation; None if there is no rule.

    Example:
        >>> a, b = torch.empty(2, 3), torch.empty(3, 5)
        >>> count_macs(aten.mm.default, (a, b), (2, 5))
        30
        >>> count_macs(aten.relu.default, (a,), ())
        0
    """
    rule = _RULES.get(func)
    if rule is not None:
        return rule(args, shape)
    if func.namespace == "quantized":
        return packed_macs(args, shape) if is_quantized_operation(func) else 0
    return 0 if _has_no_macs(func) else None


def _convolution(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """MACs of a convolution: outputs (transposed: inputs) × kernel × C_in/groups."""
    x, weight, transposed = args[0], args[1], args[6]
    positions = x.numel() if transposed else prod(shape)
    return int(positions * prod(weight.shape[1:]))


def _matmul(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """MACs of the product of the last two tensors: (n×k)·(k×m) takes n·k·m."""
    factor = [arg for arg in args if isinstance(arg, Tensor)][-2]
    return int(prod(shape) * factor.shape[-1])


def _matrix_vector(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    return int([arg for arg in args if isinstance(arg, Tensor)][-2].numel())


def _attention(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """MACs of attention: queries × keys, then attention weights × values."""
    query, key, value = args[:3]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(pairs * (query.shape[-1] + value.shape[-1]))


def _distances(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """MACs of pairwise distances: one MAC per pair of vectors and vector element."""
    return int(prod(shape) * args[0].shape[-1])


def _lstm(args: tuple[Any, ...], shape: tuple[int, ...]) -> int:
    """MACs of an LSTM layer: per step, input and state by the weights of four gates."""
    x, inputs, states = args[:3]
    return int(prod(x.shape[:2]) * (inputs.numel() + states.numel()))


_RULES: dict[Any, Rule] = {
    aten.convolution.default: _convolution,
    **dict.fromkeys((aten.mm.default, aten.addmm.default), _matmul),
    **dict.fromkeys((aten.bmm.default, aten.baddbmm.default), _matmul),
    **dict.fromkeys((aten.mv.default, aten.addmv.default), _matrix_vector),
    aten.dot.default: _matrix_vector,
    aten._cdist_forward.default: _distances,
    aten._euclidean_dist.default: _distances,
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_fused_attention_overrideable.default: _attention,
    aten.mkldnn_rnn_layer.default: _lstm,
}


@cache
def _has_no_macs(func: Any) -> bool:
    name = str(func.overloadpacket.__name__)
    plain = name.rstrip("_") or name
    if torch.Tag.pointwise in func.tags or func.is_view or plain in _NO_MACS:
        return True
    return plain.startswith(("new_", "adaptive_", "_adaptive_", "upsample_", "random"))


_DATA_MOVEMENT = """
    empty empty_strided empty_like zeros zeros_like ones ones_like full full_like
    rand rand_like randn randn_like arange linspace eye scalar_tensor lift_fresh
    clone copy _to_copy contiguous detach _unsafe_view reshape cat stack split
    split_with_sizes unbind repeat roll flip index index_select index_put gather
    scatter embedding where constant_pad_nd reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d pixel_shuffle pixel_unshuffle
    channel_shuffle masked_fill fill zero tril triu topk sort argsort argmax argmin
    max min one_hot bernoulli normal uniform native_dropout im2col col2im resize set
    t transpose squeeze unsqueeze unsafe_split unsafe_split_with_sizes unsafe_chunk
    swapaxes swapdims permute_copy view_copy expand_copy slice_scatter select_scatter
    index_add index_copy index_fill masked_scatter scatter_add scatter_reduce take
    take_along_dim nonzero unique_consecutive sort_stable native_channel_shuffle
    quantize_per_tensor quantize_per_channel dequantize _make_per_tensor_quantized
    replication_pad3d reflection_pad3d randperm randint bincount searchsorted
    bucketize meshgrid affine_grid_generator alias fill_diagonal diag_embed
"""
_POOLING_AND_NORMS = """
    max_pool2d_with_indices max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d
    mean sum amax amin var std var_mean prod any all cumsum cumprod logsumexp median
    nansum nanmedian kthvalue mode fractional_max_pool2d max_unpool2d
    grid_sampler_2d grid_sampler_2d_cpu cummax cummin logcumsumexp
    _native_batch_norm_legit _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional _fused_rms_norm
    linalg_vector_norm norm native_batch_norm native_layer_norm native_group_norm
    _softmax _log_softmax _safe_softmax
"""
# Element-wise too, though torch does not tag them, or not their in-place form.
_ACTIVATIONS = (
    "hardswish mish gelu prelu _prelu_kernel glu log_sigmoid_forward rrelu_with_noise"
)
_NO_MACS = frozenset(f"{_DATA_MOVEMENT} {_POOLING_AND_NORMS} {_ACTIVATIONS}".split())
