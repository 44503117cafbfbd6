"""Batch norm whose statistics are those of the whole batch, over all ranks.

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

from striate.engine.execution import match_layout

if TYPE_CHECKING:
    from striate.engine.distributed.group import RankGroup


@contextmanager
def sync_batch_norms(model: nn.Module, ranks: RankGroup) -> Iterator[None]:
    """Normalize by the whole batch meanwhile, while the network trains.

    Nothing of the network is replaced: names, weights and checkpoints stay.

    Args:
        model: Any network.
        ranks: All of which run every batch forward and back, each its own share.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.forward = partial(_forward, norm, ranks)  # type: ignore[method-assign]
    ranks.norms_shared = True
    try:
        yield
    finally:
        ranks.norms_shared = False
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm, ranks: RankGroup, x: Tensor) -> Tensor:
    if not norm.training or not ranks.together:
        return type(norm).forward(norm, x)
    count, mean, spread = _statistics(x, ranks)
    if norm.track_running_stats and count:
        _remember(norm, mean, spread / max(count - 1.0, 1.0))
    count = max(count, 1.0)
    variance = spread / count
    given = x, norm.weight, norm.bias, mean, variance, norm.eps, count, ranks
    out: Tensor = _Normalize.apply(*given)  # type: ignore[no-untyped-call]
    return out


def _statistics(x: Tensor, ranks: RankGroup) -> tuple[float, Tensor, Tensor]:
    """Return count, mean and sum of squared differences over all ranks' numbers.

    A rank whose images stand in for none of the batch adds nothing.
    """
    channels = x.shape[1]
    number = x.numel() // channels
    own = x.new_zeros(ranks.world, 2 * channels + 1, dtype=_exactly(x))
    if ranks.counts_in:
        # `torch.var_mean` takes ten times as long.
        mean, variance = torch.batch_norm_update_stats(x.detach(), None, None, 0.0)
        row = own[ranks.place.rank]
        row[0], row[1 : channels + 1] = float(number), mean
        row[channels + 1 :] = variance * number
    ranks.total(own, "the statistics of a batch norm")
    count = 0.0
    together = own.new_zeros(channels)
    spread = own.new_zeros(channels)
    for row in own:
        more = float(row[0])
        if not more:
            continue
        apart = row[1 : channels + 1] - together
        together = together + apart * (more / (count + more))
        spread = spread + row[channels + 1 :]
        spread = spread + apart.square() * (count * more / (count + more))
        count += more
    return count, together, spread


def _exactly(x: Tensor) -> torch.dtype:
    """Return the type of statistics: never half precision, which cannot even count."""
    return torch.promote_types(x.dtype, torch.float32)


def _remember(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert norm.num_batches_tracked is not None  # noqa: S101 - it tracks
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:  # a plain mean over all batches
        share = 1.0 / float(norm.num_batches_tracked)
    assert norm.running_mean is not None  # noqa: S101 - it tracks
    assert norm.running_var is not None  # noqa: S101 - it tracks
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)


def _line(
    x: Tensor,
    scale: Tensor,
    level: Tensor,
    other: Tensor | None = None,
    factor: Tensor | None = None,
) -> Tensor:
    """Return x · scale + level, and other · factor added, with numbers a channel."""
    if x.dtype != scale.dtype:  # half precision: products are of single precision
        made = _half_line(x, scale, level)
        if other is not None and factor is not None:
            made += _half_line(other, factor, torch.zeros_like(level))
        return made
    # Half the time of `F.batch_norm` with constants, which is the same map.
    shape = 1, -1, *[1] * (x.ndim - 2)
    made = torch.addcmul(level.view(shape), x, scale.view(shape))
    if other is not None and factor is not None:
        made.addcmul_(other, factor.view(shape))
    return made


def _half_line(x: Tensor, scale: Tensor, level: Tensor) -> Tensor:
    zero, one = torch.zeros_like(scale), torch.ones_like(scale)
    return F.batch_norm(x, zero, one, scale, level, False, 0.0, 0.0)


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
        ranks: RankGroup,
    ) -> Tensor:
        """Normalize and scale."""
        ctx.save_for_backward(x, gain, mean, variance)
        ctx.eps, ctx.count, ctx.ranks = eps, count, ranks
        scale = (variance + eps).rsqrt()
        scale = scale if gain is None else scale * gain
        level = -mean * scale
        return _line(x, scale, level if shift is None else level + shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """Return the slopes of x, gain and shift; those of x know all ranks' images.

        The cost must be a sum over images, not a mean of each rank's.
        """
        x, gain, mean, variance = ctx.saved_tensors
        counts_in = ctx.ranks.counts_in
        channels = x.shape[1]
        slope = match_layout(x, slope)
        # The two sums alone, as if the statistics were constants.
        statistics = mean, variance, None, None, False, ctx.eps, [False, True, True]
        _, by_gain, by_shift = torch.ops.aten.native_batch_norm_backward(
            slope, x, torch.ones_like(mean), *statistics
        )
        whole = torch.cat([by_shift, by_gain])
        whole = whole if counts_in else torch.zeros_like(whole)
        ctx.ranks.total(whole, "the slopes of a batch norm")
        mean_slope, mean_product = (whole / ctx.count).split(channels)
        scale = (variance + ctx.eps).rsqrt()
        factor = scale if gain is None else scale * gain
        if counts_in:
            # The statistics move with x: by an affine map of it.
            tilt = -factor * mean_product * scale
            back = _line(x, tilt, -factor * mean_slope - tilt * mean, slope, factor)
        else:
            back = torch.zeros_like(x)
        if gain is None:
            return back, None, None, None, None, None, None, None
        return back, by_gain, by_shift, None, None, None, None, None
