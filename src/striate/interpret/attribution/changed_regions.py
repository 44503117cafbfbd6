"""Grid of changed boxes in a feature map: cut patches, paste boxes, build full maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Ints = list[int]
Sides = tuple[int, int]


@dataclass(eq=False)
class ChangedBoxes:
    """Changed boxes of one feature map, all of the same size, on a grid."""

    values: Tensor  # (changes, channels, rows, columns), row by row of the grid
    tops: Ints  # first row of the boxes of each row of the grid
    lefts: Ints  # first column of the boxes of each column of the grid

    @property
    def sides(self) -> Sides:
        """Height and width of a box."""
        return int(self.values.shape[2]), int(self.values.shape[3])

    @property
    def spans(self) -> tuple[Ints, Ints, Sides]:
        """First rows, first columns and size of the boxes."""
        return self.tops, self.lefts, self.sides

    @property
    def grid(self) -> Tensor:
        """Box values: (grid rows, grid columns, channels, box rows, box columns)."""
        grid = len(self.tops), len(self.lefts)
        return self.values.view(*grid, *self.values.shape[1:])


def extract_patches(
    base: Tensor,  # (1, channels, height, width)
    # First row of the patches of each row of the grid; may be outside the map.
    tops: Ints,
    lefts: Ints,  # first column of the patches of each column of the grid, likewise
    size: Sides,  # height and width of a patch
    empty: float = 0.0,  # value outside of the map
) -> Tensor:
    """Cut one patch from a feature map at every position of a grid.

    Shapes:
        (rows of the grid · its columns, channels, *size)

    Example:
        >>> base = torch.arange(9.0).view(1, 1, 3, 3)
        >>> extract_patches(base, [0, 2], [-1, 1], (1, 2)).flatten(1).tolist()
        [[0.0, 0.0], [1.0, 2.0], [0.0, 6.0], [7.0, 8.0]]
    """
    (rows, columns), (height, width) = size, base.shape[2:]
    above, before = max(0, -min(tops)), max(0, -min(lefts))
    below = max(0, max(tops) + rows - height)
    behind = max(0, max(lefts) + columns - width)
    if above or before or below or behind:
        base = F.pad(base, (before, behind, above, below), value=empty)
    views = base[0].unfold(1, rows, 1).unfold(2, columns, 1).permute(1, 2, 0, 3, 4)
    columns_at = [left + before for left in lefts]
    return torch.cat([views[top + above, columns_at] for top in tops]).contiguous()


def paste_boxes(patches: Tensor, boxes: ChangedBoxes, tops: Ints, lefts: Ints) -> None:
    """Paste each changed box into the patch at the same grid position, in place.

    Parts of a box outside of its patch are dropped.

    Example:
        >>> patches = torch.zeros(1, 1, 2, 3)
        >>> boxes = ChangedBoxes(torch.ones(1, 1, 2, 2), tops=[4], lefts=[7])
        >>> paste_boxes(patches, boxes, [4], [6])
        >>> patches[0, 0].tolist()
        [[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]]
    """
    grid, patches_out = boxes.grid, ChangedBoxes(patches, tops, lefts).grid
    rows = _overlaps(boxes.tops, tops, boxes.sides[0], patches.shape[2])
    columns = _overlaps(boxes.lefts, lefts, boxes.sides[1], patches.shape[3])
    for i, in_patch, in_box in rows:
        for j, columns_at, part in columns:
            patches_out[i, j, :, in_patch, columns_at] = grid[i, j, :, in_box, part]


def full_maps(base: Tensor, boxes: ChangedBoxes) -> Tensor:
    """Return one full feature map per change: the original with one box replaced.

    Shapes:
        (1, channels, height, width) → (changes, channels, height, width)

    Example:
        >>> base = torch.zeros(1, 1, 1, 4)
        >>> boxes = ChangedBoxes(torch.ones(2, 1, 1, 2), tops=[0], lefts=[0, 2])
        >>> full_maps(base, boxes).tolist()
        [[[[1.0, 1.0, 0.0, 0.0]]], [[[0.0, 0.0, 1.0, 1.0]]]]
    """
    maps = base.repeat(len(boxes.values), 1, 1, 1)
    paste_boxes(maps, boxes, [0] * len(boxes.tops), [0] * len(boxes.lefts))
    return maps


def _overlaps(
    boxes: Sequence[int], patches: Sequence[int], length: int, patch_length: int
) -> list[tuple[slice, slice, slice]]:
    """Return slices along one axis: where the boxes overlap their patches.

    Each result is (slice of the grid, slice of the patch, slice of the box).

    Example:
        >>> _overlaps([3, 5, 6], [2, 4, 6], length=2, patch_length=3)[0]
        (slice(0, 2, None), slice(1, 3, None), slice(0, 2, None))
    """
    overlaps = []
    shifts = [box - patch for box, patch in zip(boxes, patches, strict=True)]
    first = 0
    for end in range(1, len(shifts) + 1):
        if end < len(shifts) and shifts[end] == shifts[first]:
            continue
        shift = shifts[first]
        in_patch = slice(max(0, shift), min(patch_length, shift + length))
        if in_patch.stop > in_patch.start:
            in_box = slice(in_patch.start - shift, in_patch.stop - shift)
            overlaps.append((slice(first, end), in_patch, in_box))
        first = end
    return overlaps
