"""Lay one image over another and measure what still differs.

The first image's crop and brightness are fitted to the second's by Gauss-Newton steps
that give little weight to what does not fit (a watermark, a changed corner). What then
differs is set against the images' own detail: of a copy it is a small part, between
two alike images of different things it is nearly all.

Lucas, Kanade: "An iterative image registration technique" (IJCAI 1981); the weights are
Geman and McClure's (1985).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LARGEST = 48  # cells a side that are compared
QUICK = (2, 3)  # steps on blurred images, which see further, then on sharp ones
PATIENT = (3, 7)
CROP = 0.07  # most of a side that a crop may take from each edge
GAIN = (0.8, 1.25)  # brightness changes that still make a copy
PULL = 0.03  # of the side: a shift that costs as much as the noise does
DETAIL = 1.0  # level: a cell that differs less from its surroundings shows nothing
FEWEST = 8  # cells with detail below which nothing is said


@dataclass(frozen=True)
class Difference:
    """What differs between aligned images, an array over the pairs.

    Args:
        residual: Median difference where there is detail, over the contrast.
        detail: Median difference of the detail, over the detail; 9 where too few cells
            hold any.
    """

    residual: np.ndarray
    detail: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """Geometric mean of the two: 0 for a perfect copy."""
        return np.asarray(np.sqrt(self.residual * self.detail))


def compare(
    ours: np.ndarray, theirs: np.ndarray, steps: tuple[int, int] = QUICK
) -> Difference:
    """Compare pairs of gray images, each stack of one size.

    Args:
        ours: Images whose crop is fitted; the finer of the two.
        theirs: Images they are laid over.
        steps: How many steps on blurred and on sharp images.

    Shapes:
        (P, H, W), (P, h, w) → P differences

    Example:
        >>> noise = np.random.default_rng(0).integers(0, 256, (1, 40, 40))
        >>> bool(compare(noise, noise[:, 1:, :-1]).score[0] < 0.01)
        True
        >>> bool(compare(noise, noise[:, ::-1]).score[0] > 0.3)
        True
    """
    ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
    sides = zip(ours.shape[1:], theirs.shape[1:], strict=True)
    rows, columns = (min(LARGEST, *pair) for pair in sides)
    whole = np.zeros((len(ours), 2), np.float32) + np.array([0, 1], np.float32)
    goal = _look(theirs, whole, whole, (rows, columns))[0]
    down, across = whole, whole
    for step in range(sum(steps)):
        seen, inside = _look(ours, down, across, (rows, columns))
        target = goal
        if step < steps[0]:
            seen, target = _smooth(_smooth(seen)), _smooth(_smooth(goal))
        move = _step(seen, target, inside)
        reach = np.array([CROP, CROP], np.float32)
        down = np.clip(down + move[:, 2:], whole - reach, whole + reach)
        across = np.clip(across + move[:, :2], whole - reach, whole + reach)
    seen, inside = _look(ours, down, across, (rows, columns))
    return _difference(seen, goal, inside)


def _look(
    images: np.ndarray, down: np.ndarray, across: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Average a window of each image to cells; tell which cells lie inside.

    Windows are (start, end) in shares of the side.
    """
    height, width = images.shape[1:]
    left, rows_inside = _window(height, size[0], down)
    right, columns_inside = _window(width, size[1], across)
    cells = left @ images @ right.transpose(0, 2, 1)
    inside = rows_inside[:, :, None] & columns_inside[:, None, :]
    return cells, inside.astype(np.float32)


def _window(size: int, cells: int, span: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (P, cells, size) averaging matrices, and the cells that lie inside."""
    start, end = span[:, :1] * size, span[:, 1:] * size
    edges = start + (end - start) * (np.arange(cells + 1, dtype=np.float32) / cells)
    pixel = np.arange(size, dtype=np.float32)
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    cover = np.maximum(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0)
    held = cover.sum(2)
    inside = held > 0.9 * (high - low)[..., 0]
    return cover / np.maximum(held, 1e-6)[..., None], inside


def _step(seen: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the change of (start, end) across and down that explains most."""
    lit, error, weight, scale = _fit_light(seen, goal, inside)
    down, across = np.gradient(lit, axis=(1, 2))
    rows, columns = (
        ((np.arange(n) + 0.5) / n).astype(np.float32) for n in lit.shape[1:]
    )
    across, down = across * len(columns), down * len(rows)
    slopes = [
        across * (1 - columns),
        across * columns,
        down * (1 - rows)[:, None],
        down * rows[:, None],
    ]
    slope = np.stack([s.reshape(len(lit), -1) for s in slopes], 1)
    weighted = slope * weight[:, None]
    normal = weighted @ slope.transpose(0, 2, 1)
    cost = (scale**2 + 0.25) / PULL**2
    normal += np.eye(4, dtype=np.float32) * cost[:, None, None]
    return np.asarray(np.linalg.solve(normal, weighted @ error[..., None])[..., 0])


def _fit_light(
    seen: np.ndarray, goal: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit brightness and contrast, thrice, ever less swayed by what does not fit.

    Returns:
        The lit images (P, h, w), and flat: error, weights, and the error's scale.
    """
    count = len(seen)
    ours, theirs = seen.reshape(count, -1), goal.reshape(count, -1)
    valid = weight = inside.reshape(count, -1)
    for _ in range(3):
        total = weight.sum(1, keepdims=True) + 1e-6
        our_mean = (weight * ours).sum(1, keepdims=True) / total
        their_mean = (weight * theirs).sum(1, keepdims=True) / total
        off = ours - our_mean
        shared = (weight * off * (theirs - their_mean)).sum(1, keepdims=True)
        power = (weight * off * off).sum(1, keepdims=True)
        lit = np.clip((shared + 1) / (power + 1), *GAIN) * off + their_mean
        error = theirs - lit
        scale = np.sqrt((weight * error**2).sum(1, keepdims=True) / total)
        weight = valid / (1 + (error / (2 * scale + 1)) ** 2) ** 2
    return lit.reshape(seen.shape), error, weight, scale[:, 0]


def _difference(seen: np.ndarray, goal: np.ndarray, inside: np.ndarray) -> Difference:
    lit = _fit_light(seen, goal, inside)[0]
    valid = inside > 0.99
    contrast = np.sqrt(_variance(goal, valid)) + 1e-6
    fine, _ = _detail(lit, goal, valid)
    lit, goal, valid = _halve(lit), _halve(goal), _halve(inside) > 0.99
    coarse, holds = _detail(lit, goal, valid)
    residual = _median(np.abs(lit - goal), holds) / contrast
    few = holds.reshape(len(lit), -1).sum(1) < FEWEST
    detail = np.where(few, 9.0, np.fmin(fine, coarse))
    return Difference(residual=np.nan_to_num(residual, nan=9.0), detail=detail)


def _variance(cells: np.ndarray, valid: np.ndarray) -> np.ndarray:
    flat, mask = cells.reshape(len(cells), -1), valid.reshape(len(cells), -1)
    count = mask.sum(1) + 1e-6
    mean = (flat * mask).sum(1) / count
    return np.asarray((((flat - mean[:, None]) * mask) ** 2).sum(1) / count)


def _detail(
    ours: np.ndarray, theirs: np.ndarray, valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of the detail that differs, and the cells that hold detail."""
    our_detail, their_detail = ours - _smooth(ours), theirs - _smooth(theirs)
    size = np.maximum(np.abs(our_detail), np.abs(their_detail))
    holds = valid & (size > DETAIL)
    differs = _median(np.abs(our_detail - their_detail), holds)
    return differs / _median(size, holds), holds


def _median(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the median over the chosen cells of each image, NaN where none is."""
    flat = np.where(where, values, np.inf).reshape(len(values), -1)
    flat.sort(axis=1)
    count = where.reshape(len(values), -1).sum(1)
    chosen = flat[np.arange(len(flat)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, chosen, np.nan)


def _smooth(cells: np.ndarray) -> np.ndarray:
    """Average each cell with its eight neighbors, the edge repeated."""
    wide = np.pad(cells, ((0, 0), (1, 1), (1, 1)), "edge")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    return np.asarray((rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]) / 9)


def _halve(cells: np.ndarray) -> np.ndarray:
    height, width = (n // 2 * 2 for n in cells.shape[1:])
    even = cells[:, :height, :width]
    blocks = even.reshape(len(cells), height // 2, 2, width // 2, 2)
    return np.asarray(blocks.mean((2, 4)))
