"""Effective receptive field: each pixel's influence on a unit, by gradients.

The theoretical receptive field says which pixels can reach a unit. Their influence
falls off like a Gaussian, so most of it comes from a much smaller area (Luo et al.
2016, "Understanding the effective receptive field in deep convolutional neural
networks", section 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from striate.core.hooks import (
    StopForward,
    capture_outputs,
    evaluation_mode,
    intercept_outputs,
)
from striate.interpret.activations_at import check_image_batch, forward, module_name
from striate.interpret.gradients import GradientsStayOn
from striate.interpret.layer_choice import check_unit, target_layer

ENERGY_SHARE = 0.9545  # within two standard deviations of a Gaussian
SEED = 0


@dataclass(frozen=True, kw_only=True)
class EffectiveField:
    """Influence of each pixel on a unit, averaged over images."""

    unit: tuple[int, int]  # row and column of the unit in its map
    # (height, width): mean squared gradient by pixel; the sum is 1.
    energy: NDArray[np.float64]
    height: int  # smallest number of rows with 95.45 % of the energy
    width: int  # smallest number of columns with 95.45 % of the energy


def effective_receptive_fields(
    model: nn.Module, x: Tensor, names: Sequence[str]
) -> dict[str, EffectiveField]:
    """Measure the effective receptive field of each layer's center unit.

    For every image, the unit's channels are summed with random signs, so that the
    channels do not cancel. The squared gradient with respect to each pixel is averaged
    over images and input channels.

    Shapes:
        x: (N, C, H, W); each energy: (H, W)

    Raises:
        UnknownNameError: No layer has this name; lists the nearest.
        GeometryError: The network rejects the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
        >>> x = torch.rand(2, 1, 9, 9)
        >>> fields = effective_receptive_fields(model, x, ["0", "1"])
        >>> fields["0"].height <= 3, fields["1"].height <= 5
        (True, True)
    """
    units: dict[str, tuple[tuple[int, int], Tensor]] = {}

    def capture(name: str, output: Tensor) -> None:
        if output.ndim == 4:
            unit = output.shape[2] // 2, output.shape[3] // 2
            # Copied now: an in-place activation after the layer would change it.
            values = output[:, :, unit[0], unit[1]].clone()
            generator = torch.Generator().manual_seed(SEED)
            signs = torch.randint(0, 2, values.shape, generator=generator) * 2 - 1
            units[name] = unit, (values * signs.to(values)).sum()

    with _differentiable(model, x) as images:
        with capture_outputs(model, names, capture), GradientsStayOn():
            forward(model, images)
        return {
            name: _field(unit, _derivative(value, images))
            for name, (unit, value) in units.items()
        }


def unit_effective_field(
    model: nn.Module,  # any network; not modified
    x: Tensor,  # one image, or several for an average
    call: str,  # layer name, or a later call of a reused layer (`relu #2`)
    unit: tuple[int, int, int],  # (channel, row, column) in the layer's output
) -> EffectiveField:
    """Measure the effective receptive field of one unit; run no layer after the unit.

    Shapes:
        x: (N, C, H, W); energy: (H, W)

    Raises:
        SettingError: The layer has no such unit.
        GeometryError: The network rejects the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3))
        >>> field = unit_effective_field(model, torch.rand(1, 1, 6, 6), "0", (0, 1, 2))
        >>> rows, columns = field.energy.nonzero()
        >>> sorted(set(rows.tolist())), sorted(set(columns.tolist()))
        ([1, 2, 3], [2, 3, 4])
    """
    check_image_batch(x)
    check_unit(call, unit, {call: target_layer(model, x, call).shape}, model)
    values: list[Tensor] = []

    def capture(name: str, output: object) -> None:
        if name == call and isinstance(output, Tensor):
            values.append(output[:, unit[0], unit[1], unit[2]].sum())
            raise StopForward

    with _differentiable(model, x) as images:
        with (
            intercept_outputs(model, [module_name(call)], capture),
            suppress(StopForward),
            GradientsStayOn(),
        ):
            forward(model, images)
        return _field(unit[1:], _derivative(values[0], images))


@contextmanager
def _differentiable(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Yield a copy of the images that requires gradients, with the model in eval mode.

    Run the network on a copy of these images: its first layer may work in place.
    """
    check_image_batch(x)
    with evaluation_mode(model), torch.inference_mode(False), torch.enable_grad():
        yield x.detach().clone().requires_grad_()


def _derivative(value: Tensor, image: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(
        value, image, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return gradient


def _field(unit: tuple[int, int], derivative: Tensor) -> EffectiveField:
    energy = derivative.double().square().mean((0, 1)).cpu().numpy()
    total = energy.sum()
    if total > 0:
        energy = energy / total
    return EffectiveField(
        unit=unit,
        energy=energy,
        height=shortest_span(energy.sum(1)),
        width=shortest_span(energy.sum(0)),
    )


def shortest_span(profile: NDArray[np.float64]) -> int:
    """Return the length of the shortest interval with 95.45 % of the sum of `profile`.

    Example:
        >>> shortest_span(np.array([0.0, 0.02, 0.5, 0.46, 0.02]))
        2
        >>> shortest_span(np.zeros(4))
        0
    """
    sums = np.concatenate([[0.0], np.cumsum(profile)])
    if sums[-1] == 0:
        return 0
    # For each start, the first end with enough energy.
    ends = np.searchsorted(sums, sums + ENERGY_SHARE * sums[-1] - 1e-12)
    lengths = ends - np.arange(len(sums))
    return int(lengths[ends < len(sums)].min())
