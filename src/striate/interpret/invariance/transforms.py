"""Ways to move an image by an amount: shift, rotation, scale, shear, color.

All but the shift sample bilinearly; what comes in at the border repeats the border.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, radians, sin, tan

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error

Matrix = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Move:
    """A way to change a batch that leaves its labels alone, by an amount.

    Args:
        name: Such as `rotation`.
        unit: Of the amount, in words.
        amounts: What is tried by default; the first changes nothing.
        copies: (N, C, H, W) and an amount → the batch moved, once a direction.
    """

    name: str
    unit: str
    amounts: tuple[float, ...]
    copies: Callable[[Tensor, float], list[Tensor]]


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """Shift whole pixels, exactly.

    Example:
        >>> shifted(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 0, 1).tolist()
        [[[[1.0, 1.0, 2.0]]]]
    """
    rows = (torch.arange(x.shape[2]) - down).clamp(0, x.shape[2] - 1)
    columns = (torch.arange(x.shape[3]) - right).clamp(0, x.shape[3] - 1)
    return x[:, :, rows][..., columns]


def warped(x: Tensor, matrix: Matrix) -> Tensor:
    """Move about the middle: `matrix` maps (right, down) of new places to old ones.

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> turned = warped(x, ((0.0, -1.0), (1.0, 0.0)))
        >>> torch.equal(turned.round(), torch.rot90(x, 1, (2, 3)))
        True
    """
    height, width = x.shape[2:]
    (a, b), (c, d) = matrix
    # In pixels, then in the sampler's −1…1, which are longer along the longer side.
    rows = [[a, b * height / width, 0.0], [c * width / height, d, 0.0]]
    theta = torch.tensor([rows], dtype=x.dtype, device=x.device)
    grid = F.affine_grid(theta.expand(len(x), -1, -1), list(x.shape), False)
    return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def _shifts(x: Tensor, amount: float) -> list[Tensor]:
    pixels = int(amount)
    if pixels != amount or not 0 <= pixels < min(x.shape[2:]):
        what = f"a shift of {amount:g} pixels on an image of {tuple(x.shape[2:])}"
        raise SettingError(what, where="shift", fix="shift whole pixels, within it")
    ways = ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
    return [shifted(x, down, right) for down, right in ways]


def _turns(x: Tensor, amount: float) -> list[Tensor]:
    angles = radians(amount), radians(-amount)
    return [warped(x, ((cos(t), -sin(t)), (sin(t), cos(t)))) for t in angles]


def _scales(x: Tensor, amount: float) -> list[Tensor]:
    factors = 1 + amount, 1 / (1 + amount)
    return [warped(x, ((1 / f, 0.0), (0.0, 1 / f))) for f in factors]


def _shears(x: Tensor, amount: float) -> list[Tensor]:
    slopes = tan(radians(amount)), -tan(radians(amount))
    return [warped(x, ((1.0, slope), (0.0, 1.0))) for slope in slopes]


def _colors(x: Tensor, amount: float) -> list[Tensor]:
    """Shift each channel by itself, up and down, in turn."""
    found = []
    for channel in range(x.shape[1]):
        for sign in (1, -1):
            moved = x.clone()
            moved[:, channel] += sign * amount
            found.append(moved)
    return found


MOVES: dict[str, Move] = {
    move.name: move
    for move in (
        Move(
            name="shift",
            unit="pixels, in four directions",
            amounts=(0, 1, 2, 3, 4),
            copies=_shifts,
        ),
        Move(
            name="rotation",
            unit="degrees, both ways",
            amounts=(0, 5, 10, 15, 20, 30, 45),
            copies=_turns,
        ),
        Move(
            name="scale",
            unit="larger and smaller by",
            amounts=(0, 0.05, 0.1, 0.2, 0.3, 0.5),
            copies=_scales,
        ),
        Move(
            name="shear",
            unit="degrees, both ways",
            amounts=(0, 5, 10, 20, 30),
            copies=_shears,
        ),
        Move(
            name="color",
            unit="deviations of the set, channel by channel",
            amounts=(0, 0.1, 0.25, 0.5, 1),
            copies=_colors,
        ),
    )
}


def move_of(name: str) -> Move:
    """Return a move by name.

    Raises:
        UnknownNameError: There is none; lists the right ones.

    Example:
        >>> move_of("shear").amounts
        (0, 5, 10, 20, 30)
    """
    if name not in MOVES:
        raise unknown_name_error("move", name, MOVES)
    return MOVES[name]
