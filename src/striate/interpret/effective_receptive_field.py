"""The effective receptive field: how much of what a unit could see it really uses.

The theoretical field says which positions can reach a unit; their influence falls off
like a Gaussian, so most of it comes from far fewer (Luo et al. 2016, "Understanding the
effective receptive field in deep convolutional neural networks", section 2).
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
from striate.interpret.activations_at import check_batch, forward, module_of
from striate.interpret.layer_choice import check_unit, place

HELD = 0.9545  # of the energy: what lies within two deviations of a Gaussian
SEED = 0


@dataclass(frozen=True, kw_only=True)
class EffectiveField:
    """Where the input moves a unit, on average over images.

    Args:
        unit: Row and column of the unit in its map.
        energy: (height, width): mean squared derivative, summing to 1.
        height: Rows that hold 95.45 % of it.
        width: Columns likewise.
    """

    unit: tuple[int, int]
    energy: NDArray[np.float64]
    height: int
    width: int


def effective_fields(
    model: nn.Module, x: Tensor, names: Sequence[str]
) -> dict[str, EffectiveField]:
    """Measure the effective field of the middle unit of some layers.

    For every image the unit's channels are summed under random signs, so that none
    cancels another, and the square of the derivative by each pixel is averaged over
    images and input channels.

    Args:
        model: Any network; left as it was, gradients included.
        x: Images as the network takes them.
        names: Dotted names; a layer without height and width is left out.

    Shapes:
        x: (N, C, H, W); each energy: (H, W)

    Raises:
        UnknownNameError: No layer has this name; lists the nearest.
        GeometryError: The network refuses the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
        >>> found = effective_fields(model, torch.rand(2, 1, 9, 9), ["0", "1"])
        >>> found["0"].height <= 3, found["1"].height <= 5
        (True, True)
    """
    units: dict[str, tuple[tuple[int, int], Tensor]] = {}

    def note(name: str, output: Tensor) -> None:
        if output.ndim == 4:
            unit = output.shape[2] // 2, output.shape[3] // 2
            # At once: an in-place activation behind the layer would change it.
            here = output[:, :, unit[0], unit[1]].clone()
            units[name] = unit, (here * _signs(here)).sum()

    with _differentiable(model, x) as given:
        with capture_outputs(model, names, note):
            forward(model, given)
        return {
            name: _field(unit, _derivative(value, given))
            for name, (unit, value) in units.items()
        }


def unit_field(
    model: nn.Module, x: Tensor, call: str, unit: tuple[int, int, int]
) -> EffectiveField:
    """Measure the effective field of one channel's unit; later layers do not run.

    Args:
        model: Any network; left as it was.
        x: Images: one for what the unit looks at there, many for its habit.
        call: The layer, or a later call of a reused one (`relu #2`).
        unit: (channel, row, column) on its map.

    Shapes:
        x: (N, C, H, W); energy: (H, W)

    Raises:
        SettingError: The map has no such unit.
        GeometryError: The network refuses the images.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3))
        >>> field = unit_field(model, torch.rand(1, 1, 6, 6), "0", (0, 1, 2))
        >>> rows, columns = field.energy.nonzero()
        >>> sorted(set(rows.tolist())), sorted(set(columns.tolist()))
        ([1, 2, 3], [2, 3, 4])
    """
    check_batch(x)
    check_unit(call, unit, {call: place(model, x, call).shape}, model)
    kept: list[Tensor] = []

    def take(heard: str, output: object) -> None:
        if heard == call and isinstance(output, Tensor):
            kept.append(output[:, unit[0], unit[1], unit[2]].sum())
            raise StopForward

    with _differentiable(model, x) as given:
        with intercept_outputs(model, [module_of(call)], take), suppress(StopForward):
            forward(model, given)
        return _field(unit[1:], _derivative(kept[0], given))


@contextmanager
def _differentiable(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    """Lend a model; yield images to differentiate by, whatever mode the caller is in.

    The network is to be given a copy of them: its first layer may work in place.

    Raises:
        GeometryError: They are no batch of images.
    """
    check_batch(x)
    with evaluation_mode(model), torch.inference_mode(False), torch.enable_grad():
        yield x.detach().clone().requires_grad_()


def _signs(values: Tensor) -> Tensor:
    chance = torch.Generator().manual_seed(SEED)
    signs = torch.randint(0, 2, values.shape, generator=chance) * 2 - 1
    return signs.to(values)


def _derivative(value: Tensor, image: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(
        value, image, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return found


def _field(unit: tuple[int, int], derivative: Tensor) -> EffectiveField:
    energy = derivative.double().square().mean((0, 1)).cpu().numpy()
    total = energy.sum()
    if total > 0:
        energy = energy / total
    return EffectiveField(
        unit=unit,
        energy=energy,
        height=shortest(energy.sum(1)),
        width=shortest(energy.sum(0)),
    )


def shortest(profile: NDArray[np.float64], held: float = HELD) -> int:
    """Return the length of the shortest run of positions that holds a share.

    Example:
        >>> shortest(np.array([0.0, 0.02, 0.5, 0.46, 0.02]))
        2
        >>> shortest(np.zeros(4))
        0
    """
    sums = np.concatenate([[0.0], np.cumsum(profile)])
    if sums[-1] == 0:
        return 0
    # The first end at which each start has gathered enough.
    ends = np.searchsorted(sums, sums + held * sums[-1] - 1e-12)
    lengths = ends - np.arange(len(sums))
    return int(lengths[ends < len(sums)].min())
