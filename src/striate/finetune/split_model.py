"""A network in two: the body up to a layer that is named, and the tail behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core.errors import SettingError
from striate.core.hooks import StopForward, evaluation_mode, trace_modules
from striate.core.registry import unknown_name_error

Keep = Callable[[object], None]
BEFORE = "before "  # a cut in front of a layer, where no layer stands behind which


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Where a network is cut, and its two halves; both are the network's own layers.

    Args:
        name: The last layer of the body, or `before` the first of the tail.
        body: Names of the modules that the body is made of, the largest ones.
        tail: What follows, one after the other.
    """

    name: str
    body: tuple[str, ...]
    tail: nn.Sequential = field(repr=False)

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Run a batch as far as the cut; what comes later is not computed.

        The caller lends the model (`evaluation_mode`) and chooses the gradient mode.
        """
        found: list[Tensor] = []

        def keep(value: object) -> None:
            # A copy: an in-place layer behind the cut would change it.
            found.append(_tensor(value, self.name).clone())
            raise StopForward

        with heard_at(model, self.name, keep):
            try:
                model(x)
            except StopForward:
                return found[0]
        raise SettingError(f"{self.name} did not run on this image", where="--cut")


@contextmanager
def heard_at(model: nn.Module, name: str, keep: Keep) -> Iterator[None]:
    """Hand what stands at a cut to a listener, while a model runs."""
    module = dict(model.named_modules())[name.removeprefix(BEFORE)]

    def before(
        module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
    ) -> None:
        # A layer may be called as fc(input=x) too.
        keep(next(iter((*inputs, *named.values())), None))

    def after(module: nn.Module, inputs: object, output: object) -> None:
        keep(output)

    if name.startswith(BEFORE):
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def _tensor(value: object, name: str) -> Tensor:
    if not isinstance(value, Tensor):
        what = f"{name} gives a {type(value).__name__}, not a tensor"
        raise SettingError(what, where="--cut", fix="cut at a layer inside it")
    return value


@dataclass
class Call:
    """A module that ran, within which other, and whether it is over."""

    name: str
    module: nn.Module
    parent: int
    ended: bool = False


def cut_at(model: nn.Module, x: Tensor, name: str | None = None) -> Cut:
    """Cut a network behind a layer; by default before the last dense one.

    The tail is believed only if a probe comes out the same through it.

    Args:
        model: Any network; left as it was.
        x: A batch to try it with.
        name: A dotted name; where it runs several times, the last time counts. With
            `before ` and a layer, the cut is in front of that.

    Raises:
        UnknownNameError: No layer has this name; lists the nearest.
        SettingError: The network is no chain behind that layer; lists where it is.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)
        >>> cut = cut_at(nn.Sequential(*layers), torch.rand(2, 1, 4, 4))
        >>> cut.name, len(cut.tail), cut.body
        ('1', 2, ('0', '1'))
    """
    calls, answer = recorded(model, x)
    if name is None:
        return _before_the_head(model, calls, x, answer)
    known = [call.name for call in calls if call.name]
    layer = name.removeprefix(BEFORE)
    if layer not in known:
        raise unknown_name_error("layer", layer, known, where="--cut")
    cut = (behind if layer == name else ahead)(model, calls, layer)
    if not is_right(model, cut, x, answer):
        fix = f"cut at one of: {', '.join(_possible(model, calls, x, answer))}"
        where = name if layer != name else f"behind {name}"
        what = f"{where} the network is no chain of layers, so no tail can be cut"
        raise SettingError(what, where="--cut", fix=fix)
    return cut


def recorded(model: nn.Module, x: Tensor) -> tuple[list[Call], Tensor]:
    """Return every call of a pass, in order, and the answer."""
    calls: list[Call] = []
    open_: list[int] = []

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        calls.append(Call(name, module, open_[-1] if open_ else -1))
        open_.append(len(calls) - 1)

    def leave(name: str, module: nn.Module, output: object) -> None:
        calls[open_.pop()].ended = True

    with (
        evaluation_mode(model),
        torch.no_grad(),
        trace_modules(model, enter=enter, leave=leave),
    ):
        answer = model(x)
    return calls, answer


def behind(model: nn.Module, calls: Sequence[Call], name: str) -> Cut:
    """Cut a network behind a layer that ran, whether or not that can be right."""
    at = max(i for i, call in enumerate(calls) if call.name == name)
    return _cut(model, name, calls, _later(calls, at))


def ahead(model: nn.Module, calls: Sequence[Call], name: str) -> Cut:
    """Cut a network in front of a layer that ran, whether or not that can be right."""
    at = max(i for i, call in enumerate(calls) if call.name == name)
    return _cut(model, BEFORE + name, calls, [at, *_later(calls, at)])


def _later(calls: Sequence[Call], at: int) -> list[int]:
    """Return the calls behind one: its later siblings, then its parent's, and so on."""
    found: list[int] = []
    while at >= 0:
        parent = calls[at].parent
        found += [i for i, c in enumerate(calls) if i > at and c.parent == parent]
        at = parent
    return found


def _cut(
    model: nn.Module, name: str, calls: Sequence[Call], later: Sequence[int]
) -> Cut:
    tail = nn.Sequential(*(calls[i].module for i in later))
    inside = {id(module) for module in tail.modules()}
    ran = {id(call.module) for call in calls}
    body = _largest(model, "", inside, ran)
    return Cut(name=name, body=tuple(body), tail=tail)


def _largest(module: nn.Module, name: str, tail: set[int], ran: set[int]) -> list[str]:
    """Return the names of the largest modules that ran and touch no tail."""
    found: list[str] = []
    for key, child in module.named_children():
        inner = f"{name}.{key}" if name else key
        parts = {id(part) for part in child.modules()}
        if id(child) in tail or parts.isdisjoint(ran):
            continue
        if parts.isdisjoint(tail):
            found.append(inner)
        else:
            found += _largest(child, inner, tail, ran)
    return found


def _before_the_head(
    model: nn.Module, calls: Sequence[Call], x: Tensor, answer: Tensor
) -> Cut:
    """Cut in front of the last layer that has weights, and of dropout before it."""
    leaf = [i for i, call in enumerate(calls) if not any(call.module.children())]
    held = [i for i in leaf if any(True for _ in calls[i].module.parameters())]
    if not held:
        raise SettingError("the network has no weights", where="--cut")
    place = leaf.index(held[-1])
    first = place
    while first > 0 and isinstance(calls[leaf[first - 1]].module, _DropoutNd):
        first -= 1
    if first > 0:
        cut = behind(model, calls, calls[leaf[first - 1]].name)
        if is_right(model, cut, x, answer):
            return cut
    head = calls[leaf[place]].name
    cut = ahead(model, calls, head)
    if not is_right(model, cut, x, answer):
        what = f"what follows {head}, the last dense layer, is no layer"
        raise SettingError(what, where="--cut", fix="name a layer: --cut LAYER")
    return cut


def is_right(model: nn.Module, cut: Cut, x: Tensor, answer: Tensor) -> bool:
    """Say whether a batch comes out of the tail as it does of the whole network."""
    with evaluation_mode(model), torch.no_grad():
        try:
            found = cut.tail(cut.features(model, x))
        except (RuntimeError, ValueError, TypeError, SettingError):
            return False
    if not isinstance(found, Tensor) or found.shape != answer.shape:
        return False
    return bool(torch.allclose(found, answer, rtol=1e-5, atol=1e-6))


def _possible(
    model: nn.Module, calls: Sequence[Call], x: Tensor, answer: Tensor
) -> list[str]:
    """Return the outermost layers at which the network can be cut."""
    outer = dict.fromkeys(call.name for call in calls if call.parent == 0)
    cuts = (behind(model, calls, name) for name in outer)
    return [cut.name for cut in cuts if is_right(model, cut, x, answer)]


def probe(shape: tuple[int, int, int], count: int = 2) -> Tensor:
    """Return a batch that is always the same, of noise.

    Example:
        >>> probe((1, 2, 2)).shape
        torch.Size([2, 1, 2, 2])
    """
    draw = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=draw)
