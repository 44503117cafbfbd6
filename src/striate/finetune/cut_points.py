"""Every sensible cut of a network, and what one pass sees at all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core.hooks import evaluation_mode
from striate.finetune.split_model import (
    Call,
    Cut,
    behind,
    cut_at,
    heard_at,
    is_right,
    recorded,
)

MOST = 24  # rungs; of deeper networks every so many


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A layer with weights, or a block of them, and what follows it without.

    Args:
        name: Its last layer, behind which the network is cut.
        layers: The innermost layers that hold weights or statistics.
    """

    name: str
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class CutPoints:
    """A network's cuts from the input up; the last leaves nothing but the head.

    Args:
        cuts: As `cut_at` makes them.
        widths: Numbers of an image at each, maps averaged.
        whole: What stands at the last cut is a vector, and none of it is averaged.
    """

    cuts: tuple[Cut, ...]
    widths: tuple[int, ...]
    whole: bool

    @property
    def name(self) -> str:
        """Return what tells its features from others of the same network."""
        return f"averages at {', '.join(cut.name for cut in self.cuts)}"

    @property
    def body(self) -> tuple[str, ...]:
        """Return the names of everything but the head."""
        return self.cuts[-1].body

    def columns(self, rung: int) -> slice:
        """Return which of a row's numbers are a cut's, counted from the input."""
        rung %= len(self.widths)
        first = sum(self.widths[:rung])
        return slice(first, first + self.widths[rung])

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Run a batch once and return its averages at every cut, side by side."""
        found = _heard(model, self.cuts, x, _averaged)
        return torch.cat([found[cut.name] for cut in self.cuts], 1)


def stages(model: nn.Module, x: Tensor) -> tuple[Stage, ...]:
    """Return what a network is made of, from the input to the head.

    A stage begins with a layer or block that has a kernel, and ends before the next.
    Sequences of several are entered, any other module is a block.

    Args:
        model: Any network; left as it was.
        x: A batch to try it with.

    Example:
        >>> conv, norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)
        >>> model = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
        >>> [stage.name for stage in stages(model, torch.rand(2, 1, 4, 4))]
        ['2', '4']
    """
    names = {module: name for name, module in model.named_modules()}
    parts = _parts(recorded(model, x)[0])
    return tuple(Stage(name=_end(part), layers=_layers(part, names)) for part in parts)


def ladder(model: nn.Module, x: Tensor) -> CutPoints:
    """Return every cut behind a stage at which the network is a chain of layers.

    Raises:
        SettingError: It cannot even be cut before its head.

    Example:
        >>> layers = nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 2), nn.Flatten()
        >>> model = nn.Sequential(*layers, nn.Linear(4, 3))
        >>> found = ladder(model, torch.rand(2, 1, 4, 4))
        >>> [cut.name for cut in found.cuts], found.widths, found.whole
        (['1', '3'], (2, 4), True)
    """
    calls, answer = recorded(model, x)
    last = cut_at(model, x)
    ends = dict.fromkeys(_end(part) for part in _parts(calls)[:-2])
    cuts = [behind(model, calls, name) for name in ends]
    cuts = [cut for cut in cuts if is_right(model, cut, x, answer)]
    cuts = [*_thinned(cuts, MOST - 1), last]
    with evaluation_mode(model), torch.no_grad():
        averages = _heard(model, cuts, x, _averaged)
        vector = last.features(model, x).ndim == 2
    widths = tuple(averages[cut.name].shape[1] for cut in cuts)
    return CutPoints(cuts=tuple(cuts), widths=widths, whole=vector)


def _parts(calls: Sequence[Call]) -> list[list[Call]]:
    """Part the calls of a pass into stages; what comes before the first joins it."""
    found: list[list[Call]] = [[]]
    begun = False
    for unit in _units(calls, 0):
        kernel = _has_kernel(unit.module)
        if kernel and begun:
            found.append([])
        begun = begun or kernel
        found[-1].append(unit)
    return found


def _units(calls: Sequence[Call], parent: int) -> Iterator[Call]:
    """Yield blocks in the order they run; sequences of several are entered."""
    for i, call in enumerate(calls):
        if call.parent != parent:
            continue
        inner = [c.module for c in calls if c.parent == i]
        several = sum(map(_has_kernel, inner)) > 1
        if isinstance(call.module, nn.Sequential) and several:
            yield from _units(calls, i)
        else:
            yield call


def _has_kernel(module: nn.Module) -> bool:
    return any(t.ndim > 1 for t in chain(module.parameters(), module.buffers()))


def _end(part: Sequence[Call]) -> str:
    """Return the last layer of a stage that has maps; the rest is for what follows."""
    kept = [c for c in part if not isinstance(c.module, _DropoutNd | nn.Flatten)]
    return (kept or part)[-1].name


def _layers(part: Sequence[Call], names: dict[nn.Module, str]) -> tuple[str, ...]:
    found = (m for call in part for m in call.module.modules() if _holds(m))
    return tuple(dict.fromkeys(names[module] for module in found))


def _holds(module: nn.Module) -> bool:
    own = chain(module.parameters(recurse=False), module.buffers(recurse=False))
    return any(True for _ in own)


def _thinned(cuts: Sequence[Cut], most: int) -> list[Cut]:
    """Return so many of them at most, evenly spread."""
    if len(cuts) <= most:
        return list(cuts)
    return [cuts[(i * len(cuts)) // most] for i in range(most)]


def _averaged(value: Tensor) -> Tensor:
    """Return the mean of each map, or a vector as it is; a copy either way."""
    return value.flatten(2).mean(2) if value.ndim > 2 else value.clone()


def _heard(
    model: nn.Module,
    cuts: Sequence[Cut],
    x: Tensor,
    seen: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[name] = seen(value)

    with ExitStack() as stack:
        for cut in cuts:
            hook = heard_at(model, cut.name, partial(keep, cut.name))
            stack.enter_context(hook)
        model(x)
    return found
