"""Trace of a forward pass: every torch operation with its inputs and outputs.

Only operations that depend on the image are steps. If a module overwrites parts of
tensors, so that earlier values are lost, the whole module becomes one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from striate.core.errors import GeometryError
from striate.core.format import format_bytes
from striate.core.hooks import call_name, evaluation_mode, trace_modules
from striate.core.logits import find_logits
from striate.interpret.activations_at import check_image_batch, run_model

MAX_BYTES = 2 * 10**9  # bytes of all tensors in a trace


@dataclass(frozen=True)
class TensorRef:
    """Reference to an output tensor by step number and output index."""

    step: int
    index: int = 0


@dataclass(eq=False)
class TraceStep:
    """Record of one operation on tensors that depend on the image."""

    module: str  # call of the module it ran in; empty for the model's own forward
    # Name in torch; the class of a module that is one step; `image` for the first step.
    name: str
    call: Callable[..., Any]  # function that computes the step again
    # Arguments, with a `TensorRef` for each tensor that depends on the image.
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]  # keyword arguments, in the same form
    results: list[Tensor]  # output tensors
    func: Any = None  # the torch operation; None for a module or the image
    constants: frozenset[int] = frozenset()  # storages of its constant arguments

    @cached_property
    def refs(self) -> list[TensorRef]:
        """References to all inputs that depend on the image, in argument order."""
        inputs = tree_leaves((self.args, dict(self.kwargs)))
        return [item for item in inputs if isinstance(item, TensorRef)]

    def recompute(self, value: Callable[[TensorRef], Tensor]) -> list[Tensor]:
        """Compute the step again, with `value(ref)` as the tensor of each reference."""

        def fill(item: Any) -> Any:
            return value(item) if isinstance(item, TensorRef) else item

        args, kwargs = tree_map(fill, (self.args, dict(self.kwargs)))
        if is_in_place(self.func):
            args = (args[0].clone(), *args[1:])
        return nested_tensors(self.call(*args, **kwargs))

    def copy_constants(self, storage: int) -> None:
        """Copy the constant arguments in a storage, before the storage is written."""

        def copied(item: Any) -> Any:
            is_shared = isinstance(item, Tensor) and _storage(item) == storage
            return item.clone() if is_shared else item

        if storage in self.constants:
            self.args, self.kwargs = tree_map(copied, (self.args, dict(self.kwargs)))
            self.constants -= {storage}


@dataclass
class _Frame:
    call: str
    module: nn.Module
    inputs: tuple[Any, ...]
    start: int
    broken: bool = False


@dataclass(eq=False)
class Trace:
    """Trace of a forward pass: the recorded steps, in execution order."""

    # Steps in the order they ran; the first is the image.
    steps: list[TraceStep] = field(default_factory=list)
    # Output of each module call, by name.
    module_outputs: dict[str, TensorRef] = field(default_factory=dict)
    output: TensorRef = TensorRef(0)  # output of the network: its logits
    # Whether the network read values as Python numbers (`.item()`, `if x.max() > 1`):
    # for another image, its forward pass may have other steps and constants.
    data_dependent: bool = False

    def value(self, ref: TensorRef) -> Tensor:
        """Return the tensor of a reference."""
        return self.steps[ref.step].results[ref.index]


def record_trace(model: nn.Module, x: Tensor) -> Trace:
    """Run images through the network; record each operation and keep its outputs.

    Raises:
        GeometryError: The network rejects the images, cannot be traced, or the outputs
            take more than `MAX_BYTES`.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
        >>> trace = record_trace(model, torch.rand(1, 1, 5, 5))
        >>> [step.name for step in trace.steps], trace.module_outputs["0"]
        (['image', 'convolution', 'relu_'], TensorRef(step=1, index=0))
    """
    check_image_batch(x)
    with (
        evaluation_mode(model),
        attention_as_operations(),
        torch.inference_mode(False),  # so that tensors can be differentiated later
        torch.no_grad(),
    ):
        x = x.detach().clone()
        recorder = _Recorder(x)
        try:
            with (
                trace_modules(model, enter=recorder.enter, leave=recorder.leave),
                recorder,
            ):
                output = run_model(model, x)
        except _TooLarge:
            size = "×".join(map(str, x.shape))
            limit = format_bytes(MAX_BYTES)
            what = f"the activations of a {size} batch take more than {limit}"
            raise GeometryError(what, fix="use a smaller image") from None
    return recorder.finished(output)


class _TooLarge(BaseException):
    """Signal that a trace is too large; not caught by `except Exception`."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        image = TraceStep(
            module="", name="image", call=_no_call, args=(), kwargs={}, results=[x]
        )
        self.trace = Trace(steps=[image])
        self._refs: dict[int, TensorRef] = {id(x): TensorRef(0)}
        self._alive: list[Any] = [x]  # so that no id is reused
        self._shared: dict[int, list[Tensor]] = {_storage(x): [x]}
        self._bytes = x.nbytes
        self._stale: set[int] = set()
        self._written: set[int] = set()  # storages with values that depend on the image
        self._frames: list[_Frame] = []
        self._calls: dict[str, int] = {}
        self._lost = False
        self._paused = False

    # --- modules ---

    def enter(self, name: str, module: nn.Module, inputs: object) -> None:
        """Record the start of a module call."""
        self._calls[name] = self._calls.get(name, 0) + 1
        call = call_name(name, self._calls[name]) if name else ""
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        refs = tree_map(self._ref, inputs)
        self._frames.append(_Frame(call, module, refs, len(self.trace.steps)))

    def leave(self, name: str, module: nn.Module, output: object) -> None:
        """Record the end of a module call; untraceable modules become one step."""
        frame = self._frames.pop()
        while frame.module is not module:
            frame = self._frames.pop()
        results = nested_tensors(output)
        # The module may return an overwritten tensor, whose traced values are old.
        stale = any(id(result) in self._stale for result in results)
        if (frame.broken or stale) and results:
            self._merge_module(frame, results)
        if results and id(results[0]) in self._refs and frame.call:
            self.trace.module_outputs[frame.call] = self._refs[id(results[0])]

    def _merge_module(self, frame: _Frame, results: list[Tensor]) -> None:
        del self.trace.steps[frame.start :]
        outputs = self.trace.module_outputs.items()
        earlier = {call: ref for call, ref in outputs if ref.step < frame.start}
        self.trace.module_outputs = earlier
        self._paused = True
        copies = [result.clone() for result in results]
        self._paused = False
        step = TraceStep(
            module=frame.call,
            name=type(frame.module).__name__,
            call=partial(_call_untouched, frame.module),
            args=frame.inputs,
            kwargs={},
            results=copies,
        )
        if not step.refs or any(ref.step >= frame.start for ref in step.refs):
            self._lost = True
        self.trace.steps.append(step)
        self._refer_to(results)

    def _refer_to(self, results: list[Tensor]) -> None:
        """Record that tensors are the results of the last recorded step."""
        for index, result in enumerate(results):
            self._refs[id(result)] = TensorRef(len(self.trace.steps) - 1, index)
            self._alive.append(result)
            self._stale.discard(id(result))

    # --- operations ---

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        inputs = nested_tensors((args, kwargs))
        for tensor in inputs:
            if id(tensor) not in self._refs and _storage(tensor) in self._written:
                self._mark_stale(tensor)
        tracked = [tensor for tensor in inputs if id(tensor) in self._refs]
        if any(id(tensor) in self._stale for tensor in tracked):
            self._mark_broken()
        refs = tree_map(self._ref, (args, kwargs)) if tracked else None
        if is_in_place(func):
            refs = self._before_write(func, args, kwargs, refs)
        out = func(*args, **kwargs)
        if refs is not None:
            self._add(func, refs, nested_tensors(out))
        return out

    def _mark_stale(self, tensor: Tensor) -> None:
        """Record that the trace has no step for the values of a tensor."""
        self._alive.append(tensor)
        self._refs[id(tensor)] = TensorRef(0)
        self._stale.add(id(tensor))

    def _add(self, func: Any, refs: Any, results: list[Tensor]) -> None:
        if not results:
            self.trace.data_dependent = True
            return
        step = TraceStep(
            module=self._frames[-1].call if self._frames else "",
            name=func.overloadpacket.__name__,
            call=func,
            args=refs[0],
            kwargs=refs[1],
            results=results,
            func=func,
            constants=frozenset(map(_storage, nested_tensors(refs))),
        )
        self.trace.steps.append(step)
        self._refer_to(results)
        for result in results:
            self._shared.setdefault(_storage(result), []).append(result)
        # A view of an earlier tensor takes no memory.
        new = [r for r in results if len(self._shared[_storage(r)]) == 1]
        self._bytes += sum(result.nbytes for result in new)
        if self._bytes > MAX_BYTES:
            raise _TooLarge

    def _before_write(self, func: Any, args: Any, kwargs: Any, refs: Any) -> Any:
        """Copy recorded tensors before a write; mark their views as outdated.

        Return the references to the arguments, with a copy of a written constant.
        """
        arguments = zip(func._schema.arguments, args, strict=False)
        written = [
            value
            for argument, value in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        if refs is not None and (kwargs.get("out") is not None or len(written) != 1):
            self._mark_broken()
        written += [kwargs["out"]] if kwargs.get("out") is not None else []
        for target in nested_tensors(written):
            storage = _storage(target)
            for step in self.trace.steps:
                step.results = [self._copied(r, storage) for r in step.results]
                step.copy_constants(storage)
            others = self._shared.get(storage, [])
            self._stale |= {id(other) for other in others if other is not target}
            if refs is None:
                continue
            self._written.add(storage)
            if id(target) not in self._refs:
                self._mark_stale(target)
                before = target.clone()
                refs = tree_map(partial(_replaced, old=target, new=before), refs)
        return refs

    def _copied(self, result: Tensor, storage: int) -> Tensor:
        if _storage(result) != storage:
            return result
        self._bytes += result.nbytes
        return result.clone()

    def _mark_broken(self) -> None:
        if self._frames:
            self._frames[-1].broken = True
        self._lost = self._lost or not self._frames

    def _ref(self, item: Any) -> Any:
        return self._refs.get(id(item), item) if isinstance(item, Tensor) else item

    def finished(self, output: object) -> Trace:
        """Return the finished trace."""
        logits = find_logits(output)
        results = nested_tensors(output) if logits is None else [logits]
        if self._lost or not results or id(results[0]) not in self._refs:
            what = "the operations of this network cannot be traced"
            fix = "its own forward() overwrites parts of tensors; "
            fix += "move these operations to a submodule"
            raise GeometryError(what, fix=fix)
        self.trace.output = self._refs[id(results[0])]
        return self.trace


def _call_untouched(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Run a module in evaluation mode, without side effects."""
    with evaluation_mode(module):
        return module(*args, **kwargs)


def _replaced(item: Any, old: Tensor, new: Tensor) -> Any:
    return new if item is old else item


def _no_call() -> None:
    raise AssertionError(
        "the requested value is the input image: no operation computes it"
    )


@contextmanager
def attention_as_operations() -> Iterator[None]:
    """Context manager: `nn.MultiheadAttention` runs single differentiable operations.

    Without gradients, torch would run a fused operation that has no derivative.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def nested_tensors(values: Any) -> list[Tensor]:
    """Return all tensors of nested containers, in order.

    Example:
        >>> len(nested_tensors((torch.zeros(1), [torch.zeros(2), 3])))
        2
    """
    return [item for item in tree_leaves(values) if isinstance(item, Tensor)]


def is_in_place(func: Any) -> bool:
    """Return whether a torch operation works in place.

    Example:
        >>> aten = torch.ops.aten
        >>> is_in_place(aten.relu_.default), is_in_place(aten.relu.default)
        (True, False)
    """
    return func is not None and bool(func._schema.is_mutable)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
