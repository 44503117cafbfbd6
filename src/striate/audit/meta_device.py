"""Run a network on torch's meta device: shapes only, no values, no memory.

Every torch operation passes through the dispatch mode, whether a module or a function
called it. Tensors that the forward pass creates are moved to the meta device, and so
are constants that are combined with meta tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from striate.audit.shapes import META, output_of

OnOperation = Callable[[Any, tuple[Any, ...], Any], None]
NO_REPLACEMENTS: Mapping[int, Tensor] = MappingProxyType({})

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
        replacements: Meta tensors that replace weights, by the identity of the weight;
            a network may also refer to a weight by an attribute of its own.

    Example:
        >>> operations = []
        >>> with MetaMode(lambda op, args, out: operations.append(str(op))):
        ...     torch.zeros(2, 3).add_(1).shape
        torch.Size([2, 3])
        >>> operations
        ['aten.zeros.default', 'aten.add_.Tensor']
    """

    def __init__(
        self,
        on_operation: OnOperation,
        *,
        real: bool = False,
        replacements: Mapping[int, Tensor] = NO_REPLACEMENTS,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_operation = on_operation
        self._real = real
        self._replacements = replacements
        self._layouts: dict[Any, Any] = {}  # of outputs, by operation and arguments

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
        if torch.is_inference_mode_enabled() and _is_composite(func):
            with self:  # inference mode does not split it into its operations
                return func.decompose(*args, **kwargs)
        if not self._real and self._is_replaced(args, kwargs):
            args, kwargs = self._as_meta(args), self._all_as_meta(kwargs)
        if self._real:
            out = func(*args, **kwargs)
        elif (out := output_of(func, args, kwargs)) is None:
            out = self._run_on_meta(func, args, kwargs)
        self._on_operation(func, args, out)
        return out

    def _run_on_meta(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if func in _FACTORIES:
            return func(*args, **{**kwargs, "device": META})
        tensors = tensors_in((args, kwargs))
        if len({tensor.is_meta for tensor in tensors}) > 1:
            args, kwargs = self._as_meta(args), self._all_as_meta(kwargs)
        if not _makes_new_tensors(func):
            return func(*args, **kwargs)
        key = _signature((func, args, kwargs))
        if key is None:
            return func(*args, **kwargs)
        if key not in self._layouts:
            out = func(*args, **kwargs)
            self._layouts[key] = _layout_of(out)
            return out
        return _allocate(self._layouts[key])

    def _is_replaced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the network uses a weight under an attribute of its own."""
        replacements = self._replacements
        return any(id(tensor) in replacements for tensor in tensors_in((args, kwargs)))

    def _all_as_meta(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {name: self._as_meta(value) for name, value in kwargs.items()}

    def _as_meta(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.is_meta or not value.dim():
                return value
            replacement = self._replacements.get(id(value))
            return to_meta(value) if replacement is None else replacement
        if isinstance(value, list | tuple):
            return type(value)(self._as_meta(item) for item in value)
        return value


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


@cache
def _is_composite(func: Any) -> bool:
    """Return whether torch computes an operation from other operations."""
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


@cache
def _makes_new_tensors(func: Any) -> bool:
    """Return whether all outputs of an operation are new tensors, not views."""
    schema = func._schema
    if "unsafe_" in func.name():  # views, though the schema does not say so
        return False
    return not schema.is_mutable and all(
        result.alias_info is None and "Tensor" in str(result.type)
        for result in schema.returns
    )


def _signature(value: Any) -> Any:
    """Return a hashable key of arguments, with tensors by layout; None if unknown."""
    if isinstance(value, Tensor):
        is_plain = value.is_meta and value.layout is torch.strided
        return (value.shape, value.stride(), value.dtype) if is_plain else None
    if isinstance(value, dict):
        value = tuple(value.items())
    if isinstance(value, list | tuple):
        parts = tuple([_signature(item) if item is not None else 0 for item in value])
        return None if None in parts else parts
    try:
        hash(value)
    except TypeError:
        return None
    return value, type(value)


def _layout_of(out: Any) -> Any:
    if isinstance(out, Tensor):
        return out.shape, out.stride(), out.dtype
    return None if out is None else [_layout_of(item) for item in out]


def _allocate(layout: Any) -> Any:
    if isinstance(layout, tuple):
        shape, stride, dtype = layout
        return torch.empty_strided(shape, stride, dtype=dtype, device=META)
    return None if layout is None else tuple([_allocate(item) for item in layout])


def to_meta(tensor: Tensor) -> Tensor:
    """Return a meta tensor with the shape, strides and dtype of a given tensor.

    Example:
        >>> to_meta(torch.ones(2, 3)).device.type
        'meta'
    """
    if is_lazy(tensor):
        return lazy_copy(tensor, META)
    shape, strides = tensor.shape, tensor.stride()
    meta = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(meta, requires_grad=tensor.requires_grad)
    return meta


def lazy_copy(tensor: Any, device: torch.device) -> Tensor:
    """Return a new parameter or buffer without a shape, as a lazy layer has it.

    Example:
        >>> lazy_copy(nn.LazyLinear(2).weight, META).device.type
        'meta'
    """
    settings = {"dtype": tensor.dtype, "device": device}
    if isinstance(tensor, nn.UninitializedParameter):
        return nn.UninitializedParameter(tensor.requires_grad, **settings)  # type: ignore[arg-type]
    return nn.UninitializedBuffer(tensor.requires_grad, **settings)


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
