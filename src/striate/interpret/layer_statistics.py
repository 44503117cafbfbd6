"""Statistics of every layer's outputs, taken as they pass and not kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.hooks import (
    call_name,
    evaluation_mode,
    leaf_module_names,
    trace_modules,
)
from striate.interpret.activations_at import check_batch, chosen, forward, module_of

# Numbers read at a time: 16 MiB stay in a third cache between readings; of smaller
# pieces torch's threads would have to start more often (docs/notebook/explanation.md).
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What one call of a layer gave out, over a batch.

    Args:
        name: The call, such as `layer1.0.relu #2`.
        kind: The module's class.
        shape: Of one image's output.
        mean: Of all numbers.
        deviation: Likewise, the population's.
        low: The least.
        high: The most.
        zero: Share of exact zeros, where nothing is negative, as behind a ReLU; None
            elsewhere: a zero among signed numbers is an accident.
        silent: Channels that are zero everywhere in every image, likewise.
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
        x: Images as the network takes them, (N, C, H, W).
        names: Modules to watch, by name or pattern; all leaves where None.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> found = activation_statistics(model, torch.tensor([[[[-1.0, 3.0]]]]))[0]
        >>> found.mean, found.deviation, found.zero, found.silent
        (1.5, 1.5, 0.5, 0)
    """
    check_batch(x)
    watched = set(leaf_module_names(model)) if names is None else _modules(model, names)
    calls: Counter[str] = Counter()
    found: list[tuple[str, str, _Reading]] = []
    handed_on = _HandedOn()

    def measure(name: str, module: nn.Module, output: object) -> None:
        if name not in watched:
            return
        calls[name] += 1
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            known = handed_on.get(output)
            if known is None:
                known = _read(output.detach())
                handed_on.put(output, known)
            call, kind = call_name(name, calls[name]), type(module).__name__
            found.append((call, kind, known))

    with evaluation_mode(model), trace_modules(model, leave=measure), torch.no_grad():
        forward(model, x)
    return [reading.told(call, kind) for call, kind, reading in found]


def _modules(model: nn.Module, names: Sequence[str]) -> set[str]:
    return {module_of(call) for call in chosen(model, names)}


@dataclass(frozen=True)
class _Reading:
    """What was read of an output while it was at hand; the arithmetic waits.

    Between two layers every line of Python is slow: their numbers have thrown it out of
    the processor's cache.

    Args:
        shape: Of the whole output.
        sums: Of each image's channels, piece by piece.
        square: Sum of squares.
        low: The least.
        high: The most.
        nonzero: How many are not zero; meaningless below zero.
    """

    shape: torch.Size
    sums: list[Tensor]
    square: float
    low: float
    high: float
    nonzero: int

    def told(self, call: str, kind: str) -> Activations:
        """Return the statistics under the name of a call."""
        sums = torch.cat(self.sums)
        count = self.shape.numel()
        mean = sums.sum(dtype=torch.float64).item() / count
        unsigned = self.low >= 0
        return Activations(
            name=call,
            kind=kind,
            shape=tuple(self.shape[1:]),
            mean=mean,
            deviation=sqrt(max(self.square / count - mean * mean, 0.0)),
            low=self.low,
            high=self.high,
            zero=1 - self.nonzero / count if unsigned else None,
            silent=_silent(sums, self.shape) if unsigned else None,
        )


class _HandedOn:
    """What was read of tensors that still live, for layers that hand them on."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Tensor], int, _Reading]] = {}

    def get(self, tensor: Tensor) -> _Reading | None:
        """Return what was read, if nothing was written since."""
        held, version, found = self._known.get(id(tensor), (None, -1, None))
        same = held is not None and held() is tensor and version == tensor._version
        return found if same else None

    def put(self, tensor: Tensor, found: _Reading) -> None:
        """Remember it without keeping the tensor."""
        self._known[id(tensor)] = ref(tensor), tensor._version, found


def _read(output: Tensor) -> _Reading:
    planes = _planes(output)
    step = max(1, _CHUNK // planes.shape[1])
    marks = planes.new_empty(planes[:step].numel(), dtype=torch.bool)
    sums, square, nonzero = [], 0.0, 0
    low, high = float("inf"), -float("inf")
    for chunk in torch.split(planes, step):
        sums.append(chunk.sum(1))
        flat = chunk.view(-1)
        square += torch.dot(flat, flat).item()
        least, most = flat.aminmax()
        low, high = min(low, least.item()), max(high, most.item())
        if low >= 0:
            nonzero += _nonzero(flat, marks[: len(flat)])
    return _Reading(output.shape, sums, square, low, high, nonzero)


def _planes(output: Tensor) -> Tensor:
    """Return one row an image and channel; a view where memory allows it."""
    rows = output.shape[0] * (output.shape[1] if output.ndim > 1 else 1)
    planes = output.reshape(rows, -1).contiguous()
    return planes if planes.dtype in (torch.float32, torch.float64) else planes.float()


def _nonzero(flat: Tensor, marks: Tensor) -> int:
    """Count by marks: torch.count_nonzero branches, and takes thirty times as long."""
    marks.copy_(flat)
    if marks.is_cpu:
        return int(np.count_nonzero(marks.numpy()))
    return int(marks.sum())


def _silent(sums: Tensor, shape: torch.Size) -> int | None:
    if len(shape) < 2:
        return None
    # NumPy: so few numbers take torch five times as long.
    by_channel = sums.numpy(force=True).reshape(shape[:2]).sum(0)
    return int((by_channel == 0).sum())
