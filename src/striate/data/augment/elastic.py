"""Elastic deformation: a coarse grid of control points, interpolated by B-splines.

The displacement field is a uniform cubic B-spline (free-form deformation, Rueckert et
al. 1999). It cannot fold the image over itself while no control point moves further
than 1/2.046 of the distance between two of them (Choi & Lee 2000, "Injectivity
conditions of 2D and 3D uniform cubic B-spline functions"): 0.122 of the side for the
four cells used here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CELLS = 4
CONTROL_POINTS = CELLS + 3

# The field is a matrix product. Its factors are rounded to so many bits that every
# product and every sum of them is exact in float32: whatever order a processor adds
# in, and whatever else is in the batch, the same pixels come out.
_BASIS_BITS, _ROW_BITS = 11, 12


@lru_cache(maxsize=32)
def spline_basis(side: int) -> Tensor:
    """Return the B-spline weight of each control point at each pixel of an axis.

    Shapes:
        (side, CONTROLS), float64; every row sums to 1 up to rounding

    Example:
        >>> basis = spline_basis(8)
        >>> basis.shape, bool((basis.sum(1) - 1).abs().max() < 0.002)
        (torch.Size([8, 7]), True)
    """
    place = (np.arange(side) + 0.5) / side * CELLS
    cell = np.floor(place).astype(int)
    t = place - cell
    weights = (
        (1 - t) ** 3,
        3 * t**3 - 6 * t**2 + 4,
        -3 * t**3 + 3 * t**2 + 3 * t + 1,
        t**3,
    )
    table = np.zeros((side, CONTROL_POINTS))
    for k, weight in enumerate(weights):
        table[np.arange(side), cell + k] = weight / 6
    table = np.rint(table * 2**_BASIS_BITS) / 2**_BASIS_BITS
    return torch.from_numpy(table)


def spline_rows(control_shifts: np.ndarray, width: int) -> np.ndarray:
    """Interpolate the shifts of the control points along x, by cubic B-splines.

    Shapes:
        (N, K, K, 2) → (N, K, width, 2), float32, in the unit of `control_shifts`
    """
    largest = np.abs(control_shifts).max(axis=(1, 2, 3), keepdims=True)
    # A power of two above the largest shift: dividing by it is exact.
    unit = np.exp2(np.ceil(np.log2(np.maximum(largest, 2.0**-40))))
    exact = np.rint(control_shifts / unit * 2**_ROW_BITS)
    # One product for all images, not one for each: (…, 2, K) times (K, width).
    flat = exact.swapaxes(2, 3).reshape(-1, CONTROL_POINTS)
    along = np.rint(np.matmul(flat, spline_basis(width).numpy().T))
    rows = along.reshape(-1, CONTROL_POINTS, 2, width) * (unit / 2**_ROW_BITS)
    return np.asarray(rows.swapaxes(2, 3), np.float32, order="C")
