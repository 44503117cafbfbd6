"""All geometry of an image as one warp: matrices multiplied, then one sampling.

Coordinates are pixels from the image's center, x to the right and y down; a pixel's
value stands at its middle. The warp says for every pixel of the result where in the
source it comes from:

    source = A · (place + bend(place)) + t

An image is changed in this order: crop, mirror, scale, rotation, shear, shift, local
warping. As one warp the result is sampled once, so that nothing is blurred twice; and
where a change looks past the window that an earlier one has cut, it sees the image
and not a border.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.elastic import basis, rows_of
from striate.data.augment.random_params import Draws

PADDING = {"reflect": "reflection", "edge": "border", "background": "zeros"}


def matrices(draws: Draws, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return A and t of every image.

    Shapes:
        (N, 2, 2) and (N, 2), float64

    Example:
        >>> from striate.data.augment.random_params import neutral
        >>> a, t = matrices(neutral(1, angle=np.array([90.0])), 9, 9)
        >>> a.round().tolist(), t.tolist()
        ([[[0.0, -1.0], [1.0, 0.0]]], [[0.0, 0.0]])
    """
    turn = np.deg2rad(draws.angle)
    cos, sin = np.cos(turn), np.sin(turn)
    along, down = np.tan(np.deg2rad(draws.shear)).T
    # The inverse of the turn, times the inverse of both shears one after the other.
    a = np.stack(
        [
            np.stack([cos + sin * down, -cos * along - sin * (1 + along * down)], -1),
            np.stack([sin - cos * down, -sin * along + cos * (1 + along * down)], -1),
        ],
        axis=1,
    )
    kept = draws.crop[:, 0]
    signs = np.where(draws.mirror, -1.0, 1.0)
    a *= (kept / draws.zoom)[:, None, None] * signs[:, :, None]
    room = 0.5 * (1 - kept[:, None]) * np.array([width, height])
    moved = (a @ draws.shift[:, :, None].astype(float))[:, :, 0]
    return a, draws.crop[:, 1:] * room - moved


@dataclass(frozen=True)
class Course:
    """Where pixels come from, in lines of x, y, x, y …: across + row · slope + bend.

    Args:
        across: (N, 1, 2W), for a row through the center.
        slope: (N, 1, 2W), what a row further down adds.
        bends: (N, K, 2W), to be weighed by `basis(H)`; None where nothing bends.
    """

    across: Tensor = field(repr=False)
    slope: Tensor = field(repr=False)
    bends: Tensor | None = field(default=None, repr=False)

    def some(self, which: slice) -> Course:
        """Return the field of some of the images."""
        bends = None if self.bends is None else self.bends[which]
        return Course(self.across[which], self.slope[which], bends)


def course_of(
    draws: Draws, height: int, width: int, device: torch.device | str = "cpu"
) -> Course:
    """Compose all geometry of every image.

    The unit is that of `grid_sample`: −1 and 1 are the outer edges of outer pixels.
    """
    a, t = matrices(draws, height, width)
    halves = np.array([width, height]) / 2
    a_unit, t_unit = a / halves[:, None], t / halves
    x = np.arange(width) - (width - 1) / 2
    across = x[:, None] * a_unit[:, None, :, 0] + t_unit[:, None]
    slope = np.broadcast_to(a_unit[:, None, :, 1], across.shape)
    bends = None
    if draws.net is not None:
        pixels = draws.net * np.array([width, height])
        flat = pixels.reshape(len(a), -1, 2) @ a_unit.swapaxes(1, 2)
        bends = rows_of(flat.reshape(pixels.shape), width)

    def lines(values: np.ndarray) -> Tensor:
        flat = values.reshape(len(a), -1, 2 * width).astype(np.float32)
        return torch.from_numpy(flat).to(device)

    return Course(lines(across), lines(slope), None if bends is None else lines(bends))


def sampling_grid(course: Course, height: int) -> Tensor:
    """Return where every pixel comes from, as `grid_sample` wants it.

    Shapes:
        (N, height, width, 2): x, y
    """
    device = course.across.device
    down = (torch.arange(height, device=device) - (height - 1) / 2).view(1, -1, 1)
    # Products and sums one by one: fused, they would round differently here and there.
    grid = torch.mul(down, course.slope).add_(course.across)
    if course.bends is not None:
        weights = basis(height).float().to(device)
        grid.add_(torch.matmul(weights, course.bends))
    return grid.view(len(grid), height, -1, 2)


def warp(
    images: Tensor, course: Course, border: str, back: Tensor | None = None
) -> Tensor:
    """Sample images along a course, by bilinear interpolation.

    Args:
        images: (N, C, H, W) float32.
        course: Of as many images.
        border: `reflect` mirrors at the outer edge, `edge` repeats the last pixel,
            `background` is a color.
        back: That color, (N or 1, C, 1, 1), where it is needed.

    Returns:
        As many images of the same size; not channels last.
    """
    grid = sampling_grid(course, images.shape[2])
    if back is not None:  # past the edge sampling finds zero, so the color is zero
        images = images - back
    found = F.grid_sample(
        images, grid, padding_mode=PADDING[border], align_corners=False
    )
    return found if back is None else found.add_(back)
