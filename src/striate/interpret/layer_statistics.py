"""Activation statistics of every layer: mean, std, range, zeros, dead channels.

The statistics are computed during the forward pass; no activations are stored.
"""

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
from striate.interpret.activations_at import (
    check_image_batch,
    forward,
    match_layers,
    module_name,
)

# Values per chunk: 16 MiB fit in the third-level cache; smaller chunks would start
# torch's threads more often (docs/notebook/explanation.md).
_CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ActivationStatistics:
    """Statistics of the output of one layer call, over a batch."""

    name: str  # name of the call, such as `layer1.0.relu #2`
    kind: str  # class of the module
    shape: tuple[int, ...]  # output shape for one image
    mean: float  # mean of all values
    std: float  # standard deviation of all values
    minimum: float  # smallest value
    maximum: float  # largest value
    # Share of exact zeros, if no value is negative, as after a ReLU; else None.
    zero_share: float | None
    # Number of channels that are zero everywhere in every image, if no value is
    # negative; else None.
    dead_channels: int | None


def activation_statistics(
    model: nn.Module,  # any network; not modified
    x: Tensor,  # preprocessed images, (N, C, H, W)
    # Modules, by name or pattern; all leaf modules if None.
    names: Sequence[str] | None = None,
) -> list[ActivationStatistics]:
    """Return the activation statistics of every leaf module, in execution order.

    This takes little longer than the forward pass (benchmarks/capture.py): each output
    is read while it is still in the processor's cache, and is not stored.

    Example:
        >>> model = nn.Sequential(nn.ReLU())
        >>> x = torch.tensor([[[[-1.0, 3.0]]]])
        >>> layer = activation_statistics(model, x)[0]
        >>> layer.mean, layer.std, layer.zero_share, layer.dead_channels
        (1.5, 1.5, 0.5, 0)
    """
    check_image_batch(x)
    names_to_measure = set(leaf_module_names(model))
    if names is not None:
        names_to_measure = {module_name(call) for call in match_layers(model, names)}
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

    with evaluation_mode(model), trace_modules(model, leave=on_output), torch.no_grad():
        forward(model, x)
    return [measured.statistics(call, kind) for call, kind, measured in measurements]


@dataclass(frozen=True)
class _Measurement:
    """Sums over one layer output, for the computation of activation statistics.

    Python code between two layers is slow, because the activations have replaced the
    interpreter's data in the processor's cache.

    `nonzero` is only valid if no value is negative.
    """

    shape: torch.Size
    sums: list[Tensor]
    square: float
    minimum: float
    maximum: float
    nonzero: int

    def statistics(self, call: str, kind: str) -> ActivationStatistics:
        """Return the activation statistics of a layer call."""
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
    """Cache of measurements for layers that return their input unchanged."""

    def __init__(self) -> None:
        self._measured: dict[int, tuple[ref[Tensor], int, _Measurement]] = {}

    def get(self, tensor: Tensor) -> _Measurement | None:
        """Return a tensor's measurement; None if there is none for these values."""
        if id(tensor) not in self._measured:
            return None
        reference, version, measurement = self._measured[id(tensor)]
        same = reference() is tensor and version == tensor._version
        return measurement if same else None

    def put(self, tensor: Tensor, measurements: _Measurement) -> None:
        """Store a tensor's measurement without a reference to the tensor."""
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
            # Thirty times faster than torch.count_nonzero.
            is_nonzero = flags[: len(flat)].copy_(flat)
            on_cpu = flags.is_cpu
            nonzero += int(
                np.count_nonzero(is_nonzero.numpy()) if on_cpu else is_nonzero.sum()
            )
    return _Measurement(output.shape, sums, square, low, high, nonzero)


def _planes(output: Tensor) -> Tensor:
    """Return a layer output as a matrix with one row per image and channel."""
    rows = output.shape[0] * (output.shape[1] if output.ndim > 1 else 1)
    planes = output.reshape(rows, -1).contiguous()
    return planes if planes.dtype in (torch.float32, torch.float64) else planes.float()


def _dead_channels(sums: Tensor, shape: torch.Size) -> int | None:
    if len(shape) < 2:
        return None
    # NumPy: for so few numbers torch takes five times as long.
    by_channel = sums.numpy(force=True).reshape(shape[:2]).sum(0)
    return int((by_channel == 0).sum())
