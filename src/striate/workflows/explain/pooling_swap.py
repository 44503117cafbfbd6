"""Other pools on one trained base: what each forgives, at which accuracy.

The convolutions stay as they were trained; every pool is exchanged, and the last dense
layer is fitted again to what then arrives, for each kind alike, the trained one too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import untouched
from striate.engine.optim import lbfgs
from striate.layers.blur import BlurPool

Batch = tuple[Tensor, Tensor]
Pool = Callable[[Tensor, int], Tensor]
_DECAY = 1e-4  # of the fitted layer: separable features have no best weights
_STEPS = 60


def _blurred(x: Tensor, step: int) -> Tensor:
    channels = x.shape[1]
    dense = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)
    blur = BlurPool(channels, 3, step).to(x)
    found: Tensor = blur(dense)
    return found


POOLS: dict[str, Pool] = {
    "max": lambda x, step: F.max_pool2d(x, step, step, ceil_mode=True),
    "average": lambda x, step: F.avg_pool2d(
        x, step, step, ceil_mode=True, count_include_pad=False
    ),
    "strided": lambda x, step: x[:, :, ::step, ::step],
    "overlapping": lambda x, step: F.max_pool2d(x, step + 1, step, step // 2),
    "blur": _blurred,
}


class OtherPool(nn.Module):
    """A pool of another kind, with the output size of the one it stands for.

    Example:
        >>> pool = OtherPool("average", nn.MaxPool2d(2))
        >>> pool(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
        3.0
    """

    def __init__(self, kind: str, like: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.kind = kind
        self.like = like
        self.step = _step(like)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, and cut to the size that the network counts on."""
        height, width = self.like(x).shape[2:]
        found = POOLS[self.kind](x, self.step)[:, :, :height, :width]
        if found.shape[2:] != (height, width):
            what = f"a {self.kind} pool gives {tuple(found.shape[2:])} here, "
            raise GeometryError(f"{what}the network needs {(height, width)}")
        return found


def _step(pool: nn.MaxPool2d | nn.AvgPool2d) -> int:
    stride = pool.stride
    return int(stride if isinstance(stride, int) else stride[0])


def with_pool(model: nn.Module, kind: str) -> tuple[nn.Module, int]:
    """Return a copy of a network with other striding pools, and how many there are.

    Args:
        model: Any network; its pools have to be modules.
        kind: A name of `POOLS`.

    Example:
        >>> model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
        >>> other, count = with_pool(model, "strided")
        >>> other(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item(), count
        (1.0, 1)
    """
    copy = deepcopy(model).eval()
    count = 0
    for parent in list(copy.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _step(child) > 1:
                setattr(parent, name, OtherPool(kind, child))
                count += 1
    return copy, count


def refit(model: nn.Module, batches: Iterable[Batch], name: str) -> None:
    """Fit one dense layer, the last, to what arrives at it: logistic regression.

    Memory holds a batch, and a row of features an image.

    Args:
        model: Changed in this layer alone.
        batches: (input, label) batches of the training split.
        name: The layer, `last_dense`; what it gives must be the scores.
    """
    parent = model.get_submodule(name.rpartition(".")[0])
    key = name.rpartition(".")[2]
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - by `last_dense`
    setattr(parent, key, nn.Identity())
    with untouched(model), torch.no_grad():
        pairs = [(model(x).flatten(1), y) for x, y in batches]
    setattr(parent, key, layer)
    rows, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    if rows.shape[1] != layer.in_features:
        what = f"what {name} gives is changed before it is the score"
        raise GeometryError(what, fix="its pools cannot be compared")
    _fit(layer, rows, labels)


def _fit(layer: nn.Linear, rows: Tensor, labels: Tensor) -> None:
    mean, size = rows.mean(0), rows.std(0).clamp(min=1e-6)
    scaled = (rows - mean) / size
    weight = torch.zeros_like(layer.weight).requires_grad_()
    bias = torch.zeros(layer.out_features).requires_grad_()
    search = lbfgs([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def cost() -> Tensor:
        search.zero_grad()
        scores = scaled @ weight.T + bias
        found = F.cross_entropy(scores, labels) + _DECAY * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    with torch.enable_grad():
        search.step(cost)  # type: ignore[arg-type]
    with torch.no_grad():
        own = layer.bias is not None
        layer.weight.copy_(weight / size)
        shift = bias - (weight / size) @ mean
        if own:
            layer.bias.copy_(shift)
        else:
            layer.bias = nn.Parameter(shift)
