"""Stochastic depth (Huang, Sun, Liu, Sedra & Weinberger 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.layers.inverted import InvertedResidual
from striate.layers.residual import Residual

NAME = "drop_path"


class DropPath(nn.Module):
    """Leave a picture's whole branch out with a probability, while training.

    What is kept is divided by 1 − rate, so that its mean stays and evaluation needs
    no factor.

    Args:
        rate: The probability, in [0, 1).

    Shapes:
        (N, …) → (N, …)

    Example:
        >>> branch = DropPath(0.5)
        >>> out = branch(torch.ones(1000, 2))
        >>> sorted(set(out.flatten().tolist())), bool((out[:, 0] == out[:, 1]).all())
        ([0.0, 2.0], True)
        >>> branch.eval()(torch.ones(1, 2)).tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Draw once a picture."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape[:1], device=x.device) >= self.rate
        factors = kept.to(x.dtype) / (1 - self.rate)
        return x * factors.view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """Describe the layer in a printed model."""
        return f"rate={self.rate:g}"


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Let the residual branches of a network drop out, later ones more often.

    Block l of L gets l/L times the rate (section 3). It has no weights and changes
    no name: a branch gets one more layer at its end, once.

    Args:
        model: A network of `Residual` or `InvertedResidual` blocks, or with others.
        rate: Of the last block.

    Raises:
        SettingError: No block has a branch that could be left out.

    Example:
        >>> from striate.layers.residual import basic_body
        >>> block = lambda: Residual(basic_body(4, 4, 1), nn.Identity())
        >>> model = nn.Sequential(block(), block())
        >>> set_drop_path(model, 0.2)
        >>> [block.body.drop_path.rate for block in model]
        [0.1, 0.2]
    """
    bodies = [body for m in model.modules() if (body := _branch(m)) is not None]
    if not bodies:
        what = "drop_path leaves residual branches out, and the network has none"
        fix = "use a residual network such as cifar_resnet20, or --dropout"
        raise SettingError(what, where="--drop-path", fix=fix)
    for i, body in enumerate(bodies, start=1):
        body.add_module(NAME, DropPath(rate * i / len(bodies)))


def _branch(module: nn.Module) -> nn.Sequential | None:
    adds = isinstance(module, Residual) or (
        isinstance(module, InvertedResidual) and module.adds
    )
    body = module.body if adds else None
    return body if isinstance(body, nn.Sequential) else None
