"""Forward hooks that read or replace module outputs and restore the model."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.nn.parameter import is_lazy

from striate.core.errors import GeometryError, SettingError
from striate.core.layer_names import named_layers
from striate.core.model_state import ModelState, rng_state_restored
from striate.core.registry import unknown_name_error

Sink = Callable[[str, Tensor], None]
Listener = Callable[[str, nn.Module, object], None]
Visit = Callable[[str, object], Tensor | None]


@contextmanager
def evaluation_mode(model: nn.Module, *, analysis: bool = True) -> Iterator[nn.Module]:
    """Context manager: evaluation mode; restore the model and RNG states at exit.

    Modes, attributes, caches, buffers and the random states are restored, whatever is
    raised. With `analysis`, the values of parameters are restored too, and modules that
    `torch.compile` returned run without compilation, so that hooks see their layers.
    Without it, what hooks of the user collect is kept.

    Raises:
        SettingError: The model is an exported program, which has no evaluation mode.
        GeometryError: A weight of a lazy layer has no shape yet.

    Example:
        >>> model = nn.Dropout()
        >>> with evaluation_mode(model):
        ...     model.training
        False
        >>> model.training
        True
    """
    ids = {id(module) for module in model.modules()} if analysis else set()
    outermost = ids - _analyzed
    state = ModelState(model, weights=bool(outermost), hooks=analysis)
    if state.has_lazy_tensors:
        raise lazy_error(model)
    with rng_state_restored(), run_uncompiled() if analysis else nullcontext():
        try:
            _analyzed.update(outermost)
            if any(module.training for module in model.modules()):
                set_evaluation_mode(model)
            yield model
        finally:
            _analyzed.difference_update(outermost)
            state.restore()


_analyzed: set[int] = set()  # ids of the modules whose weights are saved already


def set_evaluation_mode(model: nn.Module) -> None:
    """Call `model.eval()`; explain the error of an exported program.

    Raises:
        SettingError: The model is an exported program, which has no evaluation mode.
    """
    try:
        model.eval()
    except NotImplementedError as error:
        what = "an exported program has no evaluation mode (torch.export)"
        fix = "pass the network that torch.export.export was given"
        raise SettingError(what, where=type(model).__name__, fix=fix) from error


def lazy_error(model: nn.Module) -> GeometryError:
    """Return the error of a network with a weight that has no shape yet."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    name = next(name for name, tensor in tensors if is_lazy(tensor))
    what = f"{name} has no shape yet (lazy module)"
    fix = "run the network once on an image: model(torch.zeros(1, 3, 224, 224))"
    return GeometryError(what, where=name, fix=fix)


@contextmanager
def run_uncompiled() -> Iterator[None]:
    """Context manager: run what `torch.compile` returned without compilation."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def unwrap_compiled(model: nn.Module) -> nn.Module:
    """Return the network that `torch.compile` was given; another one unchanged.

    Example:
        >>> model = nn.ReLU()
        >>> unwrap_compiled(model) is model
        True
    """
    modules = model._modules  # a TorchScript module has another kind of table
    inner = modules.get("_orig_mod") if isinstance(modules, dict) else None
    return model if inner is None else inner


def refuse_scripted(model: nn.Module, what: str) -> None:
    """Raise an error if a network contains TorchScript, whose layers have no hooks.

    Args:
        model: Any network.
        what: What needs the layers, such as `a summary`.

    Raises:
        SettingError: The network contains a TorchScript module.

    Example:
        >>> refuse_scripted(nn.ReLU(), "a summary")
    """
    for name, module in named_layers(model):
        if isinstance(module, torch.jit.ScriptModule):
            where = name or type(module).__name__
            fix = "pass the network that torch.jit.script or torch.jit.trace was given"
            reason = f"{what} needs layers in Python, but this is a TorchScript module"
            raise SettingError(reason, where=where, fix=fix)


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
    refuse_scripted(model, "observing a layer")
    modules = dict(named_layers(model))
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
    return [name for name, m in named_layers(model) if name and not any(m.children())]


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
    names = {module: name for name, module in named_layers(model)}

    def before(module: nn.Module, inputs: object) -> None:
        if enter and module in names:
            enter(names[module], module, inputs)

    def after(module: nn.Module, inputs: object, output: object) -> None:
        if leave and module in names:
            leave(names[module], module, output)

    with (
        warnings.catch_warnings(),
        register_module_forward_pre_hook(before),
        register_module_forward_hook(after),
    ):
        # The wrappers of torch.compile are not in `names`.
        warnings.filterwarnings("ignore", r"Using `torch\.compile\(module\)` when")
        yield


@contextmanager
def model_restored(
    model: nn.Module, replace_tensor: Callable[[Tensor], Tensor] | None = None
) -> Iterator[nn.Module]:
    """Context manager: at exit, restore modes, attributes, tensors and child modules.

    Modes, attributes, caches, tensors, child modules and RNG states are restored.
    In-place changes of parameters are undone only if `replace_tensor` is given.

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
    state = ModelState(model, weights=False)
    with rng_state_restored(), run_uncompiled():
        try:
            if replace_tensor is not None:
                _replace_tensors(model, replace_tensor)
            yield model
        finally:
            state.restore()


def _replace_tensors(
    model: nn.Module, replace_tensor: Callable[[Tensor], Tensor]
) -> None:
    replaced: dict[int, Tensor] = {}
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue  # its tables are in C++; `ModelState` restores the values
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
