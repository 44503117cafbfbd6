"""A deep chain of convolutions and its residual twin: equal but for the shortcuts.

| layer    | plain          | residual              |
|----------|----------------|-----------------------|
| stem     | conv(x)        | conv(x)               |
| each of n| x ← conv(a(x)) | x ← x + conv(a(x))/√n |
| head     | a, mean, dense | a, mean, dense        |

The activation stands before the convolution (He et al. 2016, "Identity mappings in
deep residual networks"): what a branch adds then has either sign. Behind it, as
sigmoid's and ReLU's outputs are, all are positive, and thirty of them drown the image
(docs/notebook/depth-and-vanishing-gradients.md). For the plain chain it is the same
composition.

No batch norm: it rescales what vanishes, and the notes' argument is about networks
before it. First weights are each activation's own, drawn alike for both twins: Glorot
and Bengio 2010 for sigmoid and tanh, He et al. 2015 for ReLU. The factor 1/√n keeps a
sum of n branches at the size of one (batch norm does so in ResNet).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from striate.core.errors import SettingError
from striate.core.registry import unknown_name_error

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
}
LARGEST = 16  # side; larger images are averaged down to it, for time's sake
_ENDS = 2  # layers that every chain has: stem and head


@dataclass(frozen=True, kw_only=True)
class Design:
    """What tells one chain from another.

    Args:
        activation: A name of `ACTIVATIONS`.
        residual: With shortcuts.
        depth: Layers with weights, stem and head among them.
        width: Channels of every convolution.

    Raises:
        UnknownNameError: There is no such activation; lists them.
        SettingError: Too few layers to be a chain.
    """

    activation: str
    residual: bool
    depth: int = 32
    width: int = 8

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise unknown_name_error("activation", self.activation, ACTIVATIONS)
        if self.depth <= _ENDS or self.width < 1:
            what = f"a chain of {self.depth} layers, {self.width} wide"
            raise SettingError(what, where="depth", fix="take 3 layers or more")

    @property
    def name(self) -> str:
        """Return what a legend calls it."""
        return f"{self.activation}, shortcuts" if self.residual else self.activation


class Link(nn.Module):
    """One layer of a chain: conv(a(x)), or x + share · conv(a(x)).

    Args:
        width: Channels that come and go.
        activation: A name of `ACTIVATIONS`.
        share: Of the branch in the sum; 0 has no shortcut.

    Shapes:
        (N, width, H, W) → (N, width, H, W)
    """

    def __init__(self, width: int, activation: str, share: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.act = ACTIVATIONS[activation]()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Compute, and add to what came where there is a shortcut."""
        out: Tensor = self.conv(self.act(x))
        return x + self.share * out if self.share else out


def chain(design: Design, in_chans: int, classes: int, seed: int = 0) -> nn.Sequential:
    """Build a chain; both twins of a seed begin with the same weights.

    Shapes:
        (N, in_chans, H, W) → (N, classes)

    Example:
        >>> plain, twin = (
        ...     chain(Design(activation="tanh", residual=r, depth=5), 1, 10)
        ...     for r in (False, True)
        ... )
        >>> pairs = zip(plain.parameters(), twin.parameters(), strict=True)
        >>> all(torch.equal(a, b) for a, b in pairs), len(plain.links)
        (True, 3)
    """
    links = design.depth - _ENDS
    share = links**-0.5 if design.residual else 0.0
    how = design.width, design.activation, share
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(in_chans, design.width, 3, padding=1),
                links=nn.Sequential(*(Link(*how) for _ in range(links))),
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
