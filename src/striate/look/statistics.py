"""Statistics of every layer's outputs, taken as they pass and not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from weakref import ref

import torch
from torch import Tensor, nn

from striate.core.taps import leaves, untouched, visited
from striate.look.capture import check_batch, forward

# Numbers read at a time: 4 MiB stay in the third cache between readings, and torch's
# threads start an eighth as often as for 512 KiB.
_CHUNK = 1 << 20


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
        names: Modules to watch; all leaves where None.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> found = activation_statistics(model, torch.tensor([[[[-1.0, 3.0]]]]))[0]
        >>> found.mean, found.deviation, found.zero, found.silent
        (1.5, 1.5, 0.5, 0)
    """
    check_batch(x)
    kinds = {name: type(m).__name__ for name, m in model.named_modules()}
    found: list[Activations] = []
    handed_on = _HandedOn()

    def measure(call: str, output: object) -> None:
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            kind = kinds[call.partition(" #")[0]]
            known = handed_on.get(output)
            if known is None:
                known = _measured(call, kind, output.detach())
                handed_on.put(output, known)
            found.append(replace(known, name=call, kind=kind))

    watched = leaves(model) if names is None else list(names)
    with untouched(model), visited(model, watched, measure), torch.no_grad():
        forward(model, x)
    return found


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
    signs = planes.new_empty(min(step, len(planes)) * planes.shape[1])
    sums = []
    for chunk in torch.split(planes, step):
        sums.append(chunk.sum(1))
        flat = chunk.view(-1)
        square += torch.dot(flat, flat).item()
        least, most = (extreme.item() for extreme in flat.aminmax())
        low, high = min(low, least), max(high, most)
        if low >= 0:
            nonzero += _nonzero(flat, signs[: len(flat)])
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


def _nonzero(flat: Tensor, signs: Tensor) -> int:
    """Count by signs: torch.count_nonzero branches, and takes ten times as long."""
    torch.sign(flat, out=signs)
    return round(signs.sum().item())  # exact: integers below 2²⁴


def _silent(sums: Tensor, output: Tensor) -> int | None:
    if output.ndim < 2:
        return None
    return int((sums.view(output.shape[:2]).sum(0) == 0).sum())
