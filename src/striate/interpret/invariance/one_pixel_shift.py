"""A digit moved by one pixel: how much of the image changes, how much of its maps.

The notes count 38 changed pixels in one digit of 28×28, and 12 changed cells behind a
vertical-edge filter and 2×2 max pooling: 68 % fewer. Pooled maps have a quarter of the
cells, so that much of it would come about by itself; hence the shares, and the same map
with every other cell simply taken, beside the counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.interpret.invariance.transforms import shift_pixels

EDGE = ((-1.0, 0.0, 1.0),) * 3  # left to right, from dark to light
NOTES = 38, 12  # what the notes count in one digit: at the input, and pooled
NOTES_SIDE = 28  # pixels
INPUT, POOLED, SUBSAMPLED = "image", "max pool", "every other"


@dataclass(frozen=True, kw_only=True)
class ChangedCells:
    """Cells that change when images move one pixel to the right.

    Args:
        stage: What was compared.
        cells: Of one image's map.
        counts: (images,): how many of them change.
    """

    stage: str
    cells: int
    counts: Tensor

    @property
    def mean(self) -> float:
        """Changed cells an image."""
        return float(self.counts.double().mean())

    @property
    def std(self) -> float:
        """From image to image."""
        return float(self.counts.double().std(correction=0))

    @property
    def share(self) -> float:
        """Of all cells."""
        return self.mean / self.cells


def resize_gray(images: Tensor, side: int = NOTES_SIDE) -> Tensor:
    """Bring gray images to a square size, by bilinear sampling.

    Shapes:
        (N, H, W) → (N, side, side)

    Example:
        >>> resize_gray(torch.full((1, 8, 8), 0.5)).shape
        torch.Size([1, 28, 28])
    """
    if images.shape[1:] == (side, side):
        return images
    size = side, side
    return F.interpolate(
        images[:, None], size, mode="bilinear", align_corners=False, antialias=True
    )[:, 0]


def one_pixel_shift(images: Tensor) -> list[ChangedCells]:
    """Count what one pixel of shift changes: at the input, behind the filter, pooled.

    Images are made black and white at half their range, as a count asks for; a cell
    has changed where its number is another.

    Args:
        images: Gray images, from 0 to 1.

    Shapes:
        images: (N, H, W)

    Raises:
        GeometryError: Other dimensions, or too small for a 3×3 filter and a pool.

    Example:
        >>> bar = torch.zeros(1, 8, 8)
        >>> bar[0, :, 3] = 1
        >>> [(one.stage, int(one.mean)) for one in one_pixel_shift(bar)]
        [('image', 16), ('edges', 12), ('max pool', 6), ('every other', 3)]
    """
    if images.ndim != 3 or min(images.shape[1:]) < 4:
        shape = "×".join(map(str, images.shape))
        what = f"needs gray images of at least 4×4, got {shape}"
        raise GeometryError(what, fix="give (images, height, width)")
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
    """Return the maps of images as they are, and one pixel further right, by stage.

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
