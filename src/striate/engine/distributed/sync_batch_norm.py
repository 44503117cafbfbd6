"""Synchronized batch norm: statistics of the whole batch over all ranks.

Torch's own works on GPUs only. This one combines means and sums of squares as Chan,
Golub & LeVeque 1983 do, in the order of the ranks, so that all get the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from striate.engine.execution_config import match_layout

if TYPE_CHECKING:
    from striate.engine.distributed.group import RankGroup


@contextmanager
def sync_batch_norms(model: nn.Module, group: RankGroup) -> Iterator[None]:
    """Context manager: batch norms use statistics of the whole batch in training.

    No module is replaced: names, weights and checkpoints stay the same.

    Args:
        model: Any network.
        group: The ranks; each runs its share of every batch forward and backward.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_forward, norm, group)  # type: ignore[method-assign]
    group.norms_synced = True
    try:
        yield
    finally:
        group.norms_synced = False
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm, group: RankGroup, x: Tensor) -> Tensor:
    if not norm.training or not group.exchanging:
        return type(norm).forward(norm, x)
    count, mean, square_sum = _statistics(x, group)
    if norm.track_running_stats and count:
        _update_running(norm, mean, square_sum / max(count - 1.0, 1.0))
    count = max(count, 1.0)
    variance = square_sum / count
    arguments = x, norm.weight, norm.bias, mean, variance, norm.eps, count, group
    out: Tensor = _Normalize.apply(*arguments)  # type: ignore[no-untyped-call]
    return out


def _statistics(x: Tensor, group: RankGroup) -> tuple[float, Tensor, Tensor]:
    """Return count, mean and sum of squared differences over all ranks.

    A rank that runs blank images adds nothing.
    """
    channels = x.shape[1]
    number = x.numel() // channels
    rows = x.new_zeros(group.world_size, 2 * channels + 1, dtype=_statistics_dtype(x))
    if group.counts_images:
        # `torch.var_mean` takes ten times as long.
        mean, variance = torch.batch_norm_update_stats(x.detach(), None, None, 0.0)
        row = rows[group.rank_info.rank]
        row[0], row[1 : channels + 1] = float(number), mean
        row[channels + 1 :] = variance * number
    group.all_reduce(rows, "the statistics of a batch norm")
    count = 0.0
    mean_total = rows.new_zeros(channels)
    square_sum = rows.new_zeros(channels)
    for row in rows:
        row_count = float(row[0])
        if not row_count:
            continue
        delta = row[1 : channels + 1] - mean_total
        mean_total = mean_total + delta * (row_count / (count + row_count))
        weight = count * row_count / (count + row_count)
        square_sum = square_sum + row[channels + 1 :]
        square_sum = square_sum + delta.square() * weight
        count += row_count
    return count, mean_total, square_sum


def _statistics_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of statistics: never half precision, which is too coarse."""
    return torch.promote_types(x.dtype, torch.float32)


def _update_running(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.num_batches_tracked is not None  # noqa: S101 - it tracks
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # a plain mean over all batches
        momentum = 1.0 / float(norm.num_batches_tracked)
    assert norm.running_mean is not None  # noqa: S101 - it tracks
    assert norm.running_var is not None  # noqa: S101 - it tracks
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance, momentum)


def _affine(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    other: Tensor | None = None,
    factor: Tensor | None = None,
) -> Tensor:
    """Return x · scale + shift (+ other · factor), with one number for each channel."""
    if x.dtype != scale.dtype:  # half precision: the product is computed in fp32
        y = _half_affine(x, scale, shift)
        if other is not None and factor is not None:
            y += _half_affine(other, factor, torch.zeros_like(shift))
        return y
    # Half the time of `F.batch_norm` with constants, which is the same map.
    shape = 1, -1, *[1] * (x.ndim - 2)
    y = torch.addcmul(shift.view(shape), x, scale.view(shape))
    if other is not None and factor is not None:
        y.addcmul_(other, factor.view(shape))
    return y


def _half_affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    zero, ones = torch.zeros_like(scale), torch.ones_like(scale)
    return F.batch_norm(x, zero, ones, scale, shift, False, 0.0, 0.0)


class _Normalize(torch.autograd.Function):
    """(x − mean) / deviation · gain + shift, with statistics of all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: float,
        group: RankGroup,
    ) -> Tensor:
        """Normalize and scale."""
        ctx.save_for_backward(x, gain, mean, variance)
        ctx.eps, ctx.count, ctx.group = eps, count, group
        scale = (variance + eps).rsqrt()
        scale = scale if gain is None else scale * gain
        offset = -mean * scale
        return _affine(x, scale, offset if shift is None else offset + shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, gain and shift, with the images of all ranks.

        The loss must be a sum over images, not a mean of each rank's.
        """
        x, gain, mean, variance = ctx.saved_tensors
        counts_images = ctx.group.counts_images
        channels = x.shape[1]
        slope = match_layout(x, slope)
        # The two sums alone, as if the statistics were constants.
        statistics = mean, variance, None, None, False, ctx.eps, [False, True, True]
        _, by_gain, by_shift = torch.ops.aten.native_batch_norm_backward(
            slope, x, torch.ones_like(mean), *statistics
        )
        sums = torch.cat([by_shift, by_gain])
        sums = sums if counts_images else torch.zeros_like(sums)
        ctx.group.all_reduce(sums, "the gradients of a batch norm")
        mean_slope, mean_product = (sums / ctx.count).split(channels)
        scale = (variance + ctx.eps).rsqrt()
        factor = scale if gain is None else scale * gain
        if counts_images:
            # The statistics move with x: by an affine map of it.
            tilt = -factor * mean_product * scale
            back = _affine(x, tilt, -factor * mean_slope - tilt * mean, slope, factor)
        else:
            back = torch.zeros_like(x)
        if gain is None:
            return back, None, None, None, None, None, None, None
        return back, by_gain, by_shift, None, None, None, None, None
