"""NaN and infinity: seen before they reach the weights, and traced to their source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.hooks import trace_modules

INPUT = "the images"
LOSS = "the cost"


def gradients_are_finite(optimizer: Optimizer) -> bool:
    """Say whether every gradient is finite: one fused norm, one wait for the device.

    The norm of finite gradients can overflow, so that a norm that is none is looked
    into number by number.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in trained if p.grad is not None]
    if not gradients:
        return True
    norms = torch.stack(torch._foreach_norm(gradients))
    return bool(norms.sum().isfinite()) or all(map(is_finite, gradients))


def is_finite(tensor: Tensor) -> bool:
    """Say whether no number of a tensor is NaN or infinite."""
    return bool(tensor.isfinite().all())


def first_bad_layer(model: nn.Module, x: Tensor) -> tuple[str, tuple[int, ...]]:
    """Run a batch again and name the first layer whose answer is not finite.

    The caller sets mode and random state, and restores the buffers.

    Args:
        model: Any network.
        x: The batch.

    Returns:
        The dotted name, `the images` where they are not finite themselves, or '';
        and the positions in the batch that are bad there.

    Example:
        >>> class Root(nn.Module):
        ...     def forward(self, x):
        ...         return x.sqrt()
        >>> x = torch.tensor([[1.0], [-1.0]])
        >>> first_bad_layer(nn.Sequential(nn.Identity(), Root()), x)
        ('1', (1,))
    """
    if not is_finite(x):
        return INPUT, _bad_rows(x, len(x))
    found: list[tuple[str, tuple[int, ...]]] = []

    def leave(name: str, module: nn.Module, output: object) -> None:
        if not found:
            bad = [t for t in _tensors(output) if not is_finite(t)]
            if bad:
                found.append((name or type(module).__name__, _bad_rows(bad[0], len(x))))

    with torch.no_grad(), trace_modules(model, leave=leave):
        model(x)
    return found[0] if found else ("", ())


def first_bad_gradient(model: nn.Module, x: Tensor) -> str:
    """Name the parameter where the backward pass first went wrong: the last bad one.

    Gradients flow from the last layer that ran to the first, so of all bad ones that
    of the layer that ran last was there first.
    """
    order: dict[str, int] = {}

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        order[name] = len(order)

    with torch.no_grad(), trace_modules(model, enter=enter):
        model(x)
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not is_finite(parameter.grad)
    ]
    return max(bad, key=lambda name: order.get(name.rpartition(".")[0], -1), default="")


def _bad_rows(tensor: Tensor, count: int) -> tuple[int, ...]:
    if not tensor.ndim or len(tensor) != count:  # its rows are no images
        return ()
    sound = tensor.isfinite().reshape(count, -1).all(1)
    return tuple(torch.nonzero(~sound).flatten().tolist())


def _tensors(output: object) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return _tensors(tuple(output.values()))
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for item in output for tensor in _tensors(item)]
    return []


class BufferSnapshot:
    """Keeps a network's buffers from before a step, to put them back if it fails.

    Batch norm takes a batch into its running statistics during the forward pass,
    before anyone can know whether the batch is sound.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> buffers = BufferSnapshot(norm)
        >>> buffers.keep()
        >>> _ = norm(torch.full((2, 1), float("nan")))
        >>> buffers.put_back()
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if module._buffers]
        self._held: list[tuple[nn.Module, str, Tensor]] = []
        self._spare: list[Tensor] = []

    def keep(self) -> None:
        """Copy every buffer as it is now."""
        self._held = [
            (module, name, tensor)
            for module in self._modules
            for name, tensor in module._buffers.items()
            if tensor is not None
        ]
        now = [tensor for _, _, tensor in self._held]
        if [t.shape for t in now] != [t.shape for t in self._spare]:
            self._spare = [tensor.clone() for tensor in now]
        elif now:
            torch._foreach_copy_(self._spare, now)

    def put_back(self) -> None:
        """Give every buffer the numbers that `keep` saw."""
        for (module, name, tensor), kept in zip(self._held, self._spare, strict=True):
            module._buffers[name] = tensor.copy_(kept)
