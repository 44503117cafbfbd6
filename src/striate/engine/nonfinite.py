"""Detection of NaN and infinity before an update, and of the layer where they begin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from striate.core.hooks import trace_modules
from striate.core.layer_names import layer_name

BadLayer = tuple[str, tuple[int, ...]]  # name of the layer, rows of the bad images
INPUT = "the images"
LOSS = "the loss"


def gradients_are_finite(optimizer: Optimizer) -> bool:
    """Return whether all gradients are finite, with only one device synchronization.

    The norm of all gradients is checked. The norm of finite gradients can overflow, so
    every value is checked if the norm is not finite.
    """
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    gradients = [p.grad for p in trained if p.grad is not None]
    if not gradients:
        return True
    norms = torch.stack(torch._foreach_norm(gradients))
    return bool(norms.sum().isfinite()) or all(map(is_finite, gradients))


def is_finite(tensor: Tensor) -> bool:
    """Return whether no value of a tensor is NaN or infinite."""
    return bool(tensor.isfinite().all())


def first_bad_layer(model: nn.Module, x: Tensor) -> BadLayer:
    """Run a batch and return the first layer whose output is not finite.

    The caller sets the network's mode and the RNG state, and restores the buffers.

    Returns:
        The dotted name of the layer, `the images` if the input is not finite, or ''
        if all outputs are finite; and the indices of the bad images in the batch.

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
    bad_layers: list[BadLayer] = []

    def leave(name: str, module: nn.Module, output: object) -> None:
        if not bad_layers:
            bad = [t for t in _tensors(output) if not is_finite(t)]
            if bad:
                rows = _bad_rows(bad[0], len(x))
                bad_layers.append((name or type(module).__name__, rows))

    with torch.no_grad(), trace_modules(model, leave=leave):
        model(x)
    return bad_layers[0] if bad_layers else ("", ())


def first_bad_gradient(model: nn.Module, x: Tensor) -> str:
    """Return the name of the parameter that got a non-finite gradient first.

    The backward pass goes from the last layer to the first. So of all layers with a
    non-finite gradient, the layer that ran last in the forward pass got it first.
    """
    order: dict[str, int] = {}

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        order[name] = len(order)

    with torch.no_grad(), trace_modules(model, enter=enter):
        model(x)
    bad = [
        layer_name(name)
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not is_finite(parameter.grad)
    ]
    return max(bad, key=lambda name: order.get(name.rpartition(".")[0], -1), default="")


def _bad_rows(tensor: Tensor, count: int) -> tuple[int, ...]:
    if not tensor.ndim or len(tensor) != count:  # its rows are not images
        return ()
    finite = tensor.isfinite().reshape(count, -1).all(1)
    return tuple(torch.nonzero(~finite).flatten().tolist())


def _tensors(output: object) -> Iterable[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() else []
    if isinstance(output, dict):
        return _tensors(tuple(output.values()))
    if isinstance(output, Sequence) and not isinstance(output, str):
        return [tensor for item in output for tensor in _tensors(item)]
    return []


class BufferSnapshot:
    """Copy of a network's buffers (such as running means), restored if a step fails.

    Batch norm updates its running statistics during the forward pass, before a NaN or
    infinite value is detected.

    Example:
        >>> norm = nn.BatchNorm1d(1)
        >>> buffers = BufferSnapshot(norm)
        >>> buffers.save()
        >>> _ = norm(torch.full((2, 1), float("nan")))
        >>> buffers.restore()
        >>> norm.running_mean
        tensor([0.])
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if module._buffers]
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._copies: list[Tensor] = []

    def save(self) -> None:
        """Copy the current value of every buffer."""
        self._buffers = [
            (module, name, tensor)
            for module in self._modules
            for name, tensor in module._buffers.items()
            if tensor is not None
        ]
        tensors = [tensor for _, _, tensor in self._buffers]
        if [t.shape for t in tensors] != [t.shape for t in self._copies]:
            self._copies = [tensor.clone() for tensor in tensors]
        elif tensors:
            torch._foreach_copy_(self._copies, tensors)

    def restore(self) -> None:
        """Set every buffer to the value that `save` copied."""
        pairs = zip(self._buffers, self._copies, strict=True)
        for (module, name, tensor), copy in pairs:
            module._buffers[name] = tensor.copy_(copy)
