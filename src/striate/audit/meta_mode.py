"""Run a network on shapes alone: no weights, no arithmetic, nothing allocated.

Every operation is seen on its way down, whoever called it: a module, a function, a
branch. Tensors live on torch's meta device; what a forward pass makes itself goes
there too, and a constant that meets such a tensor becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.audit.shapes import META, answer

See = Callable[[Any, tuple[Any, ...], Any], None]

aten = torch.ops.aten

# At this depth `torch.zeros(3)` and `torch.zeros(3, device="cpu")` look the same, so
# both become ghosts; `torch.device("meta")` would keep the second real, and costs
# 10 µs a call.
_MAKERS = {
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


class Ghost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, operations have shapes and no values; each is shown to `see`.

    Args:
        see: Gets the operation, its arguments and what it returned.
        real: Compute for real instead: for networks whose way depends on values.

    Example:
        >>> seen = []
        >>> with Ghost(lambda op, args, out: seen.append(str(op))):
        ...     torch.zeros(2, 3).add_(1).shape
        torch.Size([2, 3])
        >>> seen
        ['aten.zeros.default', 'aten.add_.Tensor']
    """

    def __init__(self, see: See, *, real: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._see = see
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
        out = None if self._real else answer(func, args, kwargs)
        if out is None:
            out = func(*args, **kwargs) if self._real else _haunt(func, args, kwargs)
        self._see(func, args, out)
        return out


@contextmanager
def blueprint() -> Iterator[None]:
    """Build a network as ghosts: its weights have shapes and are never drawn.

    Example:
        >>> with blueprint():
        ...     layer = nn.Linear(10**6, 10**6)
        >>> layer.weight.device.type
        'meta'
    """
    with Ghost(lambda func, args, out: None):
        yield


def _haunt(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func in _MAKERS:
        return func(*args, **{**kwargs, "device": META})
    if _mixed(args):
        args = tuple(_ghostly(arg) for arg in args)
    return func(*args, **kwargs)


def _mixed(args: tuple[Any, ...]) -> bool:
    metas = [t.is_meta for t in tensors_in(args)]
    return any(metas) and not all(metas)


def _ghostly(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value if value.is_meta or not value.dim() else ghost_of(value)
    if isinstance(value, list | tuple):
        return type(value)(_ghostly(one) for one in value)
    return value


def ghost_of(tensor: Tensor) -> Tensor:
    """Return a tensor of the same shape, strides and type that holds no numbers.

    Example:
        >>> ghost_of(torch.ones(2, 3)).device.type
        'meta'
    """
    shape, strides = tensor.shape, tensor.stride()
    ghost = torch.empty_strided(shape, strides, dtype=tensor.dtype, device=META)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(ghost, requires_grad=tensor.requires_grad)
    return ghost


_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device}
_TENSORS = {Tensor, nn.Parameter}


def tensors_in(values: Any) -> list[Tensor]:
    """Return the tensors among arguments or results, lists looked into.

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
    found: list[Tensor] = []
    for value in values:
        kind = value.__class__
        if kind in _PLAIN:
            continue
        if kind in _TENSORS or isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple | dict) and not _numbers(value):
            found += tensors_in(value)
    return found


def _numbers(values: Any) -> bool:
    """Tell a list such as a stride from one that may hold tensors."""
    return values.__class__ is list and len(values) > 0 and values[0].__class__ is int
