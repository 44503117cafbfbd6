"""Local response normalization (Krizhevsky, Sutskever, Hinton 2012, section 3.3).

    y_i = x_i · d_i^−β,   d_i = k + α · Σ x_j²  over the n channels around i

The sum is as in the paper; torch's own layer divides α by n. Backward, with the window
reversed: dx_j = g_j · d_j^−β − 2αβ · x_j · Σ_i g_i x_i d_i^(−β−1). Only x is saved for
the backward pass; d is computed again, which is faster than reading d from memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.nn import functional as F

from striate.core.errors import SettingError

# The computation runs in chunks of this many values, so that about twenty elementwise
# steps find their operands in the processor's cache. With smaller chunks threads wait
# for each other more often than they work; larger ones do not fit the cache.
CHUNK = 1 << 20


class LRN(nn.Module):
    """Divide each value by a power of the sum of squares over neighboring channels.

    Args:
        size: n, the number of channels in the sum, ⌊n/2⌋ of them before channel i.
        alpha: α, not divided by n.
        beta: β.
        k: k.

    Shapes:
        (N, C, *) → the same

    Raises:
        SettingError: The quotient is not defined for these values.

    Example:
        >>> layer = LRN()
        >>> round(layer(torch.ones(1, 1, 1, 1)).item(), 6)
        0.594581
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
    ) -> None:
        super().__init__()
        if size < 1 or alpha < 0 or k <= 0:
            what = f"needs size ≥ 1, alpha ≥ 0, k > 0; got {size}, {alpha}, {k}"
            raise SettingError(what, where="LRN")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each value across channels."""
        return lrn(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


def lrn(
    x: Tensor, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> Tensor:
    """Return the local response normalization of x (see `LRN`)."""
    # Compilers and exporters fuse the plain formula by themselves.
    if torch.compiler.is_compiling():
        return plain(x, size, alpha, beta, k)
    y: Tensor = _LRN.apply(x, size, alpha, beta, k)  # type: ignore[no-untyped-call]
    return y


def plain(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """Compute LRN by torch operations, on any device and for any derivative order.

    Example:
        >>> x = torch.rand(2, 7, 3, 3)
        >>> torch.allclose(plain(x, 5, 0.1, 0.75, 2.0), lrn(x, 5, 0.1, 0.75, 2.0))
        True
    """
    margin = (0, 0) * (x.dim() - 2) + (size // 2, size - 1 - size // 2)
    squares = F.pad(x.square(), margin)
    total = squares.narrow(1, 0, x.shape[1])
    for i in range(1, size):
        total = total + squares.narrow(1, i, x.shape[1])
    return x * _power(k + alpha * total, beta)


def _power(d: Tensor, beta: float) -> Tensor:
    """Compute d^−β; β = ¾ needs only two square roots, much faster than `pow`."""
    if beta == 0.75:
        root = d.rsqrt()
        return root * root.sqrt()
    return d.pow(-beta)


class _LRN(Function):
    """LRN with a custom backward pass; on a CPU, in chunks that fit the cache."""

    @staticmethod
    def forward(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        compute = _forward if _has_cpu_kernel(x) else plain
        return compute(x, size, alpha, beta, k)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, size, alpha, beta, k = inputs
        ctx.settings = {"size": size, "alpha": alpha, "beta": beta, "k": k}
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (x,), (g,) = ctx.saved_tensors, gradients
        second_order = torch.is_grad_enabled()
        if _has_cpu_kernel(x) and not second_order:
            return _backward(x, g, **ctx.settings), *(None,) * 4
        with torch.enable_grad():
            x = x if second_order else x.detach().requires_grad_()
            y = plain(x, **ctx.settings)
            (dx,) = torch.autograd.grad(y, x, g, create_graph=second_order)
        return dx, *(None,) * 4


def _has_cpu_kernel(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _forward(x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    x = x.contiguous(memory_format=_layout(x))
    y = torch.empty_like(x)
    squares = _ChannelSums(size, size // 2)
    offset = x.new_tensor(k)
    for chunk, out in zip(_chunks(x), _chunks(y), strict=True):
        torch.mul(chunk, chunk, out=squares.inside(chunk))
        d = squares.total()
        torch.add(offset, d, alpha=alpha, out=d)
        torch.mul(chunk, squares.cut(squares.power(beta)), out=out)
    return y


def _backward(
    x: Tensor, g: Tensor, size: int, alpha: float, beta: float, k: float
) -> Tensor:
    x = x.contiguous(memory_format=_layout(x))
    g = g.contiguous(memory_format=_layout(x))
    dx = torch.empty_like(x)
    squares = _ChannelSums(size, size // 2)
    products = _ChannelSums(size, (size - 1) // 2)
    offset = x.new_tensor(k)
    for chunk, grad, out in zip(_chunks(x), _chunks(g), _chunks(dx), strict=True):
        torch.mul(chunk, chunk, out=squares.inside(chunk))
        d = squares.total()
        torch.add(offset, d, alpha=alpha, out=d)
        torch.mul(grad, squares.cut(squares.power(beta)), out=out)
        inside = products.inside(chunk)
        torch.mul(out, chunk, out=inside).div_(squares.cut(d))
        total = products.cut(products.total())
        out.addcmul_(chunk, total, value=-2 * alpha * beta)
    return dx


def _layout(x: Tensor) -> torch.memory_format:
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _chunks(x: Tensor) -> Iterator[Tensor]:
    """Yield views (outer, C, inner) of x in memory order, each of about CHUNK values.

    Channels-last memory is (N·H·W, C, 1) in this view, channels-first (N, C, H·W).
    """
    channels = x.shape[1]
    if _layout(x) is torch.channels_last:
        x = x.permute(0, 2, 3, 1).view(-1, channels, 1)
    else:
        x = x.view(x.shape[0], channels, math.prod(x.shape[2:]))
    outer = max(CHUNK // max(x[:1].numel(), 1), 1)
    cuts = max(-(-x[:1].numel() // CHUNK), 1)
    for samples in torch.split(x, outer):
        yield from samples.chunk(cuts, dim=2)


class _ChannelSums:
    """Sums over neighboring channels, computed by shifted additions on flat memory.

    The buffer has a margin of `size` − 1 channels of zeros beside the channels of a
    chunk. So a shift by one channel is one offset for the whole buffer; the values in
    the margin are removed at the end.
    """

    def __init__(self, size: int, before: int) -> None:
        self.size = size
        self.before = before
        self.buffer = torch.empty(0)
        self.sums = self.powers = self.roots = self.buffer
        self.channels = 0

    def inside(self, chunk: Tensor) -> Tensor:
        """Return the part of the buffer for a chunk's channels, as a writable view."""
        outer, self.channels, inner = chunk.shape
        shape = (outer, self.channels + self.size - 1, inner)
        if self.buffer.shape != shape:
            self.buffer = chunk.new_zeros(shape)
            self.sums = chunk.new_zeros(shape)
            self.powers, self.roots = chunk.new_empty(2, *shape).unbind()
        return self.buffer.narrow(1, self.before, self.channels)

    def total(self) -> Tensor:
        """Return channel sums of the whole buffer; sums in the margin are invalid."""
        flat, sums = self.buffer.view(-1), self.sums.view(-1)
        step = self.buffer.shape[2]
        length = flat.numel() - (self.size - 1) * step
        out = sums[:length]
        if self.size == 1:
            return self.sums.copy_(self.buffer)
        torch.add(flat[:length], flat[step : step + length], out=out)
        for i in range(2, self.size):
            out.add_(flat[i * step : i * step + length])
        return self.sums

    def power(self, beta: float) -> Tensor:
        """Return sums over neighboring channels to the power −β, as a new tensor."""
        if beta != 0.75:
            return torch.pow(self.sums, -beta, out=self.powers)
        torch.rsqrt(self.sums, out=self.powers)
        return self.powers.mul_(torch.sqrt(self.powers, out=self.roots))

    def cut(self, sums: Tensor) -> Tensor:
        """Return `sums` without the margin of the buffer."""
        return sums.narrow(1, 0, self.channels)
