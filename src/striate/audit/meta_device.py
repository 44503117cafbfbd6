"""Run a network on torch's meta device: shapes only, no values, no memory.

Every torch operation passes through the dispatch mode, whether a module or a function
called it. Tensors that the forward pass creates are moved to the meta device, and so
are constants that are combined with meta tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.audit.shapes import META, output_of

OnOperation = Callable[[Any, tuple[Any, ...], Any], None]

aten = torch.ops.aten

# Here `torch.zeros(3)` and `torch.zeros(3, device="cpu")` look the same, so both
# become meta tensors; `torch.device("meta")` would keep the second on the CPU, and
# costs 10 µs a call.
_FACTORIES = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.rand.default,
    aten.randn.default,
    aten.arange.default,
    aten.arange.start,
    aten.arange.start_step,
    aten.linspace.default,
    aten.eye.default,
    aten.scalar_tensor.default,
}


class MetaMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Dispatch mode that computes only shapes; calls a function for each operation.

    Args:
        on_operation: Called with the operation, its arguments and its output.
        real: Compute real values instead, for networks with data-dependent branches.

    Example:
        >>> operations = []
        >>> with MetaMode(lambda op, args, out: operations.append(str(op))):
        ...     torch.zeros(2, 3).add_(1).shape
        torch.Size([2, 3])
        >>> operations
        ['aten.zeros.default', 'aten.add_.Tensor']
    """

    def __init__(self, on_operation: OnOperation, *, real: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_operation = on_operation
        self._real = real

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To skip the compiler torch imports the whole of it, 1.5 s; none is in play.
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._real:
            out = func(*args, **kwargs)
        elif (out := output_of(func, args, kwargs)) is None:
            out = _run_on_meta(func, args, kwargs)
        self._on_operation(func, args, out)
        return out


@contextmanager
def init_empty_weights() -> Iterator[None]:
    """Build networks in this context without allocating or initializing weights.

    Example:
        >>> with init_empty_weights():
        ...     layer = nn.Linear(10**6, 10**6)
        >>> layer.weight.device.type
        'meta'
    """
    with MetaMode(lambda func, args, out: None):
        yield


def _run_on_meta(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func in _FACTORIES:
        return func(*args, **{**kwargs, "device": META})
    if len({tensor.is_meta for tensor in tensors_in(args)}) > 1:
        args = tuple(_as_meta(arg) for arg in args)
    return func(*args, **kwargs)


def _as_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_meta or not value.dim() else to_meta(value)
    if isinstance(value, list | tuple):
        return type(value)(_as_meta(item) for item in value)
    return value


def to_meta(tensor: Tensor) -> Tensor:
    """Return a meta tensor with the shape, strides and dtype of a given tensor.

    Example:
        >>> to_meta(torch.ones(2, 3)).device.type
        'meta'
    """
    shape, strides = tensor.shape, tensor.stride()
    meta = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(meta, requires_grad=tensor.requires_grad)
    return meta


_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device}
_TENSORS = {Tensor, nn.Parameter}


def tensors_in(values: Any) -> list[Tensor]:
    """Return all tensors in nested lists, tuples or dicts.

    Example:
        >>> len(tensors_in((torch.ones(1), [torch.ones(1), None], 3)))
        2
    """
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    tensors: list[Tensor] = []
    for value in values:
        kind = value.__class__
        if kind in _PLAIN:
            continue
        if kind in _TENSORS or isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple | dict) and not _is_int_list(value):
            tensors += tensors_in(value)
    return tensors


def _is_int_list(values: Any) -> bool:
    """Return whether a value is a list of integers, such as a stride."""
    return values.__class__ is list and len(values) > 0 and values[0].__class__ is int
