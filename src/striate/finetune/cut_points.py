"""Cut points of a model, and the averaged features at all cut points in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core.hooks import evaluation_mode
from striate.core.layer_names import named_layers
from striate.finetune.split_model import (
    Calls,
    CutPoint,
    ModuleCall,
    cut_at,
    cut_behind,
    hook_at,
    is_exact,
    record_calls,
)

MAX_CUT_POINTS = 24  # of deeper models, evenly spaced ones


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Layer or block with weights, together with following layers without weights."""

    # name of the last layer of the stage, behind which the model can be split
    name: str
    # names of the modules that have their own parameters or buffers
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CutPoints:
    """Cut points of a model, in order from the input to the classifier."""

    # the cut points; the last one is in front of the classifier
    cuts: tuple[CutPoint, ...]
    widths: tuple[int, ...]  # number of averaged features per image at each cut point
    # whether the features at the last cut point are a vector, which needs no averaging
    last_is_vector: bool

    @property
    def name(self) -> str:
        """Return a name for the features, unique among all features of the model."""
        return f"averages at {', '.join(cut.name for cut in self.cuts)}"

    @property
    def backbone(self) -> tuple[str, ...]:
        """Return the names of all modules except those behind the last cut point."""
        return self.cuts[-1].backbone

    def columns(self, index: int) -> slice:
        """Return the slice of feature columns that belong to a cut point."""
        index %= len(self.widths)
        first = sum(self.widths[:index])
        return slice(first, first + self.widths[index])

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return a batch's averaged features at all cut points, (N, sum of widths)."""
        averages = _averages(model, self.cuts, x)
        return torch.cat([averages[cut.name] for cut in self.cuts], 1)


def find_stages(model: nn.Module, x: Tensor) -> tuple[Stage, ...]:
    """Return the stages of a model, from the input to the classifier.

    A stage begins with a layer or block that has a kernel, and ends before the next
    stage. An `nn.Sequential` of several stages is split into its stages; any other
    module is one block.

    Example:
        >>> conv, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        >>> model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        >>> [stage.name for stage in find_stages(model, torch.rand(2, 1, 4, 4))]
        ['2', '4']
    """
    names = {module: name for name, module in named_layers(model)}
    groups = _group_calls(record_calls(model, x)[0])
    return tuple(Stage(name=_end(g), layers=_layers(g, names)) for g in groups)


def find_cut_points(model: nn.Module, x: Tensor) -> CutPoints:
    """Return the cut points of a model: ends of stages where the model can be split.

    Raises:
        SettingError: The model cannot be split even before the classifier.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 2), nn.Flatten()
        >>> model = nn.Sequential(*layers, nn.Linear(4, 3))
        >>> points = find_cut_points(model, torch.rand(2, 1, 4, 4))
        >>> [cut.name for cut in points.cuts], points.widths, points.last_is_vector
        (['1', '3'], (2, 4), True)
    """
    calls, output = record_calls(model, x)
    last = cut_at(model, x)
    ends = dict.fromkeys(_end(group) for group in _group_calls(calls)[:-2])
    cuts = [cut_behind(model, calls, name) for name in ends]
    cuts = [cut for cut in cuts if is_exact(model, cut, x, output)]
    cuts = [*_evenly_spaced(cuts, MAX_CUT_POINTS - 1), last]
    with evaluation_mode(model), torch.no_grad():
        averages = _averages(model, cuts, x)
        vector = last.features(model, x).ndim == 2
    widths = tuple(averages[cut.name].shape[1] for cut in cuts)
    return CutPoints(cuts=tuple(cuts), widths=widths, last_is_vector=vector)


def _group_calls(calls: Calls) -> list[list[ModuleCall]]:
    """Group module calls by stage; calls before the first weights are in stage 1."""
    groups: list[list[ModuleCall]] = [[]]
    has_kernel = False
    for block in _blocks(calls, 0):
        kernel = _has_kernel(block.module)
        if kernel and has_kernel:
            groups.append([])
        has_kernel = has_kernel or kernel
        groups[-1].append(block)
    return groups


def _blocks(calls: Calls, parent: int) -> Iterator[ModuleCall]:
    """Yield the outermost module calls in order; an `nn.Sequential` may be opened."""
    for i, call in enumerate(calls):
        if call.parent != parent:
            continue
        inner = [c.module for c in calls if c.parent == i]
        several = sum(map(_has_kernel, inner)) > 1
        if isinstance(call.module, nn.Sequential) and several:
            yield from _blocks(calls, i)
        else:
            yield call


def _has_kernel(module: nn.Module) -> bool:
    return any(t.ndim > 1 for t in chain(module.parameters(), module.buffers()))


def _end(group: Calls) -> str:
    """Return the name of a stage's last layer, ignoring dropout and flatten."""
    calls = [c for c in group if not isinstance(c.module, _DropoutNd | nn.Flatten)]
    return (calls or group)[-1].name


def _layers(group: Calls, names: dict[nn.Module, str]) -> tuple[str, ...]:
    modules = chain.from_iterable(call.module.modules() for call in group)
    return tuple(dict.fromkeys(names[m] for m in modules if _has_tensors(m)))


def _has_tensors(module: nn.Module) -> bool:
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return any(True for _ in own)


def _evenly_spaced(cuts: Sequence[CutPoint], count: int) -> list[CutPoint]:
    """Return at most `count` evenly spaced cut points."""
    if len(cuts) <= count:
        return list(cuts)
    return [cuts[(i * len(cuts)) // count] for i in range(count)]


def _averages(
    model: nn.Module, cuts: Sequence[CutPoint], x: Tensor
) -> dict[str, Tensor]:
    """Return the features at every cut point, (N, width); feature maps are averaged."""
    averages: dict[str, Tensor] = {}

    def keep(name: str, value: object) -> None:
        if isinstance(value, Tensor):  # a copy either way
            mean = value.flatten(2).mean(2) if value.ndim > 2 else value.clone()
            averages[name] = mean

    with ExitStack() as stack:
        for cut in cuts:
            hook = hook_at(model, cut.name, partial(keep, cut.name))
            stack.enter_context(hook)
        model(x)
    return averages
