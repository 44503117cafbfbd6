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

from striate.core.hooks import call_name, followed, leaves, untouched
from striate.interpret.activations_at import (
    check_images,
    forward,
    match_layers,
    module_name,
)

# Numbers read at a time: 16 MiB stay in a third cache between readings; of smaller
# pieces torch's threads would have to start more often (docs/notebook/explanation.md).
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ActivationStatistics:
    """What one call of a layer gave out, over a batch.

    Args:
        name: The call, such as `layer1.0.relu #2`.
        kind: The module's class.
        shape: Of one image's output.
        mean: Of all numbers.
        std: Likewise, the population's.
        minimum: The least.
        maximum: The most.
        zero_share: Share of exact zeros, where nothing is negative, as behind a ReLU; None
            elsewhere: a zero among signed numbers is an accident.
        dead_channels: Channels that are zero everywhere in every image, likewise.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    mean: float
    std: float
    minimum: float
    maximum: float
    zero_share: float | None
    dead_channels: int | None


def activation_statistics(
    model: nn.Module, x: Tensor, names: Sequence[str] | None = None
) -> list[ActivationStatistics]:
    """Return statistics of every layer that holds no others, in the order they run.

    Costs little more than the forward pass (benchmarks/capture.py): each output is
    read while it is still in the processor's cache, and nothing is kept of it.

    Args:
        model: Any network; left as it was.
        x: Images as the network takes them, (N, C, H, W).
        names: Modules to watch, by name or pattern; all leaves where None.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> measurements = activation_statistics(model, torch.tensor([[[[-1.0, 3.0]]]]))[0]
        >>> measurements.mean, measurements.std, measurements.zero_share, measurements.dead_channels
        (1.5, 1.5, 0.5, 0)
    """
    check_images(x)
    names_to_measure = set(leaves(model)) if names is None else _modules(model, names)
    calls: Counter[str] = Counter()
    measurements: list[tuple[str, str, _Measurement]] = []
    unchanged = _Unchanged()

    def on_output(name: str, module: nn.Module, output: object) -> None:
        if name not in names_to_measure:
            return
        calls[name] += 1
        if isinstance(output, Tensor) and output.is_floating_point() and output.numel():
            measured = unchanged.get(output)
            if measured is None:
                measured = _measure(output.detach())
                unchanged.put(output, measured)
            call, kind = call_name(name, calls[name]), type(module).__name__
            measurements.append((call, kind, measured))

    with untouched(model), followed(model, leave=on_output), torch.no_grad():
        forward(model, x)
    return [
        measurement.statistics(call, kind) for call, kind, measurement in measurements
    ]


def _modules(model: nn.Module, names: Sequence[str]) -> set[str]:
    return {module_name(call) for call in match_layers(model, names)}


@dataclass(frozen=True)
class _Measurement:
    """What was read of an output while it was at hand; the arithmetic waits.

    Between two layers every line of Python is slow: their numbers have thrown it out of
    the processor's cache.

    Args:
        shape: Of the whole output.
        sums: Of each image's channels, piece by piece.
        square: Sum of squares.
        minimum: The least.
        maximum: The most.
        nonzero: How many are not zero; meaningless below zero.
    """

    shape: torch.Size
    sums: list[Tensor]
    square: float
    minimum: float
    maximum: float
    nonzero: int

    def statistics(self, call: str, kind: str) -> ActivationStatistics:
        """Return the statistics under the name of a call."""
        sums = torch.cat(self.sums)
        count = self.shape.numel()
        mean = sums.sum(dtype=torch.float64).item() / count
        unsigned = self.minimum >= 0
        return ActivationStatistics(
            name=call,
            kind=kind,
            shape=tuple(self.shape[1:]),
            mean=mean,
            std=sqrt(max(self.square / count - mean * mean, 0.0)),
            minimum=self.minimum,
            maximum=self.maximum,
            zero_share=1 - self.nonzero / count if unsigned else None,
            dead_channels=_dead_channels(sums, self.shape) if unsigned else None,
        )


class _Unchanged:
    """What was read of tensors that still live, for layers that hand them on."""

    def __init__(self) -> None:
        self._measured: dict[int, tuple[ref[Tensor], int, _Measurement]] = {}

    def get(self, tensor: Tensor) -> _Measurement | None:
        """Return what was read, if nothing was written since."""
        reference, version, measurements = self._measured.get(
            id(tensor), (None, -1, None)
        )
        same = (
            reference is not None
            and reference() is tensor
            and version == tensor._version
        )
        return measurements if same else None

    def put(self, tensor: Tensor, measurements: _Measurement) -> None:
        """Remember it without keeping the tensor."""
        self._measured[id(tensor)] = ref(tensor), tensor._version, measurements


def _measure(output: Tensor) -> _Measurement:
    planes = _planes(output)
    step = max(1, _CHUNK // planes.shape[1])
    flags = planes.new_empty(planes[:step].numel(), dtype=torch.bool)
    sums, square, nonzero = [], 0.0, 0
    low, high = float("inf"), -float("inf")
    for chunk in torch.split(planes, step):
        sums.append(chunk.sum(1))
        flat = chunk.view(-1)
        square += torch.dot(flat, flat).item()
        smallest, largest = flat.aminmax()
        low, high = min(low, smallest.item()), max(high, largest.item())
        if low >= 0:
            nonzero += _nonzero(flat, flags[: len(flat)])
    return _Measurement(output.shape, sums, square, low, high, nonzero)


def _planes(output: Tensor) -> Tensor:
    """Return one row an image and channel; a view where memory allows it."""
    rows = output.shape[0] * (output.shape[1] if output.ndim > 1 else 1)
    planes = output.reshape(rows, -1).contiguous()
    return planes if planes.dtype in (torch.float32, torch.float64) else planes.float()


def _nonzero(flat: Tensor, flags: Tensor) -> int:
    """Count by marks: torch.count_nonzero branches, and takes thirty times as long."""
    flags.copy_(flat)
    if flags.is_cpu:
        return int(np.count_nonzero(flags.numpy()))
    return int(flags.sum())


def _dead_channels(sums: Tensor, shape: torch.Size) -> int | None:
    if len(shape) < 2:
        return None
    # NumPy: so few numbers take torch five times as long.
    by_channel = sums.numpy(force=True).reshape(shape[:2]).sum(0)
    return int((by_channel == 0).sum())
