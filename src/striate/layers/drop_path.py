"""Stochastic depth, also called drop path (Huang et al. 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.layers.inverted_residual import InvertedResidual
from striate.layers.residual import Residual

NAME = "drop_path"


class DropPath(nn.Module):
    """Drop the whole residual branch of random images during training.

    Branches that are not dropped are divided by 1 − rate. So the mean is unchanged, and
    evaluation needs no factor.

    Args:
        rate: The drop probability, in [0, 1).

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
        """In training mode, set the branch output of random images to zero."""
        if not self.training or self.rate == 0:
            return x
        stays = torch.rand(x.shape[:1], device=x.device) >= self.rate
        factors = stays.to(x.dtype) / (1 - self.rate)
        return x * factors.view(-1, *[1] * (x.ndim - 1))

    def extra_repr(self) -> str:
        """Return the settings as text, for a printed model."""
        return f"rate={self.rate:g}"


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Add stochastic depth to a network; the drop probability grows with depth.

    Block l of L gets l/L times the rate (section 3). One layer without weights is added
    at the end of each branch, so names stay valid; a second call replaces these layers.

    Args:
        model: A network with `Residual` or `InvertedResidual` blocks.
        rate: Drop probability of the last block.

    Raises:
        SettingError: No block has a branch that could be dropped.

    Example:
        >>> from striate.layers.residual import basic_branch
        >>> block = lambda: Residual(basic_branch(4, 4, 1), nn.Identity())
        >>> model = nn.Sequential(block(), block())
        >>> set_drop_path(model, 0.2)
        >>> [block.drop_path.rate for block in model]
        [0.1, 0.2]
    """
    branches = [b for m in model.modules() if (b := _branch(m)) is not None]
    if not branches:
        what = "drop_path drops residual branches, but the network has none"
        fix = "use a residual network such as cifar_resnet20, or --dropout"
        raise SettingError(what, where="--drop-path", fix=fix)
    for i, branch in enumerate(branches, start=1):
        branch.add_module(NAME, DropPath(rate * i / len(branches)))


def _branch(module: nn.Module) -> nn.Module | None:
    """Return the module that gets a residual block's drop-path layer, or None."""
    if isinstance(module, InvertedResidual):
        return module.conv if module.use_shortcut else None
    return module if isinstance(module, Residual) else None
