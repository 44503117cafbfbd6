"""What one unit sees: how strongly it depends on each pixel."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.core.taps import Enough, untouched, visited
from striate.look.capture import check_batch, forward, module_of
from striate.look.spatial import place


def effective_field(
    model: nn.Module, x: Tensor, call: str, unit: tuple[int, int, int]
) -> Tensor:
    """Return the mean size of a unit's gradient at each pixel (Luo et al. 2016).

    Where the theoretical field says what a unit can see, this says what it looks at.

    Args:
        model: Any network; left as it was.
        x: Pictures, (N, C, H, W); one for what it looks at there, many for its habit.
        call: The layer.
        unit: (channel, row, column) on its map.

    Shapes:
        (N, C, H, W) → (H, W)

    Raises:
        SettingError: The map has no such unit.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 1, 3))
        >>> field = effective_field(model, torch.rand(1, 1, 6, 6), "0", (0, 1, 2))
        >>> rows, columns = field.nonzero(as_tuple=True)
        >>> rows.unique().tolist(), columns.unique().tolist()
        ([1, 2, 3], [2, 3, 4])
    """
    check_batch(x)
    shape = place(model, x, call).shape
    if any(not 0 <= i < n for i, n in zip(unit, shape, strict=True)):
        ranges = " × ".join(f"0…{n - 1}" for n in shape)
        what = f"{call} has no unit {unit}"
        raise SettingError(what, where=call, fix=f"units are {ranges}")
    kept: list[Tensor] = []

    def take(heard: str, output: object) -> None:
        if heard == call and isinstance(output, Tensor):
            kept.append(output[:, unit[0], unit[1], unit[2]].sum())
            raise Enough

    with untouched(model), torch.inference_mode(False), torch.enable_grad():
        given = x.detach().clone().requires_grad_()
        with visited(model, [module_of(call)], take), suppress(Enough):
            forward(model, given.clone())
        (gradient,) = torch.autograd.grad(kept[0], given)
    return gradient.abs().sum(1).mean(0)


def width_of(field: Tensor, share: float = 0.95) -> float:
    """Return the side of the square with the area that holds a share of a field.

    Example:
        >>> width_of(torch.ones(4, 4), 1.0)
        4.0
    """
    ranked = field.flatten().sort(descending=True).values.double().cumsum(0)
    if float(ranked[-1]) == 0:
        return 0.0
    pixels = int((ranked < share * float(ranked[-1]) * (1 - 1e-9)).sum()) + 1
    return float(pixels**0.5)
