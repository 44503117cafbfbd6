"""Deep chain of convolutions, plain or residual (with shortcut connections).

| layer    | plain          | residual              |
|----------|----------------|-----------------------|
| stem     | conv(x)        | conv(x)               |
| each of n| x ← conv(a(x)) | x ← x + conv(a(x))/√n |
| head     | a, mean, dense | a, mean, dense        |

The activation a comes before the convolution (He et al. 2016, "Identity mappings in
deep residual networks"), so that a branch can add values of either sign. After the
convolution, outputs of sigmoid and ReLU would all be positive, and the sum of thirty
would dominate the image (docs/notebook/depth-and-vanishing-gradients.md).

There is no batch norm, as it rescales vanishing gradients. Both twins start with the
same weights, initialized for the activation: Glorot and Bengio 2010 for sigmoid and
tanh, He et al. 2015 for ReLU. The factor 1/√n keeps the sum of n branches at the size
of one (batch norm does this in ResNet).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
LARGEST = 16  # image side; larger images are averaged down to save time
_ENDS = 2  # stem and head


@dataclass(frozen=True, kw_only=True)
class ChainDesign:
    """Configuration of a deep chain of convolutions.

    Raises:
        UnknownNameError: The activation is unknown; the message lists all names.
        SettingError: There are fewer than 3 layers.
    """

    activation: str
    residual: bool
    depth: int = 32
    width: int = 8

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name_error("activation", self.activation, ACTIVATIONS)
        if self.depth <= _ENDS or self.width < 1:
            size = f"{self.depth} layers and width {self.width}"
            what = f"cannot build a chain with {size}"
            fix = "use at least 3 layers and width 1"
            raise SettingError(what, where="depth", fix=fix)

    @property
    def name(self) -> str:
        """Return the name of the chain for the legend of a chart."""
        return f"{self.activation}, shortcuts" if self.residual else self.activation


class ChainLayer(nn.Module):
    """Layer of a chain with activation a: conv(a(x)), or x + share · conv(a(x)).

    Shapes:
        (N, width, H, W) → (N, width, H, W)
    """

    def __init__(self, width: int, activation: str, share: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = ACTIVATIONS[activation]()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Return conv(a(x)), or x + share · conv(a(x)) if the layer has a shortcut."""
        out: Tensor = self.conv(self.act(x))
        return x + self.share * out if self.share else out


def build_chain(
    design: ChainDesign, in_chans: int, classes: int, seed: int = 0
) -> nn.Sequential:
    """Build a chain; plain and residual chains with the same seed have equal weights.

    Shapes:
        (N, in_chans, H, W) → (N, classes)

    Example:
        >>> plain, twin = (
        ...     build_chain(ChainDesign(activation="tanh", residual=r, depth=5), 1, 10)
        ...     for r in (False, True)
        ... )
        >>> pairs = zip(plain.parameters(), twin.parameters(), strict=True)
        >>> all(torch.equal(a, b) for a, b in pairs), len(plain.links)
        (True, 3)
    """
    links = design.depth - _ENDS
    share = links**-0.5 if design.residual else 0.0
    chain_layer = partial(ChainLayer, design.width, design.activation, share)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(in_chans, design.width, 3, padding=1),
                links=nn.Sequential(*(chain_layer() for _ in range(links))),
                act=ACTIVATIONS[design.activation](),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                head=nn.Linear(design.width, classes),
            )
        )
        _initialize(model, design.activation)
    return model


def _initialize(model: nn.Module, activation: str) -> None:
    for module in model.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        if activation == "relu":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            nn.init.xavier_normal_(module.weight)
        assert module.bias is not None  # noqa: S101 - built with one
        nn.init.zeros_(module.bias)
