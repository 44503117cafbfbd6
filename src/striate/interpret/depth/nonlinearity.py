"""Four networks before points that no line can tell apart: what bends a boundary.

All end in one logistic output: a probability between 0 and 1 whose half is the
boundary. One dense layer draws a line; three in a row are one, and draw a line; one on
squares of the coordinates, or two with a bend between them, draw a closed curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.interpret.render import diverging_colors

PLANE_LIMIT = 2.6  # of the plane drawn, each way: the outer ring ends at 2.3
SIDE = 180  # pixels
_DOT = 2  # pixels a point is drawn wide
_INNER, _OUTER = (120, 20, 18), (14, 40, 84)


class PolynomialFeatures(nn.Module):
    """Every product of two coordinates up to a degree, as features.

    Args:
        degree: The highest.

    Shapes:
        (N, 2) → (N, (d + 1)(d + 2)/2 − 1)

    Example:
        >>> PolynomialFeatures(2)(torch.tensor([[2.0, 3.0]])).tolist()
        [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """

    def __init__(self, degree: int = 2) -> None:
        super().__init__()
        self.degree = degree

    def forward(self, points: Tensor) -> Tensor:
        """Multiply."""
        return polynomial_features(points, self.degree)


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """One network, fitted.

    Args:
        name: What it is.
        model: (N, 2) → (N, 1), in logits.
        accuracy: Of the points it was fitted to.
        collapse_error: Largest difference between its logits and those of the one dense layer
            it collapses to; None where it does not collapse.
    """

    name: str
    model: nn.Module
    accuracy: float
    collapse_error: float | None = None

    @property
    def weights(self) -> int:
        """Return how many numbers were fitted."""
        return sum(p.numel() for p in self.model.parameters())


def fit_networks(count: int = 400, seed: int = 0) -> list[FittedNetwork]:
    """Fit four networks to points of two rings, by the same search.

    Args:
        count: Points.
        seed: Of points and first weights.

    Example:
        >>> line, deep, squares, bent = fit_networks(200)
        >>> max(line.accuracy, deep.accuracy) < 0.7 < squares.accuracy
        True
    """
    points, inner = ring_points(count, seed)
    fitted = []
    for name, model in _models(seed).items():
        accuracy = fit_boundary(model, points, inner)
        fitted.append(
            FittedNetwork(
                name=name,
                model=model,
                accuracy=accuracy,
                collapse_error=_collapse_error(model, points),
            )
        )
    return fitted


def _models(seed: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        return {
            "one dense layer": nn.Sequential(nn.Linear(2, 1)),
            "three dense layers in a row": nn.Sequential(*deep),
            "one dense layer on squares": nn.Sequential(
                PolynomialFeatures(), nn.Linear(5, 1)
            ),
            "two dense layers, ReLU between": nn.Sequential(
                nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)
            ),
        }


@torch.no_grad()
def _collapse_error(model: nn.Module, points: Tensor) -> float | None:
    layers = list(model.children())
    if len(layers) < 2 or not all(
        isinstance(layer, nn.Linear) for layer in layers
    ):
        return None
    return float((collapse_linear(layers)(points) - model(points)).abs().max())


@torch.no_grad()
def draw_boundary(
    model: nn.Module, points: Tensor, inner: Tensor, side: int = SIDE
) -> np.ndarray:
    """Draw the probability over the plane, and the points upon it.

    Red is the inner ring's side, blue the outer's, pale is the boundary.

    Shapes:
        points: (N, 2); inner: (N,) → (side, side, 3), uint8

    Example:
        >>> points, inner = ring_points(10)
        >>> draw_boundary(nn.Linear(2, 1), points, inner, side=8).shape
        (8, 8, 3)
    """
    steps = torch.linspace(-PLANE_LIMIT, PLANE_LIMIT, side)
    grid = torch.cartesian_prod(steps.flip(0), steps).flip(1)  # rows from the top
    probs = model(grid)[:, 0].sigmoid().view(side, side).numpy()
    image = diverging_colors(probs - 0.5, 0.5)
    positions = ((points / PLANE_LIMIT + 1) / 2 * (side - 1)).round().long().tolist()
    for (accuracy, up), is_inner in zip(positions, inner.tolist(), strict=True):
        row, column = side - 1 - up, accuracy
        image[row : row + _DOT, column : column + _DOT] = _INNER if is_inner else _OUTER
    return image


@torch.no_grad()
def probability_profile(
    model: nn.Module, count: int = 81
) -> tuple[list[float], list[float]]:
    """Return the probability along a line through the middle, from left to right.

    Example:
        >>> positions, probs = probability_profile(nn.Linear(2, 1), 3)
        >>> len(positions), all(0 <= p <= 1 for p in probs)
        (3, True)
    """
    steps = torch.linspace(-PLANE_LIMIT, PLANE_LIMIT, count)
    line = torch.stack([steps, torch.zeros(count)], 1)
    probs: list[float] = model(line)[:, 0].sigmoid().tolist()
    return steps.tolist(), probs


_STEPS = 200


def collapse_linear(layers: Sequence[nn.Module]) -> nn.Linear:
    """Return the one dense layer that a chain of them is.

    Raises:
        GeometryError: There are none, or one of them is no dense layer.

    Example:
        >>> chain = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        >>> collapsed, x = collapse_linear(chain), torch.rand(7, 3)
        >>> torch.allclose(collapsed(x), nn.Sequential(*chain)(x), atol=1e-6)
        True
    """
    if not layers:
        raise GeometryError("no layers to collapse", where="layers")
    weight = bias = None
    for number, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            what = f"layer {number} is a {type(layer).__name__}, not a dense layer"
            raise GeometryError(what, fix="only dense layers in a row are one")
        layer_weight, layer_bias = layer.weight.detach().double(), layer.bias
        if weight is None or bias is None:
            weight, bias = layer_weight, layer_weight.new_zeros(len(layer_weight))
        else:
            weight, bias = layer_weight @ weight, layer_weight @ bias
        if layer_bias is not None:
            bias = bias + layer_bias.detach().double()
    assert weight is not None and bias is not None  # noqa: S101, PT018 - not empty
    with torch.random.fork_rng(devices=[]):  # draws first weights, for nothing
        collapsed = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        collapsed.weight.copy_(weight)
        collapsed.bias.copy_(bias)
    return collapsed


def polynomial_features(points: Tensor, degree: int) -> Tensor:
    """Return every product of coordinates up to a degree, but the constant.

    Shapes:
        (N, 2) → (N, (d + 1)(d + 2)/2 − 1)

    Example:
        >>> polynomial_features(torch.tensor([[2.0, 3.0]]), 2).tolist()
        [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    first, second = points[:, 0], points[:, 1]
    columns = [
        first ** (total - power) * second**power
        for total in range(1, degree + 1)
        for power in range(total + 1)
    ]
    return torch.stack(columns, 1)


def ring_points(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points of a disc, and whether each lies within the inner ring.

    Half of them do; no straight line can tell the two apart.

    Example:
        >>> points, inner = ring_points(100)
        >>> tuple(points.shape), int(inner.sum())
        ((100, 2), 50)
    """
    generator = torch.Generator().manual_seed(seed)
    inner = torch.arange(count) % 2 == 0
    radius = torch.where(
        inner,
        torch.rand(count, generator=generator),
        1.3 + torch.rand(count, generator=generator),
    )
    angle = torch.rand(count, generator=generator) * 2 * torch.pi
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1), inner


def fit_boundary(model: nn.Module, points: Tensor, inner: Tensor) -> float:
    """Fit a network with a logistic output to two kinds of points; return accuracy.

    Args:
        model: (N, features) → (N, 1); trained in place, full batch, L-BFGS.
        points: What it takes.
        inner: Which are of the first kind.
    """
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe"
    )
    targets = inner.to(points)

    def closure() -> Tensor:
        optimizer.zero_grad()
        fitted = F.binary_cross_entropy_with_logits(model(points)[:, 0], targets)
        fitted.backward()  # type: ignore[no-untyped-call]
        return fitted

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        predicted = model(points)[:, 0] > 0
    return float((predicted == inner).double().mean())
