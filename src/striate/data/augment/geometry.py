"""All geometric transforms of an image in one warp, with a single interpolation.

Coordinates are pixels from the image's center, x to the right and y down. The value of
a pixel belongs to the pixel's center. The warp gives the source coordinates of every
pixel of the result:

    source = A · (position + displacement(position)) + t

The order of transforms is: crop, flip, scale, rotation, shear, shift, elastic
deformation. One warp samples the image only once, so that nothing is blurred twice. A
transform after the crop can still use pixels outside the crop window, instead of a
filled border.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.data.augment.elastic import spline_basis, spline_rows
from striate.data.augment.random_params import RandomParams

PADDING = {"reflect": "reflection", "edge": "border", "background": "zeros"}


def affine_matrices(
    params: RandomParams, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the affine matrix A and the translation t of each image.

    Shapes:
        (N, 2, 2) and (N, 2), float64

    Example:
        >>> from striate.data.augment.random_params import identity_params
        >>> a, t = affine_matrices(identity_params(1, angle=np.array([90.0])), 9, 9)
        >>> a.round().tolist(), t.tolist()
        ([[[0.0, -1.0], [1.0, 0.0]]], [[0.0, 0.0]])
    """
    angle = np.deg2rad(params.angle)
    cos, sin = np.cos(angle), np.sin(angle)
    along, down = np.tan(np.deg2rad(params.shear)).T
    # The inverse of the rotation, times the inverse of both shears one after the other.
    a = np.stack(
        [
            np.stack([cos + sin * down, -cos * along - sin * (1 + along * down)], -1),
            np.stack([sin - cos * down, -sin * along + cos * (1 + along * down)], -1),
        ],
        axis=1,
    )
    crop_share = params.crop[:, 0]
    signs = np.where(params.flip, -1.0, 1.0)
    a *= (crop_share / params.zoom)[:, None, None] * signs[:, :, None]
    margin = 0.5 * (1 - crop_share[:, None]) * np.array([width, height])
    shift = (a @ params.shift[:, :, None].astype(float))[:, :, 0]
    return a, params.crop[:, 1:] * margin - shift


@dataclass(frozen=True)
class SamplingField:
    """Source coordinates of a warp, stored as an affine part and a spline part.

    The coordinates of pixel row r are across + r · slope + spline.
    """

    # (N, 1, 2W), x, y, x, y … of the pixel row through the center
    across: Tensor = field(repr=False)
    # (N, 1, 2W), change of the coordinates from one row to the next
    slope: Tensor = field(repr=False)
    # (N, K, 2W), to multiply by `spline_basis(H)`; None without deformation
    spline: Tensor | None = field(default=None, repr=False)

    def take(self, chunk: slice) -> SamplingField:
        """Return the sampling field of the images in a slice of the batch."""
        spline = None if self.spline is None else self.spline[chunk]
        return SamplingField(self.across[chunk], self.slope[chunk], spline)


def sampling_field(
    params: RandomParams, height: int, width: int, device: torch.device | str = "cpu"
) -> SamplingField:
    """Compose all geometric transforms of every image into a sampling field.

    Coordinates are those of `grid_sample`: −1 and 1 are the edges of the image.
    """
    a, t = affine_matrices(params, height, width)
    halves = np.array([width, height]) / 2
    a_unit, t_unit = a / halves[:, None], t / halves
    x = np.arange(width) - (width - 1) / 2
    across = x[:, None] * a_unit[:, None, :, 0] + t_unit[:, None]
    slope = np.broadcast_to(a_unit[:, None, :, 1], across.shape)
    spline = None
    if params.control_shifts is not None:
        pixels = params.control_shifts * np.array([width, height])
        flat = pixels.reshape(len(a), -1, 2) @ a_unit.swapaxes(1, 2)
        spline = spline_rows(flat.reshape(pixels.shape), width)

    def lines(values: np.ndarray) -> Tensor:
        flat = values.reshape(len(a), -1, 2 * width).astype(np.float32)
        return torch.from_numpy(flat).to(device)

    spline_lines = None if spline is None else lines(spline)
    return SamplingField(lines(across), lines(slope), spline_lines)


def sampling_grid(field: SamplingField, height: int) -> Tensor:
    """Return the source (x, y) of every output pixel, as `grid_sample` expects.

    Shapes:
        (N, height, width, 2): x, y
    """
    device = field.across.device
    down = (torch.arange(height, device=device) - (height - 1) / 2).view(1, -1, 1)
    # Products and sums one by one: fused, they would round differently.
    grid = torch.mul(down, field.slope).add_(field.across)
    if field.spline is not None:
        weights = spline_basis(height).float().to(device)
        grid.add_(torch.matmul(weights, field.spline))
    return grid.view(len(grid), height, -1, 2)


def warp_images(
    images: Tensor, field: SamplingField, border: str, background: Tensor | None = None
) -> Tensor:
    """Warp images by bilinear interpolation.

    Args:
        images: (N, C, H, W) float32.
        field: Source coordinates of the same N images.
        border: `reflect` mirrors at the outer edge, `edge` repeats the last pixel,
            `background` fills with a color.
        background: Fill color for the border mode `background`, (N or 1, C, 1, 1).

    Returns:
        The warped images, same shape; not channels last.
    """
    grid = sampling_grid(field, images.shape[2])
    if background is not None:  # past the edge, sampling gives zero
        images = images - background
    mode = PADDING[border]
    sampled = F.grid_sample(images, grid, padding_mode=mode, align_corners=False)
    return sampled if background is None else sampled.add_(background)
