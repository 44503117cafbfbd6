"""Four networks before points that no line can tell apart: what bends a boundary.

All end in one logistic output: a probability between 0 and 1 whose half is the
boundary. One dense layer draws a line; three in a row are one, and draw a line; one on
squares of the coordinates, or two with a bend between them, draw a closed curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from striate.interpret.depth.linear_collapse import (
    boundary,
    collapsed,
    polynomial,
    rings,
)
from striate.interpret.render import signed

REACH = 2.6  # of the plane drawn, each way: the outer ring ends at 2.3
SIDE = 180  # pixels
_DOT = 2  # pixels a point is drawn wide
_INNER, _OUTER = (120, 20, 18), (14, 40, 84)


class Squares(nn.Module):
    """Every product of two coordinates up to a degree, as features.

    Args:
        degree: The highest.

    Shapes:
        (N, 2) → (N, (d + 1)(d + 2)/2 − 1)

    Example:
        >>> Squares(2)(torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """

    def __init__(self, degree: int = 2) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, points: Tensor) -> Tensor:
        """Multiply."""
        return polynomial(points, self.degree)


@dataclass(frozen=True, kw_only=True)
class Bent:
    """One network, fitted.

    Args:
        name: What it is.
        model: (N, 2) → (N, 1), in logits.
        accuracy: Of the points it was fitted to.
        apart: Largest difference between its logits and those of the one dense layer
            it collapses to; None where it does not collapse.
    """

    name: str
    model: nn.Module
    accuracy: float
    apart: float | None = None

    @property
    def weights(self) -> int:
        """Return how many numbers were fitted."""
        return sum(p.numel() for p in self.model.parameters())


def bends(count: int = 400, seed: int = 0) -> list[Bent]:
    """Fit four networks to points of two rings, by the same search.

    Args:
        count: Points.
        seed: Of points and first weights.

    Example:
        >>> line, deep, squares, bent = bends(200)
        >>> max(line.accuracy, deep.accuracy) < 0.7 < squares.accuracy
        True
    """
    points, inner = rings(count, seed)
    found = []
    for name, model in _models(seed).items():
        right = boundary(model, points, inner)
        found.append(
            Bent(name=name, model=model, accuracy=right, apart=_apart(model, points))
        )
    return found


def _models(seed: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        return {
            "one dense layer": nn.Sequential(nn.Linear(2, 1)),
            "three dense layers in a row": nn.Sequential(*deep),
            "one dense layer on squares": nn.Sequential(Squares(), nn.Linear(5, 1)),
            "two dense layers, ReLU between": nn.Sequential(
                nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)
            ),
        }


@torch.no_grad()
def _apart(model: nn.Module, points: Tensor) -> float | None:
    layers = list(model.children())
    if len(layers) < 2 or not all(isinstance(one, nn.Linear) for one in layers):
        return None
    return float((collapsed(layers)(points) - model(points)).abs().max())


@torch.no_grad()
def plane(
    model: nn.Module, points: Tensor, inner: Tensor, side: int = SIDE
) -> np.ndarray:
    """Draw the probability over the plane, and the points upon it.

    Red is the inner ring's side, blue the outer's, pale is the boundary.

    Shapes:
        points: (N, 2); inner: (N,) → (side, side, 3), uint8

    Example:
        >>> points, inner = rings(10)
        >>> plane(nn.Linear(2, 1), points, inner, side=8).shape
        (8, 8, 3)
    """
    steps = torch.linspace(-REACH, REACH, side)
    grid = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # rows from the top
    probs = model(grid)[:, 0].sigmoid().view(side, side).numpy()
    drawn = signed(probs - 0.5, 0.5)
    places = ((points / REACH + 1) / 2 * (side - 1)).round().long().tolist()
    for (right, up), within in zip(places, inner.tolist(), strict=True):
        top, left = side - 1 - up, right
        drawn[top : top + _DOT, left : left + _DOT] = _INNER if within else _OUTER
    return drawn


@torch.no_grad()
def profile(model: nn.Module, count: int = 81) -> tuple[list[float], list[float]]:
    """Return the probability along a line through the middle, from left to right.

    Example:
        >>> places, probs = profile(nn.Linear(2, 1), 3)
        >>> len(places), all(0 <= one <= 1 for one in probs)
        (3, True)
    """
    steps = torch.linspace(-REACH, REACH, count)
    line = torch.stack([steps, torch.zeros(count)], 1)
    probs: list[float] = model(line)[:, 0].sigmoid().tolist()
    return steps.tolist(), probs
