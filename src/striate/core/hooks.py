"""Forward hooks that read or replace module outputs and restore the model."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parameter import is_lazy

from striate.core.registry import unknown_name_error

Sink = Callable[[str, Tensor], None]
Listener = Callable[[str, nn.Module, object], None]
Visit = Callable[[str, object], Tensor | None]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Context manager: evaluation mode; restore modes, buffers and RNG states at exit.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluation_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    saved = [_save_buffers(module) for module, _ in modes if module._buffers]
    with _rng_state_restored():
        try:
            if any(mode for _, mode in modes):  # `eval()` takes 7 µs per module
                model.eval()
            yield model
        finally:
            for module, mode in modes:
                if module.training is not mode:
                    module.training = mode
            _restore_buffers(saved)


@contextmanager
def _rng_state_restored() -> Iterator[None]:
    """Context manager: restore the RNG states of torch, NumPy and Python at exit."""
    state = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])


# The buffer dict of a module, a copy of the dict, and copies of the tensors in it.
# (`model.buffers()` builds a name per buffer, which takes longer than the copies.)
_Table = dict[str, Tensor | None]
_SavedBuffers = tuple[_Table, _Table, dict[str, Tensor]]


def _save_buffers(module: nn.Module) -> _SavedBuffers:
    before = dict(module._buffers)
    real = {n: b for n, b in before.items() if b is not None and not is_lazy(b)}
    return module._buffers, before, {n: b.detach().clone() for n, b in real.items()}


def _restore_buffers(saved: Sequence[_SavedBuffers]) -> None:
    """Restore saved buffers; some networks change buffers even in evaluation mode."""
    with torch.no_grad():
        for table, before, copies in saved:
            if list(map(id, table.values())) != list(map(id, before.values())):
                table.clear()
                table.update(before)
            for name, copy in copies.items():
                buffer = before[name]
                assert buffer is not None  # noqa: S101 - only real ones are copied
                if not torch.equal(buffer, copy):
                    buffer.copy_(copy)


@contextmanager
def capture_outputs(
    model: nn.Module, names: Sequence[str], sink: Sink
) -> Iterator[None]:
    """Context manager: pass each output of the named modules to `sink`, in call order.

    Raises:
        UnknownNameError: The model has no such module; the message lists similar names.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> shapes = []
        >>> with capture_outputs(model, ["0"], lambda _, y: shapes.append(y.shape)):
        ...     _ = model(torch.zeros(1, 2))
        >>> shapes
        [torch.Size([1, 3])]
    """

    def hook_of(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                sink(name, output)

        return hook

    with _forward_hooks(model, names, hook_of):
        yield


@contextmanager
def _forward_hooks(
    model: nn.Module, names: Sequence[str], hook: Callable[[str], Callable[..., Any]]
) -> Iterator[None]:
    """Context manager: forward hooks on the named modules, removed at exit."""
    modules = dict(model.named_modules())
    with ExitStack() as stack:
        for name in names:
            if name not in modules:
                raise unknown_name_error("layer", name, filter(None, modules))
            stack.enter_context(modules[name].register_forward_hook(hook(name)))
        yield


class StopForward(BaseException):
    """Exception for hooks that end the forward pass early (a BaseException)."""


@contextmanager
def intercept_outputs(
    model: nn.Module, names: Sequence[str], visit: Visit
) -> Iterator[None]:
    """Context manager: let `visit` read or replace each output of the named modules.

    `visit(name, output)` gets the module name for the first call, and `name #2`,
    `name #3` … for later calls. A tensor that `visit` returns replaces the output.

    Raises:
        UnknownNameError: The model has no such module; the message lists similar names.

    Example:
        >>> relu = nn.ReLU()
        >>> model = nn.Sequential(relu, nn.Linear(1, 1), relu)
        >>> with intercept_outputs(model, ["0"], lambda call, out: print(call)):
        ...     _ = model(torch.zeros(1, 1))
        0
        0 #2
    """

    def hook_of(name: str) -> Callable[..., object]:
        numbers = count(1)

        def hook(module: nn.Module, inputs: object, output: object) -> object:
            return visit(call_name(name, next(numbers)), output)

        return hook

    with _forward_hooks(model, names, hook_of):
        yield


def call_name(name: str, number: int) -> str:
    """Return the name of the n-th call of a module, counted from 1.

    Example:
        >>> call_name("relu", 1), call_name("relu", 2)
        ('relu', 'relu #2')
    """
    return name if number == 1 else f"{name} #{number}"


def leaf_module_names(model: nn.Module) -> list[str]:
    """Return the dotted names of all modules without child modules.

    Example:
        >>> leaf_module_names(nn.Sequential(nn.Flatten(), nn.Sequential(nn.ReLU())))
        ['0', '1.0']
    """
    return [name for name, m in model.named_modules() if name and not any(m.children())]


@contextmanager
def trace_modules(
    model: nn.Module, *, enter: Listener | None = None, leave: Listener | None = None
) -> Iterator[None]:
    """Context manager: call `enter` before and `leave` after each module's forward.

    These are global hooks of torch, so the model itself is not changed.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> enter = lambda name, module, inputs: print("enter", name or "(model)")
        >>> leave = lambda name, module, output: print("leave", name or "(model)")
        >>> with trace_modules(model, enter=enter, leave=leave):
        ...     _ = model(torch.zeros(1))
        enter (model)
        enter 0
        leave 0
        leave (model)
    """
    names = {module: name for name, module in model.named_modules()}

    def before(module: nn.Module, inputs: object) -> None:
        if enter and module in names:
            enter(names[module], module, inputs)

    def after(module: nn.Module, inputs: object, output: object) -> None:
        if leave and module in names:
            leave(names[module], module, output)

    with register_module_forward_pre_hook(before), register_module_forward_hook(after):
        yield


@contextmanager
def model_restored(
    model: nn.Module, replace_tensor: Callable[[Tensor], Tensor] | None = None
) -> Iterator[nn.Module]:
    """Context manager: at exit, restore modes, attributes, tensors and child modules.

    Modes, attributes, tensors, child modules and RNG states are restored. In-place
    changes of tensor values are undone only if `replace_tensor` is given.

    Args:
        model: Any network.
        replace_tensor: Returns the temporary replacement of a parameter or buffer;
            called once for a tensor that several modules share.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> with model_restored(model, lambda weight: torch.empty(9)) as ghost:
        ...     ghost.bias.shape, setattr(ghost, "note", 1)
        (torch.Size([9]), None)
        >>> model.bias.shape, hasattr(model, "note")
        (torch.Size([2]), False)
    """
    modules = list(model.modules())
    # The attributes of each module, and its tables of parameters, buffers and modules.
    tables = [
        table
        for module in modules
        for table in (
            module.__dict__,
            module._parameters,
            module._buffers,
            module._modules,
        )
    ]
    saved = [dict(table) for table in tables]
    with _rng_state_restored():
        try:
            if replace_tensor is not None:
                _replace_tensors(modules, replace_tensor)
            yield model
        finally:
            for table, contents in zip(tables, saved, strict=True):
                table.clear()
                table.update(contents)


def _replace_tensors(
    modules: Sequence[nn.Module], replace_tensor: Callable[[Tensor], Tensor]
) -> None:
    replaced: dict[int, Tensor] = {}
    for module in modules:
        for table in (module._parameters, module._buffers):
            for name, tensor in table.items():
                if tensor is not None:
                    if id(tensor) not in replaced:
                        replaced[id(tensor)] = replace_tensor(tensor)
                    table[name] = replaced[id(tensor)]  # type: ignore[assignment]


def parameters_and_buffers(model: nn.Module) -> tuple[list[nn.Parameter], list[Tensor]]:
    """Return the parameters and the buffers of a model, without duplicates.

    Example:
        >>> parameters, buffers = parameters_and_buffers(nn.BatchNorm2d(3))
        >>> len(parameters), len(buffers)
        (2, 3)
    """
    parameters: dict[int, nn.Parameter] = {}
    buffers: dict[int, Tensor] = {}
    for module in model.modules():
        parameters |= {id(p): p for p in module._parameters.values() if p is not None}
        buffers |= {id(b): b for b in module._buffers.values() if b is not None}
    return list(parameters.values()), list(buffers.values())
