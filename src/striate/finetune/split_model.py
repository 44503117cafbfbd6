"""Split a model at a named layer into a backbone (up to the layer) and a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core.errors import SettingError
from striate.core.hooks import StopForward, evaluation_mode, trace_modules
from striate.core.layer_names import layer_name, named_layers
from striate.core.registry import unknown_name_error

OnOutput = Callable[[object], None]
BEFORE = "before "  # a cut point in front of a layer, where none is named behind one


@dataclass(frozen=True, kw_only=True)
class CutPoint:
    """Point at which a model is split into backbone and head."""

    name: str  # the last layer of the backbone, or `before` the first layer of the head
    backbone: tuple[str, ...]  # names of the largest modules that make up the backbone
    # the model's own layers behind the cut point, in sequence
    head: nn.Sequential = field(repr=False)

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the features of a batch at the cut point; the head does not run.

        The caller sets evaluation mode (`evaluation_mode`) and the gradient mode.
        """
        outputs: list[Tensor] = []

        def keep(value: object) -> None:
            # A copy: an in-place layer behind the cut point would change it.
            outputs.append(_tensor(value, self.name).clone())
            raise StopForward

        with hook_at(model, self.name, keep):
            try:
                model(x)
            except StopForward:
                return outputs[0]
        raise SettingError(f"layer {self.name} was not executed", where="--cut")


@contextmanager
def hook_at(model: nn.Module, name: str, on_output: OnOutput) -> Iterator[None]:
    """Context manager: call `on_output` with the tensor at a cut point in each pass."""
    module = dict(named_layers(model))[name.removeprefix(BEFORE)]

    def before(
        module: nn.Module, inputs: tuple[object, ...], named: dict[str, object]
    ) -> None:
        # A layer may be called as fc(input=x) too.
        on_output(next(iter((*inputs, *named.values())), None))

    def after(module: nn.Module, inputs: object, output: object) -> None:
        on_output(output)

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
        what = f"layer {name} returns a {type(value).__name__}, not a tensor"
        raise SettingError(what, where="--cut", fix=f"use a layer inside {name}")
    return value


@dataclass
class ModuleCall:
    """Call of a module in a forward pass, with the index of the enclosing call."""

    name: str
    module: nn.Module
    parent: int
    ended: bool = False


Calls = Sequence[ModuleCall]


def cut_at(model: nn.Module, x: Tensor, name: str | None = None) -> CutPoint:
    """Return the cut point behind a layer; default: before the last layer with weights.

    The cut is checked: backbone and head must reproduce the model's output on `x`. If
    the layer runs several times, the last run counts. `before NAME` means the cut point
    in front of the layer.

    Raises:
        UnknownNameError: No layer has this name; lists similar names.
        SettingError: The layers behind the cut point are not a simple chain; lists
            possible cut points.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Dropout(), nn.Linear(8, 3)
        >>> cut = cut_at(nn.Sequential(*layers), torch.rand(2, 1, 4, 4))
        >>> cut.name, len(cut.head), cut.backbone
        ('1', 2, ('0', '1'))
    """
    calls, output = record_calls(model, x)
    if name is None:
        return _before_last_layer(model, calls, x, output)
    layers = [call.name for call in calls if call.name]
    layer = name.removeprefix(BEFORE)
    if layer not in layers:
        raise unknown_name_error("layer", layer, layers, where="--cut")
    cut = (cut_behind if layer == name else cut_before)(model, calls, layer)
    if not is_exact(model, cut, x, output):
        fix = f"use one of: {', '.join(_exact_cuts(model, calls, x, output))}"
        where = name if layer != name else f"behind {name}"
        what = f"cannot split {where}: the layers after that point are no simple chain"
        raise SettingError(what, where="--cut", fix=fix)
    return cut


def record_calls(model: nn.Module, x: Tensor) -> tuple[list[ModuleCall], Tensor]:
    """Return all module calls of a forward pass in order, and the model's output."""
    calls: list[ModuleCall] = []
    open_: list[int] = []

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        calls.append(ModuleCall(name, module, open_[-1] if open_ else -1))
        open_.append(len(calls) - 1)

    def leave(name: str, module: nn.Module, output: object) -> None:
        calls[open_.pop()].ended = True

    with (
        evaluation_mode(model),
        torch.no_grad(),
        trace_modules(model, enter=enter, leave=leave),
    ):
        output = model(x)
    return calls, output


def cut_behind(model: nn.Module, calls: Calls, name: str) -> CutPoint:
    """Return the cut point behind a layer that ran, without checking the split."""
    last = max(i for i, call in enumerate(calls) if call.name == name)
    return _cut(model, name, calls, _later(calls, last))


def cut_before(model: nn.Module, calls: Calls, name: str) -> CutPoint:
    """Return the cut point in front of a layer that ran, without checking the split."""
    last = max(i for i, call in enumerate(calls) if call.name == name)
    return _cut(model, BEFORE + name, calls, [last, *_later(calls, last)])


def _later(calls: Calls, index: int) -> list[int]:
    """Return the indices of calls after a call, at its level and all outer levels."""
    later: list[int] = []
    while index >= 0:
        parent = calls[index].parent
        later += [i for i, c in enumerate(calls) if i > index and c.parent == parent]
        index = parent
    return later


def _cut(model: nn.Module, name: str, calls: Calls, later: Sequence[int]) -> CutPoint:
    head = nn.Sequential(*(calls[i].module for i in later))
    head_ids = {id(module) for module in head.modules()}
    call_ids = {id(call.module) for call in calls}
    backbone = _largest(model, "", head_ids, call_ids)
    return CutPoint(name=name, backbone=tuple(backbone), head=head)


def _largest(module: nn.Module, name: str, head: set[int], ran: set[int]) -> list[str]:
    """Return the names of the largest modules that ran and contain no head layer."""
    names: list[str] = []
    for key, child in module.named_children():
        inner = f"{name}.{key}" if name else key
        ids = {id(descendant) for descendant in child.modules()}
        if id(child) in head or ids.isdisjoint(ran):
            continue
        if ids.isdisjoint(head):
            names.append(layer_name(inner))
        else:
            names += _largest(child, inner, head, ran)
    return names


def _before_last_layer(
    model: nn.Module, calls: Calls, x: Tensor, output: Tensor
) -> CutPoint:
    """Return the cut point before the last layer with weights and preceding dropout."""
    leaves = [i for i, call in enumerate(calls) if not any(call.module.children())]
    weighted = [i for i in leaves if any(True for _ in calls[i].module.parameters())]
    if not weighted:
        raise SettingError("the model has no weights", where="--cut")
    first = leaves.index(weighted[-1])
    while first > 0 and isinstance(calls[leaves[first - 1]].module, _DropoutNd):
        first -= 1
    if first > 0:
        cut = cut_behind(model, calls, calls[leaves[first - 1]].name)
        if is_exact(model, cut, x, output):
            return cut
    last = calls[weighted[-1]].name
    cut = cut_before(model, calls, last)
    if not is_exact(model, cut, x, output):
        what = f"the code after {last} (last layer with weights) is not in a layer"
        raise SettingError(what, where="--cut", fix="choose a layer: --cut LAYER")
    return cut


def is_exact(model: nn.Module, cut: CutPoint, x: Tensor, output: Tensor) -> bool:
    """Return whether backbone and head in sequence give the output of the model."""
    with evaluation_mode(model), torch.no_grad():
        try:
            result = cut.head(cut.features(model, x))
        except (RuntimeError, ValueError, TypeError, SettingError):
            return False
    if not isinstance(result, Tensor) or result.shape != output.shape:
        return False
    return bool(torch.allclose(result, output, rtol=1e-5, atol=1e-6))


def _exact_cuts(model: nn.Module, calls: Calls, x: Tensor, output: Tensor) -> list[str]:
    """Return the names of the outermost layers behind which the model can be split."""
    outer = dict.fromkeys(call.name for call in calls if call.parent == 0)
    cuts = (cut_behind(model, calls, name) for name in outer)
    return [cut.name for cut in cuts if is_exact(model, cut, x, output)]


def probe_batch(shape: tuple[int, int, int], count: int = 2) -> Tensor:
    """Return a batch of noise with a fixed random seed, (count, C, H, W).

    Example:
        >>> probe_batch((1, 2, 2)).shape
        torch.Size([2, 1, 2, 2])
    """
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *shape, generator=generator)
