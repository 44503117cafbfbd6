"""Faster forward and backward on CPU for ReLU + max pooling, flatten and dropout.

- ReLU, then max pooling: here, the pool runs first, so that ReLU processes a quarter of
  the values. Max and ReLU commute exactly, and so do their gradients.
- Max pooling: if gradient and input have different memory layouts, torch uses a slow
  kernel and copies the large feature maps twice. Here, the small maps are copied once.
- Flatten: torch returns the gradient in another memory layout than the input. ReLU's
  kernel for mixed layouts is thirty times as slow. Here, both have the same layout.
- Dropout: torch draws a random number for each value, on one thread. Here, two random
  bytes are drawn for each value.

The network does not change: the modules use the faster functions only during a pass,
and layers with hooks run as usual.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import MethodType
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from striate.engine.execution_config import match_layout

_BITS = 16  # random bits for each value: the share dropped is exact to 1/131,072
_LEVELS = 1 << _BITS


class FusedModules:
    """Replaces `forward` of a network's modules by faster functions during a pass.

    Only torch's own modules are replaced, no subclasses.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
        >>> fused, x = FusedModules(model), torch.randn(1, 1, 6, 6)
        >>> with fused.patched():
        ...     y = model(x)
        >>> bool((y == model(x)).all()), "forward" in vars(model)
        (True, False)
    """

    def __init__(self, model: nn.Module, enabled: bool = True) -> None:
        self._patches = [
            (module, MethodType(forward, module))
            for module in (model.modules() if enabled else ())
            if (forward := _fused_forward(module)) and "forward" not in vars(module)
        ]

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Context manager in which the modules use the faster forward functions."""
        try:
            for module, forward in self._patches:
                module.__dict__["forward"] = forward
            yield
        finally:
            for module, _ in self._patches:
                module.__dict__.pop("forward", None)


def _fused_forward(module: nn.Module) -> Any:
    if _is_chain(module) and any(_pairs(module)):
        return _sequential_forward
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return _flatten_forward
    if type(module) is nn.Dropout and not module.inplace and 0 < module.p < 1:
        return _dropout_forward
    return None


def _is_chain(module: nn.Module) -> TypeGuard[nn.Sequential]:
    """Return whether a module runs its layers in sequence, like `nn.Sequential`."""
    return getattr(type(module), "forward", None) is nn.Sequential.forward


def _pairs(layers: nn.Sequential) -> list[bool]:
    """Return, for each layer, whether the layer is a ReLU followed by a max pool."""
    return [_is_pair(layer, after) for layer, after in pairwise([*layers, None])]


def _is_pair(relu: nn.Module | None, pool: nn.Module | None) -> bool:
    return (
        type(relu) is nn.ReLU
        and type(pool) is nn.MaxPool2d
        and not pool.return_indices
        and not (_has_hooks(relu) or _has_hooks(pool))
    )


def _has_hooks(module: nn.Module) -> bool:
    hooks = module._forward_hooks, module._forward_pre_hooks
    return any(hooks) or any((module._backward_hooks, module._backward_pre_hooks))


def _sequential_forward(self: nn.Sequential, x: Tensor) -> Tensor:
    """Run an `nn.Sequential`, but swap each ReLU with a directly following max pool."""
    layers, pairs = list(self), _pairs(self)
    if torch_module._global_forward_hooks:  # each layer has to run by itself
        out: Tensor = nn.Sequential.forward(self, x)  # type: ignore[no-untyped-call]
        return out
    for i, layer in enumerate(layers):
        if i and pairs[i - 1]:
            x = _pool_then_relu(x, layer) if _is_cpu_map(x) else layer(x)
        elif not (pairs[i] and _is_cpu_map(x)):
            x = layer(x)
    return x


def _is_cpu_map(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.ndim == 4


def _pool_then_relu(x: Tensor, pool: nn.Module) -> Tensor:
    window = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    apply: Any = _PoolThenRelu.apply
    out: Tensor = apply(x, (*window, pool.ceil_mode))
    return out


class _PoolThenRelu(torch.autograd.Function):
    """Autograd function relu(max_pool(x)); the gradient has the memory layout of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, settings: tuple[Any, ...]) -> Tensor:
        """Apply max pooling, then ReLU in place.

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
        """Pass the gradient to the maximum of each window, for positive maxima."""
        x, out, index = ctx.saved_tensors
        # In another layout torch takes its slow kernel, and copies its result twice.
        aten: Any = torch.ops.aten
        relu_gradient = aten.threshold_backward(match_layout(x, gradient), out, 0)
        backward = aten.max_pool2d_with_indices_backward
        pool_gradient = backward(relu_gradient, x, *ctx.settings, index)
        return pool_gradient, None


def _both(side: Any) -> list[int]:
    return [side, side] if isinstance(side, int) else list(side)


def _flatten_forward(self: nn.Flatten, x: Tensor) -> Tensor:
    """Flatten x; the gradient has the memory layout of x."""
    if not (_is_cpu_map(x) and x.is_contiguous(memory_format=torch.channels_last)):
        return x.flatten(1)
    apply: Any = _Flatten.apply
    out: Tensor = apply(x)
    return out


class _Flatten(torch.autograd.Function):
    """Autograd function x.flatten(1) with a channels-last gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Flatten all dimensions except the first.

        Shapes:
            (N, C, H, W) → (N, C·H·W)
        """
        ctx.shape = x.shape
        return x.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Reshape the gradient to the shape and memory layout of the input."""
        maps = gradient.view(ctx.shape)
        return maps.contiguous(memory_format=torch.channels_last)


def _dropout_forward(self: nn.Dropout, x: Tensor) -> Tensor:
    """Apply dropout with random numbers that are drawn faster than torch's."""
    if not self.training or x.device.type != "cpu":
        return F.dropout(x, self.p, self.training)
    return x * dropout_factors(x, self.p)


def dropout_factors(x: Tensor, p: float) -> Tensor:
    """Draw dropout factors: 0 with probability p, else 1/(1 − p).

    Each 64-bit random number from torch's generator gives four factors. The factors get
    shape, dtype and layout of x. p is rounded to a multiple of 1/65,536.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> factors = dropout_factors(torch.empty(10_000), 0.25)
        >>> sorted(set(factors.tolist())), round(factors.mean().item(), 1)
        ([0.0, 1.3333333730697632], 1.0)
    """
    count = x.numel()
    random_words = torch.empty(-(-count * _BITS // 64), dtype=torch.int64)
    random_bits = random_words.random_(-(1 << 63), None).view(torch.int16)[:count]
    level = min(max(round(p * _LEVELS), 1), _LEVELS - 1)
    factors = torch.empty_like(x, requires_grad=False)
    flat = factors.as_strided((count,), (1,))
    torch.ge(random_bits, level - _LEVELS // 2, out=flat)
    flat.mul_(_LEVELS / (_LEVELS - level))
    return factors
