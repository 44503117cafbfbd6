"""A forward pass as a list of steps: what was computed from what, with its numbers.

Only what depends on the image is a step. Where a network writes into parts of
tensors, so that the numbers before are lost, the module that does so becomes one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from striate.core.errors import GeometryError
from striate.core.format import format_bytes
from striate.core.hooks import call_name, evaluation_mode, trace_modules
from striate.interpret.activations_at import check_batch, run

MOST = 2 * 10**9  # bytes of numbers on a tape


@dataclass(frozen=True)
class Ref:
    """A tensor that some step made: its number, and which of its results."""

    step: int
    part: int = 0


@dataclass(eq=False)
class Step:
    """One operation on numbers that depend on the image.

    Args:
        place: The module's call it ran in; empty for the network's own forward.
        name: torch's name for it, a module's class where it could not be followed,
            `image` for the first.
        call: Computes it again.
        args: What it was given, a `Ref` for everything that depends on the image.
        kwargs: Likewise.
        results: Its tensors.
        func: torch's operation; None for a module's class and the image.
    """

    place: str
    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    results: list[Tensor]
    func: Any = None

    @cached_property
    def refs(self) -> list[Ref]:
        """Return what it was given, in order."""
        given = items_of((self.args, self.kwargs))
        return [item for item in given if isinstance(item, Ref)]

    def again(self, value: Callable[[Ref], Tensor]) -> list[Tensor]:
        """Compute it with other numbers."""

        def fill(item: Any) -> Any:
            return value(item) if isinstance(item, Ref) else item

        args, kwargs = mapped(fill, self.args), mapped(fill, dict(self.kwargs))
        if writes(self.func):
            args = (args[0].clone(), *args[1:])
        return tensors_of(self.call(*args, **kwargs))


@dataclass
class _Frame:
    call: str
    module: nn.Module
    given: tuple[Any, ...]
    start: int
    broken: bool = False


@dataclass(eq=False)
class Trace:
    """The steps of one image's forward pass.

    Args:
        steps: In the order they ran; the first is the image.
        ends: What each module's call gave, by name.
        output: What the network gave.
    """

    steps: list[Step] = field(default_factory=list)
    ends: dict[str, Ref] = field(default_factory=dict)
    output: Ref = Ref(0)

    def value(self, ref: Ref) -> Tensor:
        """Return a tensor's numbers."""
        return self.steps[ref.step].results[ref.part]


def record(model: nn.Module, x: Tensor) -> Trace:
    """Run images and write everything down; memory holds every step's numbers.

    Args:
        model: Any network; left as it was.
        x: Images as the network takes them, (N, C, H, W).

    Raises:
        GeometryError: The network refuses them, cannot be followed at all, or makes
            more than `MOST` bytes of them.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
        >>> tape = record(model, torch.rand(1, 1, 5, 5))
        >>> [step.name for step in tape.steps], tape.ends["0"]
        (['image', 'convolution', 'relu_'], Ref(step=1, part=0))
    """
    check_batch(x)
    with (
        evaluation_mode(model),
        torch.inference_mode(False),  # so that numbers can be differentiated later
        torch.no_grad(),
    ):
        x = x.detach().clone()
        recorder = _Recorder(x)
        try:
            with (
                trace_modules(model, enter=recorder.enter, leave=recorder.leave),
                recorder,
            ):
                output = run(model, x)
        except _Full:
            size = "×".join(map(str, x.shape))
            what = f"the numbers of a {size} batch take more than {format_bytes(MOST)}"
            raise GeometryError(what, fix="give a smaller image") from None
    return recorder.finished(output)


class _Full(BaseException):
    """The tape is; no `except Exception` of a network's own swallows it."""


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        image = Step(
            place="", name="image", call=_nothing, args=(), kwargs={}, results=[x]
        )
        self.tape = Trace(steps=[image])
        self._refs: dict[int, Ref] = {id(x): Ref(0)}
        self._alive: list[Any] = [x]  # so that no id is given twice
        self._shared: dict[int, list[Tensor]] = {_storage(x): [x]}
        self._held = x.nbytes
        self._stale: set[int] = set()
        self._frames: list[_Frame] = []
        self._calls: dict[str, int] = {}
        self._lost = False
        self._deaf = False

    # --- modules ---

    def enter(self, name: str, module: nn.Module, inputs: object) -> None:
        """Begin a module's call."""
        self._calls[name] = self._calls.get(name, 0) + 1
        call = call_name(name, self._calls[name]) if name else ""
        given = inputs if isinstance(inputs, tuple) else (inputs,)
        refs = mapped(self._ref, given)
        self._frames.append(_Frame(call, module, refs, len(self.tape.steps)))

    def leave(self, name: str, module: nn.Module, output: object) -> None:
        """End a module's call; make it one step where it could not be followed."""
        frame = self._frames.pop()
        while frame.module is not module:
            frame = self._frames.pop()
        results = tensors_of(output)
        # It may give away what was written into, whose numbers on the tape are old.
        stale = any(id(result) in self._stale for result in results)
        if (frame.broken or stale) and results:
            self._unite(frame, results)
        if results and id(results[0]) in self._refs and frame.call:
            self.tape.ends[frame.call] = self._refs[id(results[0])]

    def _unite(self, frame: _Frame, results: list[Tensor]) -> None:
        del self.tape.steps[frame.start :]
        self.tape.ends = {
            call: ref for call, ref in self.tape.ends.items() if ref.step < frame.start
        }
        self._deaf = True
        kept = [result.clone() for result in results]
        self._deaf = False
        step = Step(
            place=frame.call,
            name=type(frame.module).__name__,
            call=_left_alone(frame.module),
            args=frame.given,
            kwargs={},
            results=kept,
        )
        if not step.refs or any(ref.step >= frame.start for ref in step.refs):
            self._lost = True
        self.tape.steps.append(step)
        for part, result in enumerate(results):
            self._stale.discard(id(result))
            self._refs[id(result)] = Ref(len(self.tape.steps) - 1, part)
            self._alive.append(result)

    # --- operations ---

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._deaf:
            return func(*args, **kwargs)
        given = tensors_of((args, kwargs))
        seen = [tensor for tensor in given if id(tensor) in self._refs]
        if any(id(tensor) in self._stale for tensor in seen):
            self._break()
        refs = mapped(self._ref, (args, kwargs)) if seen else None
        if writes(func):
            self._before_write(func, args, kwargs)
        out = func(*args, **kwargs)
        if refs is not None:
            self._add(func, refs, tensors_of(out))
        return out

    def _add(self, func: Any, refs: Any, results: list[Tensor]) -> None:
        step = Step(
            place=self._frames[-1].call if self._frames else "",
            name=func.overloadpacket.__name__,
            call=func,
            args=refs[0],
            kwargs=refs[1],
            results=results,
            func=func,
        )
        self.tape.steps.append(step)
        for part, result in enumerate(results):
            self._refs[id(result)] = Ref(len(self.tape.steps) - 1, part)
            self._alive.append(result)
            self._stale.discard(id(result))
            self._shared.setdefault(_storage(result), []).append(result)
        self._weigh(results)

    def _weigh(self, results: list[Tensor]) -> None:
        """Count new numbers; a view of old ones is none."""
        new = [r for r in results if len(self._shared[_storage(r)]) == 1]
        self._held += sum(result.nbytes for result in new)
        if self._held > MOST:
            raise _Full

    def _before_write(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep the numbers that are about to go; distrust other names for them."""
        arguments = zip(func._schema.arguments, args, strict=False)
        targets = [
            value
            for argument, value in arguments
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        if kwargs.get("out") is not None or len(targets) != 1:
            self._break()
            targets += [kwargs["out"]] if kwargs.get("out") is not None else []
        for target in tensors_of(targets):
            place = _storage(target)
            for step in self.tape.steps:
                step.results = [self._kept(r, place) for r in step.results]
            others = self._shared.get(place, [])
            self._stale |= {id(other) for other in others if other is not target}
            if id(target) not in self._refs:
                self._alive.append(target)
                self._refs[id(target)] = Ref(0)
                self._stale.add(id(target))

    def _kept(self, result: Tensor, place: int) -> Tensor:
        if _storage(result) != place:
            return result
        self._held += result.nbytes
        return result.clone()

    def _break(self) -> None:
        if self._frames:
            self._frames[-1].broken = True
        self._lost = self._lost or not self._frames

    def _ref(self, item: Any) -> Any:
        return self._refs.get(id(item), item) if isinstance(item, Tensor) else item

    def finished(self, output: object) -> Trace:
        """Return the tape."""
        results = tensors_of(output)
        if self._lost or not results or id(results[0]) not in self._refs:
            what = "the network's arithmetic cannot be followed"
            fix = "it writes into parts of tensors outside of any module of its own"
            raise GeometryError(what, fix=fix)
        self.tape.output = self._refs[id(results[0])]
        return self.tape


def _left_alone(module: nn.Module) -> Callable[..., Any]:
    """Return a module's call as it was recorded: in evaluation, and without a trace."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with evaluation_mode(module):
            return module(*args, **kwargs)

    return call


def _nothing() -> None:
    raise AssertionError("the image is not computed")


def tensors_of(values: Any) -> list[Tensor]:
    """Return the tensors in nested containers, in order.

    Example:
        >>> len(tensors_of((torch.zeros(1), [torch.zeros(2), 3])))
        2
    """
    return [item for item in items_of(values) if isinstance(item, Tensor)]


def items_of(values: Any) -> Iterator[Any]:
    """Yield what nested containers hold, in order.

    Example:
        >>> list(items_of((1, [2, {"a": 3}])))
        [1, 2, 3]
    """
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, list | tuple):
        yield values
        return
    for value in values:
        yield from items_of(value)


def mapped(change: Callable[[Any], Any], values: Any) -> Any:
    """Return nested containers with everything in them changed.

    Example:
        >>> mapped(str, (1, [2, {"a": 3}]))
        ('1', ['2', {'a': '3'}])
    """
    if isinstance(values, dict):
        return {key: mapped(change, value) for key, value in values.items()}
    if isinstance(values, list):
        return [mapped(change, value) for value in values]
    if isinstance(values, tuple):
        made = [mapped(change, value) for value in values]
        named = hasattr(values, "_fields")
        return type(values)(*made) if named else tuple(made)
    return change(values)


def writes(func: Any) -> bool:
    """Tell an operation that changes what it is given.

    Example:
        >>> writes(torch.ops.aten.relu_.default), writes(torch.ops.aten.relu.default)
        (True, False)
    """
    return func is not None and bool(func._schema.is_mutable)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
