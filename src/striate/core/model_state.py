"""Save everything of a network that a forward pass may change, and restore it.

A forward pass may write attributes, fill caches (in a dict, a list, an `lru_cache`, a
class, a global variable of its file or a closure), replace parameters or draw random
numbers. Each mutable object that is reachable from the network is saved once.
"""

from __future__ import annotations

import collections
import functools
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import is_
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from striate.core.forward_code import (
    forward_functions,
    plain_function,
    root_package,
    used_globals,
    used_names,
)

Undo = Callable[[], object]

_ATOMS = frozenset(
    [
        *(bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range),
        *(slice, torch.dtype, torch.device, torch.Size, ModuleType),
        BuiltinFunctionType,
    ]
)
_PLAIN_DICTS = (dict, collections.OrderedDict)
_WEAK_DICTS = (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)
_LISTS = (list, collections.deque, bytearray)
# Objects of these packages belong to the process, not to the network.
_FOREIGN = frozenset(
    [
        *("torch", "numpy", "logging", "threading", "multiprocessing", "concurrent"),
        *("asyncio", "io", "_io", "re", "weakref", "pathlib", "enum", "inspect"),
        *("builtins", "striate", "queue", "subprocess", "socket", "abc", "typing"),
        *("lightning", "pytorch_lightning", "lightning_fabric"),
    ]
)
MAX_COPIED = 2**28  # bytes of tensors outside of modules whose values are copied
_LruCache = type(functools.lru_cache(lambda: None))


@contextmanager
def rng_state_restored() -> Iterator[None]:
    """Context manager: restore the RNG states of torch, NumPy and Python at exit."""
    state = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    has_cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if has_cuda else []
    try:
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        torch.set_rng_state(state[2])
        torch.cuda.set_rng_state_all(cuda)


class ModelState:
    """Saved state of a network: attributes, containers, tensors and generators.

    With `weights`, also the values of parameters are copied. Otherwise only the tensor
    that a parameter refers to is restored. Without `hooks`, what the hooks of the user
    have collected is kept. TorchScript modules keep their attributes in
    C++: of these, only parameters, buffers and modes are restored.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> state = ModelState(model)
        >>> model.cache = {"bias": model.bias}
        >>> state.restore()
        >>> hasattr(model, "cache")
        False
    """

    def __init__(
        self, model: nn.Module, *, weights: bool = True, hooks: bool = True
    ) -> None:
        self._weights, self._hooks = weights, hooks
        self._bytes_left = MAX_COPIED
        self.has_lazy_tensors = False  # whether a tensor has no shape yet
        self._undo: list[Undo] = []
        self._visited: set[int] = set()
        self._alive: list[object] = []  # so that no id is used a second time
        self._pending: list[object] = [model]
        self._classes: set[type] = set()
        self._save_pending()

    def restore(self) -> None:
        """Restore all that was saved; an object that cannot be restored is skipped."""
        for undo in self._undo:
            with suppress(Exception):
                undo()

    def _save_pending(self) -> None:
        while self._pending:
            self._visit(self._pending.pop())

    def _add(self, values: Iterable[object]) -> None:
        self._pending += [v for v in values if v.__class__ not in _ATOMS]

    def _visit(self, value: Any) -> None:
        if id(value) in self._visited:
            return
        self._visited.add(id(value))
        self._alive.append(value)
        if isinstance(value, Tensor):
            self._save_tensor(value)
        elif isinstance(value, torch.jit.ScriptModule):
            self._save_script_module(value)
        elif isinstance(value, nn.Module):
            self._save_module(value)
        elif isinstance(value, dict):
            self._save_dict(value)
        elif isinstance(value, _LISTS):
            self._undo.append(partial(_restore_list, value, list(value)))
            self._add(value)
        elif isinstance(value, set):
            self._undo.append(partial(_restore_set, value, set(value)))
        elif isinstance(value, tuple | frozenset):
            self._add(value)
        else:
            self._visit_object(value)

    def _visit_object(self, value: Any) -> None:
        if isinstance(value, FunctionType):
            self._save_function(value)
        elif isinstance(value, MethodType):
            self._add((value.__self__, value.__func__))
        elif isinstance(value, partial):
            self._add((value.func, value.args, value.keywords))
        elif isinstance(value, _LruCache):
            self._undo.append(partial(_clear_if_used, value, _misses(value)))
            self._add((value.__wrapped__,))
        elif isinstance(value, type):
            self._save_class(value)
        elif isinstance(value, np.ndarray):
            self._undo.append(partial(np.copyto, value, value.copy()))
        elif isinstance(value, _WEAK_DICTS):
            self._add((value.__dict__["data"],))
        elif not self._save_generator(value):
            self._save_attributes(value)

    def _save_generator(self, value: Any) -> bool:
        """Save the state of a random generator; return whether the value is one."""
        if isinstance(value, random.Random):
            self._undo.append(partial(value.setstate, value.getstate()))
        elif isinstance(value, torch.Generator):
            self._undo.append(partial(value.set_state, value.get_state()))
        elif isinstance(value, np.random.Generator):
            bits = value.bit_generator
            self._undo.append(partial(setattr, bits, "state", bits.state))
        elif isinstance(value, np.random.RandomState):
            state = value.get_state(legacy=False)
            self._undo.append(partial(value.set_state, state))
        else:
            return False
        return True

    def _save_tensor(self, tensor: Tensor) -> None:
        if is_lazy(tensor):
            self.has_lazy_tensors = True
            return
        if tensor.is_meta:
            return
        if isinstance(tensor, nn.Parameter):
            self._undo.append(partial(_restore_parameter, *_handle(tensor)))
            if not self._weights:
                return
        else:
            self._bytes_left -= tensor.numel() * tensor.element_size()
            if self._bytes_left < 0:
                return
        self._save_values(tensor)

    def _save_values(self, tensor: Tensor) -> None:
        with suppress(RuntimeError, NotImplementedError):  # e.g. a sparse layout
            saved = tensor.detach().clone()
            self._undo.append(partial(_restore_values, tensor, saved))

    def _save_script_module(self, module: Any) -> None:
        modes = [(each, each.training) for each in module.modules()]
        self._undo.append(partial(_restore_modes, modes))
        tensors = [*module.parameters(), *module.buffers()]
        self._add(t.data if isinstance(t, nn.Parameter) else t for t in tensors)

    def _save_module(self, module: nn.Module) -> None:
        cls = module.__class__
        self._undo.append(lambda: _restore_class(module, cls))
        self._save_class(cls)
        for buffer in module._buffers.values():
            if buffer is not None and not is_lazy(buffer) and not buffer.is_meta:
                self._save_values(buffer)
                self._visited.add(id(buffer))
                self._alive.append(buffer)
        attributes = module.__dict__
        self._undo.append(partial(_restore_dict, attributes, dict(attributes)))
        empty = []
        for name, value in attributes.items():
            if value.__class__ in _ATOMS:
                continue
            if value.__class__ in _PLAIN_DICTS and not value:
                empty.append(value)
            elif not self._hooks and name.endswith("_hooks"):
                self._undo.append(partial(_restore_dict, value, dict(value)))
            else:
                self._pending.append(value)
        self._undo.append(partial(_clear_all, empty))

    def _save_dict(self, table: dict[Any, Any]) -> None:
        if table:
            self._add(table.values())
        self._undo.append(partial(_restore_dict, table, dict(table)))

    def _save_attributes(self, value: Any) -> None:
        cls = value.__class__
        if root_package(cls.__module__) in _FOREIGN or isinstance(value, Dataset):
            return
        table = getattr(value, "__dict__", None)
        if isinstance(table, dict):
            self._save_dict(table)
        for slot in _slots(cls):
            if hasattr(value, slot):
                content = getattr(value, slot)
                self._undo.append(partial(setattr, value, slot, content))
                self._add((content,))

    def _save_class(self, cls: type) -> None:
        """Save the attributes of a class, and the variables that its code uses."""
        for base in cls.__mro__:
            if base in self._classes or root_package(base.__module__) in _FOREIGN:
                continue
            self._classes.add(base)
            table = {k: v for k, v in vars(base).items() if not k.startswith("__")}
            self._undo.append(partial(_restore_class_attributes, base, table))
            values = map(plain_function, table.values())
            self._add(v for v in values if not isinstance(v, FunctionType | type))
            for function in forward_functions(base):
                self._visit(function)

    def _save_function(self, function: FunctionType) -> None:
        """Save default arguments, closure variables and global variables."""
        if root_package(function.__module__ or "") in _FOREIGN:
            return
        self._add((function.__defaults__, function.__kwdefaults__))
        if function.__dict__:
            self._save_dict(function.__dict__)
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # an empty cell
                content = cell.cell_contents
                self._undo.append(partial(setattr, cell, "cell_contents", content))
                self._add((content,))
        assigned = used_names(function.__code__).assigned
        package = root_package(function.__module__ or "")
        for space, name in used_globals(function, package):
            if name in assigned:
                self._undo.append(partial(space.__setitem__, name, space[name]))
            self._save_variable(space[name], package)
        for name in assigned - function.__globals__.keys():
            self._undo.append(partial(function.__globals__.pop, name, None))

    def _save_variable(self, value: Any, package: str) -> None:
        """Save a global variable, if it may be a cache or a function of the network."""
        if isinstance(value, FunctionType):
            if root_package(value.__module__ or "") == package:
                self._pending.append(value)
        elif not isinstance(value, type):
            self._add((value,))


def _clear_all(tables: Sequence[dict[Any, Any]]) -> None:
    for table in tables:
        if table:
            table.clear()


def _slots(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__"):
                yield slot


def _misses(cache: Any) -> int:
    return int(cache.cache_info().misses)


def _clear_if_used(cache: Any, misses: int) -> None:
    if _misses(cache) != misses:
        cache.cache_clear()


def _restore_dict(table: dict[Any, Any], saved: dict[Any, Any]) -> None:
    same = len(table) == len(saved) and all(map(is_, table.values(), saved.values()))
    if not (same and all(map(is_, table, saved))):
        table.clear()
        table.update(saved)


def _restore_list(values: Any, saved: list[Any]) -> None:
    if len(values) != len(saved) or not all(map(is_, values, saved)):
        values.clear()
        values.extend(saved)


def _restore_set(values: set[Any], saved: set[Any]) -> None:
    if values != saved:
        values.clear()
        values.update(saved)


def _restore_modes(modes: Sequence[tuple[Any, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


def _restore_class(module: nn.Module, cls: type) -> None:
    if module.__class__ is not cls:  # a lazy layer becomes another layer
        module.__class__ = cls


def _restore_class_attributes(cls: type, saved: dict[str, Any]) -> None:
    for name in [k for k in vars(cls) if not k.startswith("__") and k not in saved]:
        delattr(cls, name)
    for name, value in saved.items():
        if vars(cls).get(name) is not value:
            setattr(cls, name, value)


def _handle(parameter: nn.Parameter) -> tuple[nn.Parameter, Tensor, Any, bool]:
    return parameter, parameter.data, parameter.grad, parameter.requires_grad


def _restore_parameter(
    parameter: nn.Parameter, data: Tensor, grad: Tensor | None, requires_grad: bool
) -> None:
    if parameter.data_ptr() != data.data_ptr() or parameter.shape != data.shape:
        parameter.data = data
    if parameter.grad is not grad:
        parameter.grad = grad
    if parameter.requires_grad is not requires_grad:
        parameter.requires_grad = requires_grad


def _restore_values(tensor: Tensor, saved: Tensor) -> None:
    if tensor.shape == saved.shape and torch.equal(tensor, saved):
        return
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        if tensor.shape != saved.shape:
            tensor.resize_(saved.shape)
        tensor.copy_(saved)
