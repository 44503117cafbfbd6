"""Statistics of every layer's outputs, taken as they pass and not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.taps import call_name, followed, leaves, untouched
from striate.look.capture import check_batch, chosen, forward, module_of

# Numbers read at a time: 16 MiB stay in a third cache between readings; of smaller
# pieces torch's threads would have to start more often (NOTEBOOK.md, P9).
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What one call of a layer gave out, over a batch.

    Args:
        name: The call, such as `layer1.0.relu #2`.
        kind: The module's class.
        shape: Of one picture's output.
        mean: Of all numbers.
        deviation: Likewise, the population's.
        low: The least.
        high: The most.
        zero: Share of exact zeros, where nothing is negative, as behind a ReLU; None
            elsewhere: a zero among signed numbers is an accident.
        silent: Channels that are zero everywhere in every picture, likewise.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    low: float
    high: float
    zero: float | None
    silent: int | None


def activation_statistics(
    model: nn.Module, x: Tensor, names: Sequence[str] | None = None
) -> list[Activations]:
    """Return statistics of every layer that holds no others, in the order they run.

    Costs little more than the forward pass (benchmarks/capture.py): each output is
    read while it is still in the processor's cache, and nothing is kept of it.

    Args:
        model: Any network; left as it was.
        x: Pictures as the network takes them, (N, C, H, W).
        names: Modules to watch, by name or pattern; all leaves where None.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> found = activation_statistics(model, torch.tensor([[[[-1.0, 3.0]]]]))[0]
        >>> found.mean, found.deviation, found.zero, found.silent
        (1.5, 1.5, 0.5, 0)
    """
    check_batch(x)
    watched = set(leaves(model)) if names is None else _modules(model, names)
    calls: Counter[str] = Counter()
    found: list[Activations] = []
    handed_on = _HandedOn()

    def measure(name: str, module: nn.Module, output: object) -> None:
        if name not in watched:
            return
        calls[name] += 1
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            call, kind = call_name(name, calls[name]), type(module).__name__
            known = handed_on.get(output)
            if known is None:
                known = _measured(call, kind, output.detach())
                handed_on.put(output, known)
            found.append(replace(known, name=call, kind=kind))

    with untouched(model), followed(model, _nothing, measure), torch.no_grad():
        forward(model, x)
    return found


def _modules(model: nn.Module, names: Sequence[str]) -> set[str]:
    return {module_of(call) for call in chosen(model, names)}


def _nothing(name: str, module: nn.Module, inputs: object) -> None:
    """Measure nothing where a call begins."""


class _HandedOn:
    """What was measured of tensors that still live, for layers that hand them on."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Tensor], int, Activations]] = {}

    def get(self, tensor: Tensor) -> Activations | None:
        """Return what was measured, if nothing was written since."""
        held, version, found = self._known.get(id(tensor), (None, -1, None))
        same = held is not None and held() is tensor and version == tensor._version
        return found if same else None

    def put(self, tensor: Tensor, found: Activations) -> None:
        """Remember it without keeping the tensor."""
        self._known[id(tensor)] = ref(tensor), tensor._version, found


def _measured(call: str, kind: str, output: Tensor) -> Activations:
    planes = _planes(output)
    square = 0.0
    nonzero, low, high = 0, float("inf"), -float("inf")
    step = max(1, _CHUNK // planes.shape[1])
    size = min(step, len(planes)) * planes.shape[1]
    marks = planes.new_empty(size, dtype=torch.bool)
    sums = []
    for chunk in torch.split(planes, step):
        sums.append(chunk.sum(1))
        flat = chunk.view(-1)
        square += torch.dot(flat, flat).item()
        least, most = (extreme.item() for extreme in flat.aminmax())
        low, high = min(low, least), max(high, most)
        if low >= 0:
            nonzero += _nonzero(flat, marks[: len(flat)])
    count = planes.numel()
    plane_sums = torch.cat(sums)
    mean = plane_sums.sum(dtype=torch.float64).item() / count
    return Activations(
        name=call,
        kind=kind,
        shape=tuple(output.shape[1:]),
        mean=mean,
        deviation=sqrt(max(square / count - mean * mean, 0.0)),
        low=low,
        high=high,
        zero=1 - nonzero / count if low >= 0 else None,
        silent=_silent(plane_sums, output) if low >= 0 else None,
    )


def _planes(output: Tensor) -> Tensor:
    """Return one row a picture and channel; a view where memory allows it."""
    rows = output.shape[0] * (output.shape[1] if output.ndim > 1 else 1)
    planes = output.reshape(rows, -1).contiguous()
    return planes if planes.dtype in (torch.float32, torch.float64) else planes.float()


def _nonzero(flat: Tensor, marks: Tensor) -> int:
    """Count by marks: torch.count_nonzero branches, and takes thirty times as long."""
    marks.copy_(flat)
    if marks.is_cpu:
        return int(np.count_nonzero(marks.numpy()))
    return int(marks.sum())


def _silent(sums: Tensor, output: Tensor) -> int | None:
    if output.ndim < 2:
        return None
    return int((sums.view(output.shape[:2]).sum(0) == 0).sum())
