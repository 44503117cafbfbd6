"""Why networks need nonlinear activations: four networks fitted to two rings.

All networks have one logistic output; the decision boundary is at probability 0.5. One
linear layer has a straight boundary. Three linear layers also have a straight boundary,
as they are equal to one layer: W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂). One linear
layer on squared coordinates, or two layers with a ReLU, have a closed boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import skip_init

from striate.core.errors import GeometryError
from striate.interpret.render import diverging_colors

PLANE_LIMIT = 2.6  # half the side of the drawn plane; the outer ring ends at 2.3
SIDE = 180  # pixels
_STEPS = 200  # of L-BFGS
_DOT = 2  # width of a drawn point in pixels
_INNER, _OUTER = (120, 20, 18), (14, 40, 84)


class PolynomialFeatures(nn.Module):
    """Module that computes all monomials of two coordinates, except the constant.

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
        """Return the polynomial features of each point."""
        first, second = points[:, 0], points[:, 1]
        columns = [
            first ** (total - power) * second**power
            for total in range(1, self.degree + 1)
            for power in range(total + 1)
        ]
        return torch.stack(columns, 1)


@dataclass(frozen=True, kw_only=True)
class FittedNetwork:
    """Network fitted to points in two rings, with the accuracy on these points."""

    name: str
    model: nn.Module
    accuracy: float
    collapse_error: float | None = None

    @property
    def weights(self) -> int:
        """Return the number of parameters."""
        return sum(p.numel() for p in self.model.parameters())


def fit_networks(count: int = 400, seed: int = 0) -> list[FittedNetwork]:
    """Fit four networks to points in two rings, with the same optimizer.

    Example:
        >>> line, deep, squares, bent = fit_networks(200)
        >>> max(line.accuracy, deep.accuracy) < 0.7 < squares.accuracy
        True
    """
    points, inner = ring_points(count, seed)
    return [
        FittedNetwork(
            name=name,
            model=model,
            accuracy=fit_boundary(model, points, inner),
            collapse_error=_collapse_error(model, points),
        )
        for name, model in _models(seed).items()
    ]


def _models(seed: int) -> dict[str, nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        deep = nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        layers: dict[str, tuple[nn.Module, ...]] = {
            "one linear layer": (nn.Linear(2, 1),),
            "three linear layers": deep,
            "one linear layer on squares": (PolynomialFeatures(), nn.Linear(5, 1)),
            "two linear layers with ReLU": (
                nn.Linear(2, 8),
                nn.ReLU(),
                nn.Linear(8, 1),
            ),
        }
        return {name: nn.Sequential(*chain) for name, chain in layers.items()}


@torch.no_grad()
def _collapse_error(model: nn.Module, points: Tensor) -> float | None:
    layers = list(model.children())
    if len(layers) < 2 or not all(isinstance(layer, nn.Linear) for layer in layers):
        return None
    return float((collapse_linear(layers)(points) - model(points)).abs().max())


@torch.no_grad()
def draw_boundary(
    model: nn.Module, points: Tensor, inner: Tensor, side: int = SIDE
) -> np.ndarray:
    """Draw the predicted probability over the plane, together with the points.

    Red: predicted as inner ring. Blue: predicted as outer ring. Pale: the boundary.

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
    for (column, up), is_inner in zip(positions, inner.tolist(), strict=True):
        row = side - 1 - up
        image[row : row + _DOT, column : column + _DOT] = _INNER if is_inner else _OUTER
    return image


@torch.no_grad()
def probability_profile(
    model: nn.Module, count: int = 81
) -> tuple[list[float], list[float]]:
    """Return positions and probabilities along the horizontal line at the center.

    Example:
        >>> positions, probs = probability_profile(nn.Linear(2, 1), 3)
        >>> len(positions), all(0 <= p <= 1 for p in probs)
        (3, True)
    """
    steps = torch.linspace(-PLANE_LIMIT, PLANE_LIMIT, count)
    line = torch.stack([steps, torch.zeros(count)], 1)
    probs: list[float] = model(line)[:, 0].sigmoid().tolist()
    return steps.tolist(), probs


def collapse_linear(layers: Sequence[nn.Module]) -> nn.Linear:
    """Return the single linear layer that is equal to a chain of linear layers.

    Raises:
        GeometryError: There are no layers, or one is not linear.

    Example:
        >>> chain = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        >>> collapsed, x = collapse_linear(chain), torch.rand(7, 3)
        >>> torch.allclose(collapsed(x), nn.Sequential(*chain)(x), atol=1e-6)
        True
    """
    for number, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            what = f"layer {number} is a {type(layer).__name__}, not a Linear layer"
            fix = "only consecutive Linear layers can be collapsed"
            raise GeometryError(what, fix=fix)
    chain = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not chain:
        raise GeometryError("no layers to collapse", where="layers")
    weight = torch.eye(chain[0].in_features).to(chain[0].weight.device, torch.float64)
    bias = weight.new_zeros(len(weight))
    for layer in chain:
        factor = layer.weight.detach().double()
        weight, bias = factor @ weight, factor @ bias
        if layer.bias is not None:
            bias = bias + layer.bias.detach().double()
    out_features, in_features = weight.shape
    collapsed: nn.Linear = skip_init(nn.Linear, in_features, out_features)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        collapsed.weight.copy_(weight)
        collapsed.bias.copy_(bias)
    return collapsed


def ring_points(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points of two rings, and a mask of the inner ring (half of the points).

    No straight line separates the two rings.

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
    """Fit a network with a logistic output to two classes; return the accuracy."""
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
