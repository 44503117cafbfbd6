"""Align pairs of images, and measure the difference that remains.

The crop and brightness of the first image are fitted to the second by Gauss-Newton
steps. Robust weights ignore regions that do not fit (a watermark, a changed corner).
The remaining difference is divided by the detail of the images: it is small for a copy,
and close to 1 for similar images of different objects.

Lucas, Kanade: "An iterative image registration technique" (IJCAI 1981); the weights are
Geman and McClure's (1985).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

MAX_CELLS = 48  # largest number of cells along a side
ROUGH = (2, 3)  # steps on blurred images (larger range), then on sharp ones
REFINED = (3, 7)
MAX_CROP = 0.07  # largest share of a side that a crop may remove at each edge
GAIN_RANGE = (0.8, 1.25)  # factors of brightness for which an image is still a copy
SHIFT_SCALE = 0.03  # shift as a share of the side that costs as much as the noise
DETAIL = 1.0  # levels: a cell that differs less from its neighbors has no detail
MIN_CELLS = 8  # cells with detail that a comparison needs
UNKNOWN = 255.0  # difference of a pair that is not compared


@dataclass(frozen=True)
class Difference:
    """Differences of image pairs after alignment, one value per pair."""

    # median difference in cells with detail, divided by the contrast
    residual: np.ndarray
    # median difference in fine detail, divided by the detail; 9 if too few cells have
    # detail
    detail: np.ndarray
    # root mean square of the difference in all cells, in gray levels. A watermark
    # changes little of it; another drawing in the same style changes much
    change: np.ndarray

    @classmethod
    def unknown(cls, count: int) -> Self:
        """Return the differences of pairs that are not compared: large values."""
        return cls(**{spec.name: np.full(count, UNKNOWN) for spec in fields(cls)})

    def put(
        self, rows: np.ndarray, other: Self, selected: np.ndarray | slice = slice(None)
    ) -> None:
        """Replace the differences at `rows` by selected rows of another instance."""
        for spec in fields(self):
            getattr(self, spec.name)[rows] = getattr(other, spec.name)[selected]

    @property
    def score(self) -> np.ndarray:
        """Return the geometric mean of `residual` and `detail`; 0: perfect copy."""
        return np.asarray(np.sqrt(self.residual * self.detail))


def align_and_compare(
    moving: np.ndarray, fixed: np.ndarray, steps: tuple[int, int] = ROUGH
) -> Difference:
    """Align pairs of gray images, and return the remaining differences.

    Shapes:
        (P, H, W), (P, h, w) → P differences

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (1, 40, 40))
        >>> bool(align_and_compare(noise, noise[:, 1:, :-1]).score[0] < 0.01)
        True
        >>> bool(align_and_compare(noise, noise[:, ::-1]).score[0] > 0.3)
        True
    """
    moving, fixed = np.asarray(moving, np.float32), np.asarray(fixed, np.float32)
    sides = zip(moving.shape[1:], fixed.shape[1:], strict=True)
    rows, columns = (min(MAX_CELLS, *pair) for pair in sides)
    full = np.tile(np.array([0, 1], np.float32), (len(moving), 1))
    goal = _sample(fixed, full, full, (rows, columns))[0]
    down, across = full, full
    for step in range(sum(steps)):
        warped, inside = _sample(moving, down, across, (rows, columns))
        target = goal
        if step < steps[0]:
            warped, target = _smooth(_smooth(warped)), _smooth(_smooth(goal))
        move = _step(warped, target, inside)
        low, high = full - np.float32(MAX_CROP), full + np.float32(MAX_CROP)
        down = np.clip(down + move[:, 2:], low, high)
        across = np.clip(across + move[:, :2], low, high)
    warped, inside = _sample(moving, down, across, (rows, columns))
    return _difference(warped, goal, inside)


def _sample(
    images: np.ndarray, down: np.ndarray, across: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Average a window of each image over grid cells; also return a valid-cell mask.

    Windows are (start, end), as a fraction of the image height or width.
    """
    height, width = images.shape[1:]
    row_matrix, rows_inside = _window(height, size[0], down)
    column_matrix, columns_inside = _window(width, size[1], across)
    cells = row_matrix @ images @ column_matrix.transpose(0, 2, 1)
    inside = rows_inside[:, :, None] & columns_inside[:, None, :]
    return cells, inside.astype(np.float32)


def _window(size: int, cells: int, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return averaging matrices (P, cells, size) of P windows; mask of valid cells."""
    start, end = span[:, :1] * size, span[:, 1:] * size
    edges = start + (end - start) * (np.arange(cells + 1, dtype=np.float32) / cells)
    pixel = np.arange(size, dtype=np.float32)
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    cover = np.maximum(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0)
    covered = cover.sum(2)
    inside = covered > 0.9 * (high - low)[..., 0]
    return cover / np.maximum(covered, 1e-6)[..., None], inside


def _step(warped: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return one Gauss-Newton update of the window (start, end), for both axes."""
    adjusted, error, weight, scale = _fit_brightness(warped, goal, inside)
    down, across = np.gradient(adjusted, axis=(1, 2))
    shape = adjusted.shape[1:]
    rows, columns = (((np.arange(n) + 0.5) / n).astype(np.float32) for n in shape)
    across, down = across * len(columns), down * len(rows)
    rows = rows[:, None]
    slopes = [across * (1 - columns), across * columns, down * (1 - rows), down * rows]
    slope = np.stack([s.reshape(len(adjusted), -1) for s in slopes], 1)
    weighted = slope * weight[:, None]
    normal_matrix = weighted @ slope.transpose(0, 2, 1)
    penalty = (scale**2 + 0.25) / SHIFT_SCALE**2
    normal_matrix += np.eye(4, dtype=np.float32) * penalty[:, None, None]
    return np.linalg.solve(normal_matrix, weighted @ error[..., None])[..., 0]


def _fit_brightness(
    warped: np.ndarray, goal: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit the brightness and contrast of each image to its partner, robustly.

    Returns:
        The adjusted images (P, h, w); then flattened errors, weights and error scales.
    """
    count = len(warped)
    moving, fixed = warped.reshape(count, -1), goal.reshape(count, -1)
    valid = weight = inside.reshape(count, -1)
    for _ in range(3):
        total = weight.sum(1, keepdims=True) + 1e-6
        moving_mean = (weight * moving).sum(1, keepdims=True) / total
        fixed_mean = (weight * fixed).sum(1, keepdims=True) / total
        deviation = moving - moving_mean
        covariance = (weight * deviation * (fixed - fixed_mean)).sum(1, keepdims=True)
        power = (weight * deviation * deviation).sum(1, keepdims=True)
        gain = np.clip((covariance + 1) / (power + 1), GAIN_RANGE[0], GAIN_RANGE[1])
        adjusted = gain * deviation + fixed_mean
        error = fixed - adjusted
        scale = np.sqrt((weight * error**2).sum(1, keepdims=True) / total)
        weight = valid / (1 + (error / (2 * scale + 1)) ** 2) ** 2
    return adjusted.reshape(warped.shape), error, weight, scale[:, 0]


def _difference(warped: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> Difference:
    adjusted = _fit_brightness(warped, goal, inside)[0]
    valid = inside > 0.99
    contrast = np.sqrt(_variance(goal, valid)) + 1e-6
    squares = np.where(valid, (adjusted - goal) ** 2, 0).sum((1, 2))
    change = np.sqrt(squares / np.maximum(valid.sum((1, 2)), 1))
    fine, _ = _detail(adjusted, goal, valid)
    adjusted, goal, valid = _halve(adjusted), _halve(goal), _halve(inside) > 0.99
    coarse, has_detail = _detail(adjusted, goal, valid)
    residual = _median(np.abs(adjusted - goal), has_detail) / contrast
    too_few = has_detail.reshape(len(adjusted), -1).sum(1) < MIN_CELLS
    detail = np.where(too_few, 9.0, np.fmin(fine, coarse))
    residual = np.nan_to_num(residual, nan=9.0)
    return Difference(residual=residual, detail=detail, change=change)


def _variance(cells: np.ndarray, valid: np.ndarray) -> np.ndarray:
    flat, mask = cells.reshape(len(cells), -1), valid.reshape(len(cells), -1)
    count = mask.sum(1) + 1e-6
    mean = (flat * mask).sum(1) / count
    return np.asarray((((flat - mean[:, None]) * mask) ** 2).sum(1) / count)


def _detail(
    moving: np.ndarray, fixed: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each pair's difference in fine detail, and a mask of detailed cells."""
    moving_detail, fixed_detail = moving - _smooth(moving), fixed - _smooth(fixed)
    size = np.maximum(np.abs(moving_detail), np.abs(fixed_detail))
    has_detail = valid & (size > DETAIL)
    differs = _median(np.abs(moving_detail - fixed_detail), has_detail)
    return differs / _median(size, has_detail), has_detail


def _median(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the median over the selected cells of each image; NaN without cells."""
    flat = np.where(where, values, np.inf).reshape(len(values), -1)
    flat.sort(axis=1)
    count = where.reshape(len(values), -1).sum(1)
    medians = flat[np.arange(len(flat)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, medians, np.nan)


def _smooth(cells: np.ndarray) -> np.ndarray:
    """Average each cell with its eight neighbors; edge cells are repeated."""
    padded = np.pad(cells, ((0, 0), (1, 1), (1, 1)), "edge")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9)


def _halve(cells: np.ndarray) -> np.ndarray:
    height, width = (n // 2 * 2 for n in cells.shape[1:])
    even = cells[:, :height, :width]
    blocks = even.reshape(len(cells), height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((2, 4)))
