"""Image transforms of a given strength: shift, rotation, scale, shear, color.

All transforms except the shift use bilinear sampling. New pixels repeat the border.
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
Copies = Callable[[Tensor, float], list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Transform of an image batch with adjustable strength; labels stay valid."""

    name: str  # name of the transform, such as `rotation`
    unit: str  # unit of the amount, in words
    amounts: tuple[float, ...]  # default amounts; the first is the identity
    copies: Copies  # (N, C, H, W) and an amount → one transformed batch per direction


def shift_pixels(x: Tensor, down: int, right: int) -> Tensor:
    """Shift images by whole pixels.

    Example:
        >>> shift_pixels(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 0, 1).tolist()
        [[[[1.0, 1.0, 2.0]]]]
    """
    rows = (torch.arange(x.shape[2]) - down).clamp(0, x.shape[2] - 1)
    columns = (torch.arange(x.shape[3]) - right).clamp(0, x.shape[3] - 1)
    return x[:, :, rows][..., columns]


def warp_affine(x: Tensor, matrix: Matrix) -> Tensor:
    """Warp images about the center: `matrix` maps output (x, y) to input (x, y).

    Example:
        >>> x = torch.arange(4.0).view(1, 1, 2, 2)
        >>> turned = warp_affine(x, ((0.0, -1.0), (1.0, 0.0)))
        >>> torch.equal(turned.round(), torch.rot90(x, 1, (2, 3)))
        True
    """
    height, width = x.shape[2:]
    (a, b), (c, d) = matrix
    # The matrix is in pixels; the sampler uses −1…1 along each side.
    rows = [[a, b * height / width, 0.0], [c * width / height, d, 0.0]]
    theta = torch.tensor([rows], dtype=x.dtype, device=x.device)
    grid = F.affine_grid(theta.expand(len(x), -1, -1), list(x.shape), False)
    return F.grid_sample(x, grid, "bilinear", "border", align_corners=False)


def _shifts(x: Tensor, amount: float) -> list[Tensor]:
    pixels = int(amount)
    if pixels != amount or not 0 <= pixels < min(x.shape[2:]):
        what = f"a shift of {amount:g} pixels on an image of {tuple(x.shape[2:])}"
        fix = "use a whole number of pixels, less than the image side"
        raise SettingError(what, where="shift", fix=fix)
    shifts = ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
    return [shift_pixels(x, down, right) for down, right in shifts]


def _rotations(x: Tensor, amount: float) -> list[Tensor]:
    angles = radians(amount), radians(-amount)
    return [warp_affine(x, ((cos(t), -sin(t)), (sin(t), cos(t)))) for t in angles]


def _scales(x: Tensor, amount: float) -> list[Tensor]:
    factors = 1 + amount, 1 / (1 + amount)
    return [warp_affine(x, ((1 / f, 0.0), (0.0, 1 / f))) for f in factors]


def _shears(x: Tensor, amount: float) -> list[Tensor]:
    slopes = tan(radians(amount)), -tan(radians(amount))
    return [warp_affine(x, ((1.0, slope), (0.0, 1.0))) for slope in slopes]


def _colors(x: Tensor, amount: float) -> list[Tensor]:
    """Return copies of the images, each with one channel made brighter or darker."""
    copies = []
    for channel in range(x.shape[1]):
        for sign in (1, -1):
            copy = x.clone()
            copy[:, channel] += sign * amount
            copies.append(copy)
    return copies


_SETTINGS: dict[str, tuple[str, tuple[float, ...], Copies]] = {
    "shift": ("pixels, in four directions", (0, 1, 2, 3, 4), _shifts),
    "rotation": ("degrees, both directions", (0, 5, 10, 15, 20, 30, 45), _rotations),
    "scale": (
        "relative change, larger and smaller",
        (0, 0.05, 0.1, 0.2, 0.3, 0.5),
        _scales,
    ),
    "shear": ("degrees, both directions", (0, 5, 10, 20, 30), _shears),
    "color": (
        "standard deviations, one channel at a time",
        (0, 0.1, 0.25, 0.5, 1),
        _colors,
    ),
}
TRANSFORMS = {
    name: Transform(name=name, unit=unit, amounts=amounts, copies=copies)
    for name, (unit, amounts, copies) in _SETTINGS.items()
}


def get_transform(name: str) -> Transform:
    """Return a transform by name.

    Raises:
        UnknownNameError: Unknown transform; the message lists the names.

    Example:
        >>> get_transform("shear").amounts
        (0, 5, 10, 20, 30)
    """
    if name not in TRANSFORMS:
        raise unknown_name_error("transform", name, TRANSFORMS)
    return TRANSFORMS[name]
