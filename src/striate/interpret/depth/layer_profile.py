"""Activations and gradients by depth: where they vanish, where they explode.

A gradient that came through L layers is a product of L Jacobians (Glorot and Bengio
2010, section 4.2.1): smaller than one each, and the first layers do not learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log, nan

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.aux_heads import HeadOutputs, total_loss
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import check_batch, forward
from striate.interpret.attribution.target import logits_of


@dataclass(frozen=True, kw_only=True)
class Level:
    """One layer with weights, as a batch goes through it and its cost comes back.

    Args:
        name: Its call, such as `conv1` or `again #2`.
        depth: Its number, from 1 at the input.
        activation: Root mean square of what it gives out.
        gradient: Root mean square of the cost's gradient by that, an image's cost.
        update: Norm of the gradient by its weight over the weight's norm: the part
            of itself that a step of rate 1 would change; nan where it is frozen.
    """

    name: str
    depth: int
    activation: float
    gradient: float
    update: float


def depth_profile(
    model: nn.Module, x: Tensor, labels: Tensor, training: bool = False
) -> list[Level]:
    """Measure one batch's activations and gradients at every layer with weights.

    No `.grad` is written; frozen parameters do not stop what flows through them.

    Args:
        model: Any classifier; left as it was.
        x: Images as the network takes them.
        labels: Their classes.
        training: Run as in training, with the batch's own statistics in batch norm;
            dropout and running statistics come back as they were.

    Shapes:
        x: (N, C, H, W); labels: (N,)

    Raises:
        GeometryError: The network refuses the batch or gives no class scores.

    Example:
        >>> pairs = [(nn.Linear(4, 4), nn.Sigmoid()) for _ in range(8)]
        >>> deep = [layer for pair in pairs for layer in pair]
        >>> model = nn.Sequential(nn.Flatten(), *deep, nn.Linear(4, 2))
        >>> found = depth_profile(model, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
        >>> len(found), found[0].gradient < found[-1].gradient / 1000
        (9, True)
    """
    check_batch(x)
    modules = dict(model.named_modules())
    weighted = [name for name, m in modules.items() if name and _weight(m) is not None]
    kept: list[tuple[str, float]] = []
    gradients: dict[str, float] = {}

    def note(call: str, output: object) -> None:
        if not isinstance(output, Tensor) or not output.requires_grad:
            return
        kept.append((call, _size(output)))
        # On the tensor as it is now: an in-place activation behind it comes later.
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda g: gradients.__setitem__(call, _size(g) * len(x))
        )

    with (
        evaluation_mode(model),
        intercept_outputs(model, weighted, note),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        model.train(training)
        given = x.detach().clone().requires_grad_()
        cost = _cost(forward(model, given), labels)
        weights = {name: _weight(modules[name]) for name in weighted}
        free = {n: w for n, w in weights.items() if w is not None and w.requires_grad}
        found = torch.autograd.grad(cost, [given, *free.values()], allow_unused=True)
    updates = {
        name: _part(gradient, free[name])
        for name, gradient in zip(free, found[1:], strict=True)
    }
    return [
        Level(
            name=call,
            depth=depth,
            activation=size,
            gradient=gradients.get(call, 0.0),
            update=updates.get(call.partition(" #")[0], nan),
        )
        for depth, (call, size) in enumerate(kept, 1)
    ]


def _cost(output: object, labels: Tensor) -> Tensor:
    """Return the mean cost; in training some networks answer from lower heads too."""
    if not isinstance(output, HeadOutputs):
        output = logits_of(output)
    top = output.logits if isinstance(output, HeadOutputs) else output
    return total_loss(F.cross_entropy, output, labels.to(top.device))


def _weight(module: nn.Module) -> nn.Parameter | None:
    """Return a layer's weight; none of layers that only scale (batch norm)."""
    weight = module._parameters.get("weight")
    return weight if weight is not None and weight.ndim > 1 else None


def _size(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def _part(gradient: Tensor | None, weight: Tensor) -> float:
    if gradient is None:
        return nan
    return float(gradient.norm() / weight.detach().norm().clamp(min=1e-30))


def rate(levels: Sequence[Level]) -> float:
    """Return the factor by which the gradient changes with one layer less of way.

    The slope of a straight line through log gradient against depth, as a factor: 0.5
    means half with every layer further from the answer, 1 that all layers learn alike.

    Example:
        >>> levels = [
        ...     Level(name="", depth=d, activation=1.0, gradient=2.0**d, update=0.0)
        ...     for d in (1, 2, 3)
        ... ]
        >>> round(rate(levels), 9)
        0.5
    """
    points = [(one.depth, log(one.gradient)) for one in levels if one.gradient > 0]
    if len(points) < 2:
        return nan
    middle = sum(d for d, _ in points) / len(points)
    level = sum(g for _, g in points) / len(points)
    spread = sum((d - middle) ** 2 for d, _ in points)
    return exp(-sum((d - middle) * (g - level) for d, g in points) / spread)
