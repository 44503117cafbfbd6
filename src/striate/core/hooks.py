"""The only hooks: look at a model's inner outputs and leave it as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parameter import is_lazy

from striate.core.errors import UnknownNameError
from striate.core.registry import unknown

Sink = Callable[[str, Tensor], None]
Enter = Callable[[str, nn.Module, object], None]
Leave = Callable[[str, nn.Module, object], None]
Visit = Callable[[str, object], Tensor | None]


@contextmanager
def untouched(model: nn.Module) -> Iterator[nn.Module]:
    """Lend a model in evaluation mode; give back modes, buffers, random states.

    Example:
        >>> model = nn.Dropout()
        >>> with untouched(model) as lent:
        ...     lent.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    kept = [_kept(module) for module, _ in modes if module._buffers]
    with _same_chance():
        try:
            if any(mode for _, mode in modes):  # setting what is set takes 7 µs each
                model.eval()
            yield model
        finally:
            for module, mode in modes:
                if module.training is not mode:
                    module.training = mode
            _put_back(kept)


@contextmanager
def _same_chance() -> Iterator[None]:
    """Give back the random states of torch, NumPy and Python as found."""
    state = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


# A module's table of buffers, what stood in it, and copies of what can be copied.
# (`model.buffers()` makes a name for each, which takes longer than the copies.)
_Table = dict[str, Tensor | None]
_Kept = tuple[_Table, _Table, dict[str, Tensor]]


def _kept(module: nn.Module) -> _Kept:
    before = dict(module._buffers)
    real = {n: one for n, one in before.items() if one is not None and not is_lazy(one)}
    return module._buffers, before, {n: one.detach().clone() for n, one in real.items()}


def _put_back(kept: Sequence[_Kept]) -> None:
    """Undo what a network wrote or put into its buffers even in evaluation mode."""
    with torch.no_grad():
        for table, before, copies in kept:
            if list(map(id, table.values())) != list(map(id, before.values())):
                table.clear()
                table.update(before)
            for name, copy in copies.items():
                buffer = before[name]
                assert buffer is not None  # noqa: S101 - only real ones are copied
                if not torch.equal(buffer, copy):
                    buffer.copy_(copy)


@contextmanager
def tapped(model: nn.Module, names: Sequence[str], sink: Sink) -> Iterator[None]:
    """Hand every output of the named modules to `sink`, in the order they run.

    Raises:
        UnknownNameError: The model has no module of that name; lists the nearest.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with tapped(model, ["0"], lambda name, out: print(name, tuple(out.shape))):
        ...     _ = model(torch.zeros(1, 2))
        0 (1, 3)
    """
    with _hooked(model, names, lambda name: _hand_over(name, sink)):
        yield


@contextmanager
def _hooked(
    model: nn.Module, names: Sequence[str], hook: Callable[[str], Callable[..., Any]]
) -> Iterator[None]:
    """Hang a hook for its name on each of some modules, and take all off at the end."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name in names:
            if name not in modules:
                raise _no_layer(name, modules)
            handle = modules[name].register_forward_hook(hook(name))
            stack.callback(handle.remove)
        yield


def _no_layer(name: str, modules: dict[str, nn.Module]) -> UnknownNameError:
    return unknown("layer", name, [key for key in modules if key])


def _hand_over(name: str, sink: Sink) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor):
            sink(name, output)

    return hook


class Enough(BaseException):
    """Raised by a visitor to end a forward pass; no `except Exception` swallows it."""


@contextmanager
def visited(model: nn.Module, names: Sequence[str], visit: Visit) -> Iterator[None]:
    """Hand every output of the named modules to `visit`, one call at a time.

    A module's first call goes by its name, later ones by `name #2`, `name #3` …;
    a tensor that `visit` returns takes the output's place.

    Raises:
        UnknownNameError: The model has no module of that name; lists the nearest.

    Example:
        >>> relu = nn.ReLU()
        >>> model = nn.Sequential(relu, nn.Linear(1, 1), relu)
        >>> with visited(model, ["0"], lambda call, out: print(call)):
        ...     _ = model(torch.zeros(1, 1))
        0
        0 #2
    """
    with _hooked(model, names, lambda name: _numbered(name, visit)):
        yield


def call_name(name: str, number: int) -> str:
    """Name a module's n-th call.

    Example:
        >>> call_name("relu", 1), call_name("relu", 2)
        ('relu', 'relu #2')
    """
    return name if number == 1 else f"{name} #{number}"


def _numbered(name: str, visit: Visit) -> Callable[..., Any]:
    count = 0

    def hook(module: nn.Module, inputs: object, output: object) -> object:
        nonlocal count
        count += 1
        return visit(call_name(name, count), output)

    return hook


def leaves(model: nn.Module) -> list[str]:
    """Return the dotted names of the modules that hold no others.

    Example:
        >>> leaves(nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU())))
        ['0', '1.0']
    """
    return [name for name, m in model.named_modules() if name and not any(m.children())]


@contextmanager
def followed(
    model: nn.Module, *, enter: Enter | None = None, leave: Leave | None = None
) -> Iterator[None]:
    """Tell when each module of a model begins, with its inputs, and ends.

    The model itself is given no hooks; torch's global ones are used and taken away.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> began = lambda name, module, inputs: print("begins", name or "(model)")
        >>> ended = lambda name, module, output: print("ends", name or "(model)")
        >>> with followed(model, enter=began, leave=ended):
        ...     _ = model(torch.zeros(1))
        begins (model)
        begins 0
        ends 0
        ends (model)
    """
    names = {module: name for name, module in model.named_modules()}

    def tell(listener: Enter | Leave, module: nn.Module, handed: object) -> None:
        name = names.get(module)
        if name is not None:
            listener(name, module, handed)

    with ExitStack() as stack:
        if enter:
            begun = register_module_forward_pre_hook(partial(tell, enter))
            stack.callback(begun.remove)
        if leave:
            ended = register_module_forward_hook(
                lambda module, inputs, output: tell(leave, module, output)
            )
            stack.callback(ended.remove)
        yield


@contextmanager
def lent(
    model: nn.Module, stand_in: Callable[[Tensor], Tensor] | None = None
) -> Iterator[nn.Module]:
    """Lend a model whole; whatever is done to its modules is undone afterwards.

    Modes, attributes, tensors, children and every random state come back as found.
    The numbers inside tensors are safe only behind stand-ins.

    Args:
        model: Any network.
        stand_in: Makes what takes each parameter's and buffer's place meanwhile; one
            that several modules share is made once.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with lent(model, lambda weight: torch.empty(9)) as ghost:
        ...     ghost.bias.shape, setattr(ghost, "note", 1)
        (torch.Size([9]), None)
        >>> model.bias.shape, hasattr(model, "note")
        (torch.Size([2]), False)
    """
    modules = list(model.modules())
    kept = [(module, _contents(module)) for module in modules]
    with _same_chance():
        try:
            if stand_in is not None:
                _stand_in(modules, stand_in)
            yield model
        finally:
            for module, contents in kept:
                _restore(module, contents)


_TABLES = ("_parameters", "_buffers", "_modules")
Contents = tuple[dict[str, object], list[dict[str, object]]]


def _contents(module: nn.Module) -> Contents:
    return dict(module.__dict__), [dict(getattr(module, name)) for name in _TABLES]


def _restore(module: nn.Module, contents: Contents) -> None:
    attributes, tables = contents
    module.__dict__.clear()
    module.__dict__.update(attributes)
    for name, table in zip(_TABLES, tables, strict=True):
        own = getattr(module, name)
        own.clear()
        own.update(table)


def _stand_in(
    modules: Sequence[nn.Module], stand_in: Callable[[Tensor], Tensor]
) -> None:
    made: dict[int, Tensor] = {}
    for module in modules:
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in made:
                        made[id(tensor)] = stand_in(tensor)
                    table[name] = made[id(tensor)]  # type: ignore[assignment]


def own_tensors(model: nn.Module) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Return the parameters and the buffers of a model, each once, in one walk.

    Example:
        >>> parameters, buffers = own_tensors(nn.BatchNorm2d(3))
        >>> len(parameters), len(buffers)
        (2, 3)
    """
    parameters: dict[int, nn.Parameter] = {}
    buffers: dict[int, Tensor] = {}
    for module in model.modules():
        parameters |= {id(p): p for p in module._parameters.values() if p is not None}
        buffers |= {id(b): b for b in module._buffers.values() if b is not None}
    return list(parameters.values()), list(buffers.values())
