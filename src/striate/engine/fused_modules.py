"""The same network, sooner: what torch computes the long way round on a processor.

- ReLU, then max pooling: the pool comes first, and ReLU sees a quarter of the values.
  Max and ReLU commute, to the bit, and so do their gradients.
- A pool's gradient in another layout than its input: torch takes a slow kernel and
  copies the large maps twice; here the small ones are copied once.
- A flattened map's gradient, likewise: it comes back in the other layout, and ReLU's
  slow kernel for mixed layouts takes thirty times as long as the right one.
- Dropout: torch draws a random number a value, on one thread; here two random bytes.

The network itself is as it was before and after a step: stand-ins act while it runs,
as attributes of its own, and each layer runs by itself where hooks watch it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from striate.engine.execution import match_layout

_BITS = 16  # of chance a value: a share dropped is off by 1/131,072 at most
_LEVELS = 1 << _BITS


class FusedModules:
    """Lends a network its quicker ways, for as long as one forward pass.

    Args:
        model: Any network; layers of exactly torch's own types are looked for.
        wanted: Lend them at all.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
        >>> quick, x = FusedModules(model), torch.randn(1, 1, 6, 6)
        >>> with quick.lent():
        ...     y = model(x)
        >>> bool((y == model(x)).all()), "forward" in vars(model)
        (True, False)
    """

    def __init__(self, model: nn.Module, wanted: bool = True) -> None:
        self._ways = [
            (module, MethodType(way, module))
            for module in (model.modules() if wanted else ())
            if (way := _way(module)) and "forward" not in vars(module)
        ]

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Run the network in the quicker ways meanwhile."""
        try:
            for module, way in self._ways:
                module.__dict__["forward"] = way
            yield
        finally:
            for module, _ in self._ways:
                module.__dict__.pop("forward", None)


def _way(module: nn.Module) -> Any:
    if type(module) is nn.Sequential and any(_pairs(module)):
        return _in_turn
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return _flattened
    if type(module) is nn.Dropout and not module.inplace and 0 < module.p < 1:
        return _dropped
    return None


def _pairs(layers: nn.Sequential) -> list[bool]:
    """Say of each layer whether it and the next are a ReLU and a max pool."""
    held = [*layers, None]
    return [_is_pair(one, other) for one, other in pairwise(held)]


def _is_pair(relu: nn.Module | None, pool: nn.Module | None) -> bool:
    return (
        type(relu) is nn.ReLU
        and type(pool) is nn.MaxPool2d
        and not pool.return_indices
        and not (_watched(relu) or _watched(pool))
    )


def _watched(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks
    return any(hooks) or any((module._backward_hooks, module._backward_pre_hooks))


def _in_turn(self: nn.Sequential, x: Tensor) -> Tensor:
    """Run a sequence with each ReLU behind the pool that follows it."""
    layers, pairs = list(self), _pairs(self)
    if torch_module._global_forward_hooks:  # someone follows each layer
        return _plainly(self, x)
    for i, layer in enumerate(layers):
        if i and pairs[i - 1]:
            x = _pooled_then_rectified(x, layer) if _whole(x) else layer(x)
        elif not (pairs[i] and _whole(x)):
            x = layer(x)
    return x


def _plainly(self: nn.Sequential, x: Tensor) -> Tensor:
    for layer in self:
        x = layer(x)
    return x


def _whole(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.ndim == 4


def _pooled_then_rectified(x: Tensor, pool: nn.Module) -> Tensor:
    settings = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    apply: Any = _PoolThenRelu.apply
    out: Tensor = apply(x, *settings, pool.ceil_mode)
    return out


class _PoolThenRelu(torch.autograd.Function):
    """relu(max_pool(x)), whose gradient stays in the layout of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *settings: Any) -> Tensor:
        """Pool, then rectify in place.

        Shapes:
            (N, C, H, W) → (N, C, H', W')
        """
        kernel, stride, padding, dilation, ceil = settings
        ctx.settings = (*map(_both, (kernel, stride, padding, dilation)), ceil)
        out: Tensor
        out, index = torch.ops.aten.max_pool2d_with_indices(x, *ctx.settings)
        out.clamp_min_(0)
        ctx.save_for_backward(x, out, index)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Send a gradient to the strongest of each window, where it is positive."""
        x, out, index = ctx.saved_tensors
        # In another layout torch takes its slow kernel, and copies its result twice.
        aten: Any = torch.ops.aten
        laid = aten.threshold_backward(match_layout(x, gradient), out, 0)
        sent = aten.max_pool2d_with_indices_backward(laid, x, *ctx.settings, index)
        return sent, *(None,) * len(ctx.settings)


def _both(side: Any) -> list[int]:
    return [side, side] if isinstance(side, int) else list(side)


def _flattened(self: nn.Flatten, x: Tensor) -> Tensor:
    """Flatten, and send the gradient back in the layout of x."""
    if not (_whole(x) and x.is_contiguous(memory_format=torch.channels_last)):
        return x.flatten(1)
    apply: Any = _Flatten.apply
    out: Tensor = apply(x)
    return out


class _Flatten(torch.autograd.Function):
    """x.flatten(1) of channels-last maps, whose gradient is channels-last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Flatten.

        Shapes:
            (N, C, H, W) → (N, C·H·W)
        """
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Give every position its gradient."""
        whole = gradient.view(ctx.shape)
        return whole.contiguous(memory_format=torch.channels_last)


def _dropped(self: nn.Dropout, x: Tensor) -> Tensor:
    """Drop a share of the values, and let the others make up for it."""
    if not self.training or x.device.type != "cpu":
        return F.dropout(x, self.p, self.training)
    return x * dropout_factors(x, self.p)


def dropout_factors(x: Tensor, share: float) -> Tensor:
    """Draw factors of dropout from torch's generator: 0 for a share, 1/(1 − share).

    Of each random word of 64 bits four values are served.

    Args:
        x: Whose shape, type and layout the factors have.
        share: Dropped, rounded to 1/65,536; the factor makes up for what is.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> factors = dropout_factors(torch.empty(10_000), 0.25)
        >>> sorted(set(factors.tolist())), round(factors.mean().item(), 1)
        ([0.0, 1.3333333730697632], 1.0)
    """
    count = x.numel()
    words = torch.empty(-(-count * _BITS // 64), dtype=torch.int64)
    drawn = words.random_(-(1 << 63), None).view(torch.int16)[:count]
    level = min(max(round(share * _LEVELS), 1), _LEVELS - 1)
    factors = torch.empty_like(x, requires_grad=False)
    flat = factors.as_strided((count,), (1,))
    torch.ge(drawn, level - _LEVELS // 2, out=flat).mul_(_LEVELS / (_LEVELS - level))
    return factors
