"""Linear layers are one linear layer; what a bend between them, or a square, changes.

A dense layer of a dense layer is W₂(W₁x + b₁) + b₂ = (W₂W₁)x + (W₂b₁ + b₂): depth
without a bend adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError

_STEPS = 200


def collapsed(layers: Sequence[nn.Module]) -> nn.Linear:
    """Return the one dense layer that a chain of them is.

    Raises:
        GeometryError: There are none, or one of them is no dense layer.

    Example:
        >>> chain = nn.Linear(3, 5), nn.Linear(5, 4), nn.Linear(4, 2)
        >>> one, x = collapsed(chain), torch.rand(7, 3)
        >>> torch.allclose(one(x), nn.Sequential(*chain)(x), atol=1e-6)
        True
    """
    if not layers:
        raise GeometryError("no layers to collapse", where="layers")
    weight = bias = None
    for number, layer in enumerate(layers):
        if not isinstance(layer, nn.Linear):
            what = f"layer {number} is a {type(layer).__name__}, not a dense layer"
            raise GeometryError(what, fix="only dense layers in a row are one")
        own, shift = layer.weight.detach().double(), layer.bias
        if weight is None or bias is None:
            weight, bias = own, own.new_zeros(len(own))
        else:
            weight, bias = own @ weight, own @ bias
        if shift is not None:
            bias = bias + shift.detach().double()
    assert weight is not None and bias is not None  # noqa: S101, PT018 - not empty
    with torch.random.fork_rng(devices=[]):  # draws first weights, for nothing
        one = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        one.weight.copy_(weight)
        one.bias.copy_(bias)
    return one


def polynomial(points: Tensor, degree: int) -> Tensor:
    """Return every product of coordinates up to a degree, but the constant.

    Shapes:
        (N, 2) → (N, (d + 1)(d + 2)/2 − 1)

    Example:
        >>> polynomial(torch.tensor([[2.0, 3.0]]), 2).tolist()
        [[2.0, 3.0, 4.0, 6.0, 9.0]]
    """
    first, second = points[:, 0], points[:, 1]
    columns = [
        first ** (total - power) * second**power
        for total in range(1, degree + 1)
        for power in range(total + 1)
    ]
    return torch.stack(columns, 1)


def rings(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return points of a disc, and whether each lies within the inner ring.

    Half of them do; no straight line can tell the two apart.

    Example:
        >>> points, inner = rings(100)
        >>> tuple(points.shape), int(inner.sum())
        ((100, 2), 50)
    """
    chance = torch.Generator().manual_seed(seed)
    inner = torch.arange(count) % 2 == 0
    radius = torch.where(
        inner,
        torch.rand(count, generator=chance),
        1.3 + torch.rand(count, generator=chance),
    )
    angle = torch.rand(count, generator=chance) * 2 * torch.pi
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1), inner


def boundary(model: nn.Module, points: Tensor, inner: Tensor) -> float:
    """Fit a network with a logistic output to two kinds of points; return accuracy.

    Args:
        model: (N, features) → (N, 1); trained in place, full batch, L-BFGS.
        points: What it takes.
        inner: Which are of the first kind.
    """
    search = torch.optim.LBFGS(
        model.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe"
    )
    wanted = inner.to(points)

    def cost() -> Tensor:
        search.zero_grad()
        found = F.binary_cross_entropy_with_logits(model(points)[:, 0], wanted)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(cost)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        answers = model(points)[:, 0] > 0
    return float((answers == inner).double().mean())
