"""Grid of changed boxes in a feature map: cut patches, paste boxes, build full maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

Ints = list[int]
Sides = tuple[int, int]


@dataclass(eq=False)
class ChangedBoxes:
    """Changed boxes of one feature map, all of the same size, on a grid.

    Args:
        values: (changes, channels, rows, columns), row by row of the grid.
        tops: First row of the boxes of each row of the grid.
        lefts: First column of the boxes of each column of the grid.
    """

    values: Tensor
    tops: Ints
    lefts: Ints

    @property
    def sides(self) -> Sides:
        """Height and width of a box."""
        return int(self.values.shape[2]), int(self.values.shape[3])

    @property
    def grid(self) -> Tensor:
        """Values with shape (grid rows, grid columns, channels, rows, columns)."""
        grid = len(self.tops), len(self.lefts)
        return self.values.view(*grid, *self.values.shape[1:])


def extract_patches(
    base: Tensor, tops: Ints, lefts: Ints, size: Sides, empty: float = 0.0
) -> Tensor:
    """Cut one patch from a feature map at every position of a grid.

    Args:
        base: (1, channels, height, width).
        tops: First row of the patches of each row of the grid; may be outside the map.
        lefts: First column of the patches of each column of the grid, likewise.
        size: Height and width of a patch.
        empty: Value outside of the map.

    Shapes:
        (rows of the grid · its columns, channels, *size)

    Example:
        >>> import torch
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
    patches_out = base.new_empty(len(tops), len(lefts), base.shape[1], rows, columns)
    for i, rows_at in _equal_steps([top + above for top in tops]):
        for j, columns_at in _equal_steps([column + before for column in lefts]):
            patches_out[i, j] = views[rows_at, columns_at]
    return patches_out.flatten(0, 1)


def paste_boxes(patches: Tensor, boxes: ChangedBoxes, tops: Ints, lefts: Ints) -> None:
    """Paste each changed box into the patch at the same grid position, in place.

    Parts of a box outside of its patch are dropped.

    Args:
        patches: Patches from `extract_patches`.
        boxes: The changed boxes.
        tops: First row of the patches of each row of the grid.
        lefts: First column of the patches of each column of the grid.

    Example:
        >>> import torch
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
        >>> import torch
        >>> base = torch.zeros(1, 1, 1, 4)
        >>> boxes = ChangedBoxes(torch.ones(2, 1, 1, 2), tops=[0], lefts=[0, 2])
        >>> full_maps(base, boxes).tolist()
        [[[[1.0, 1.0, 0.0, 0.0]]], [[[0.0, 0.0, 1.0, 1.0]]]]
    """
    rows, columns = boxes.sides
    rows_at, columns_at = len(boxes.tops), len(boxes.lefts)
    # First paste every box into its rows, then these rows into the maps: one copy per
    # row and column of the grid, not one per position.
    bands = extract_patches(base, boxes.tops, [0], (rows, base.shape[3]))
    bands = bands.unsqueeze(1).repeat(1, columns_at, 1, 1, 1)
    for j, column in enumerate(boxes.lefts):
        bands[:, j, ..., column : column + columns] = boxes.grid[:, j]
    maps = base.repeat(rows_at, columns_at, 1, 1, 1)
    for i, top in enumerate(boxes.tops):
        maps[i, :, :, top : top + rows] = bands[i]
    return maps.flatten(0, 1)


def _equal_steps(starts: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Group starts with equal steps into pairs (slice of the grid, slice of the map).

    Example:
        >>> list(_equal_steps([0, 0, 2, 4]))
        [(slice(0, 1, None), slice(0, 1, 1)), (slice(1, 4, None), slice(0, 5, 2))]
    """
    first = 0
    while first < len(starts):
        end, step = first + 1, 1
        if end < len(starts) and starts[end] > starts[first]:
            step = starts[end] - starts[first]
            while end < len(starts) and starts[end] - starts[end - 1] == step:
                end += 1
        yield slice(first, end), slice(starts[first], starts[end - 1] + 1, step)
        first = end


def _overlaps(
    boxes: Sequence[int], patches: Sequence[int], length: int, patch_length: int
) -> list[tuple[slice, slice, slice]]:
    """Group neighboring boxes that have the same position in their patches.

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
