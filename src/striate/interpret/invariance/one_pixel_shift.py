"""Count the values that a one-pixel shift changes in image, edge and pooled maps.

The study notes count 38 changed pixels in one 28×28 digit, and 12 changed cells after a
vertical-edge filter and 2×2 max pooling: 68 % fewer. A pooled map has only a quarter of
the cells, which explains part of that. So we also report shares, and the same map
subsampled (every other cell) instead of pooled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.interpret.invariance.transforms import shift_pixels

EDGE = ((-1.0, 0.0, 1.0),) * 3  # left to right, from dark to light
NOTES = 38, 12  # counts in the study notes for one digit: input, pooled
NOTES_SIDE = 28  # pixels
INPUT, POOLED, SUBSAMPLED = "image", "max pool", "subsampled"


@dataclass(frozen=True, kw_only=True)
class ChangedCells:
    """Number of map cells that change when images shift one pixel to the right."""

    stage: str
    cells: int
    counts: Tensor

    @property
    def mean(self) -> float:
        """Mean number of changed cells per image."""
        return float(self.counts.double().mean())

    @property
    def std(self) -> float:
        """Standard deviation of the number of changed cells, over images."""
        return float(self.counts.double().std(correction=0))

    @property
    def share(self) -> float:
        """Mean share of changed cells."""
        return self.mean / self.cells


def resize_gray(images: Tensor) -> Tensor:
    """Resize gray images to a square, with bilinear interpolation.

    Shapes:
        (N, H, W) → (N, 28, 28)

    Example:
        >>> resize_gray(torch.full((1, 8, 8), 0.5)).shape
        torch.Size([1, 28, 28])
    """
    size = NOTES_SIDE, NOTES_SIDE
    if images.shape[1:] == size:
        return images
    return F.interpolate(
        images[:, None], size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]


def one_pixel_shift(images: Tensor) -> list[ChangedCells]:
    """Count the values of images, edge maps and pooled maps that a shift changes.

    Images are binarized at half their range. A cell has changed if its value differs.

    Shapes:
        images: (N, H, W)

    Raises:
        GeometryError: The shape has not three dimensions, or the side is below 4.

    Example:
        >>> bar = torch.zeros(1, 8, 8)
        >>> bar[0, :, 3] = 1
        >>> [(each.stage, int(each.mean)) for each in one_pixel_shift(bar)]
        [('image', 16), ('edges', 12), ('max pool', 6), ('subsampled', 3)]
    """
    if images.ndim != 3 or min(images.shape[1:]) < 4:
        shape = "×".join(map(str, images.shape))
        what = f"gray images of at least 4×4 are required, got {shape}"
        raise GeometryError(what, fix="use the shape (images, height, width)")
    original, shifted = shift_stages(images)
    return [
        ChangedCells(
            stage=stage,
            cells=before[0].numel(),
            counts=(before != shifted[stage]).flatten(1).sum(1),
        )
        for stage, before in original.items()
    ]


def shift_stages(images: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the maps of the original and of the shifted images, each a dict by stage.

    Shapes:
        (N, H, W) → each (N, height, width)
    """
    binary = (images > 0.5).float()[:, None]
    return _maps(binary), _maps(shift_pixels(binary, 0, 1))


def _maps(binary: Tensor) -> dict[str, Tensor]:
    edges = F.conv2d(binary, torch.tensor(EDGE)[None, None]).relu()
    maps_by_stage = {
        INPUT: binary,
        "edges": edges,
        POOLED: F.max_pool2d(edges, 2),
        SUBSAMPLED: edges[:, :, :-1:2, :-1:2],
    }
    return {stage: maps[:, 0] for stage, maps in maps_by_stage.items()}
