"""Replacement of the pooling layers of a trained network, with a refitted head.

The trained convolutions are kept. The last layer is refitted in the same way for each
kind of pooling, the original one included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.core.hooks import evaluation_mode
from striate.core.layer_names import layer_name
from striate.engine.optim import lbfgs
from striate.layers.blur import BlurPool

Batch = tuple[Tensor, Tensor]
Pool = Callable[[Tensor, int], Tensor]
_DECAY = 1e-4  # weight decay of the refit: separable features have no optimum
_STEPS = 60


def _blurred(x: Tensor, step: int) -> Tensor:
    dense = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 2, 1)
    pooled: Tensor = BlurPool(x.shape[1], 3, step).to(x)(dense)
    return pooled


POOLS: dict[str, Pool] = {
    "max": lambda x, step: F.max_pool2d(x, step, step, ceil_mode=True),
    "average": lambda x, step: F.avg_pool2d(
        x, step, step, ceil_mode=True, count_include_pad=False
    ),
    "strided": lambda x, step: x[:, :, ::step, ::step],
    "overlapping": lambda x, step: F.max_pool2d(x, step + 1, step, step // 2),
    "blur": _blurred,
}


class ReplacedPool(nn.Module):
    """Pooling layer with the output size of the pooling layer that it replaces.

    Example:
        >>> pool = ReplacedPool("average", nn.MaxPool2d(2))
        >>> pool(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item()
        3.0
    """

    def __init__(self, kind: str, original: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.kind = kind
        self.original = original
        self.step = _step(original)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the pooling, and crop to the output size of the original layer."""
        height, width = self.original(x).shape[2:]
        pooled = POOLS[self.kind](x, self.step)[:, :, :height, :width]
        if pooled.shape[2:] != (height, width):
            what = f"{self.kind} pooling returns size {tuple(pooled.shape[2:])}, but "
            raise GeometryError(f"{what}the network requires size {(height, width)}")
        return pooled


def _step(pool: nn.MaxPool2d | nn.AvgPool2d) -> int:
    stride = pool.stride
    return int(stride if isinstance(stride, int) else stride[0])


def replace_pools(model: nn.Module, kind: str) -> tuple[nn.Module, int]:
    """Return a network copy with replaced strided pooling layers, and their number.

    Example:
        >>> model = nn.Sequential(nn.MaxPool2d(2), nn.Flatten())
        >>> other, count = replace_pools(model, "strided")
        >>> other(torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])).item(), count
        (1.0, 1)
    """
    copy = deepcopy(model).eval()
    count = 0
    for parent in list(copy.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and _step(child) > 1:
                setattr(parent, name, ReplacedPool(kind, child))
                count += 1
    return copy, count


def refit_head(model: nn.Module, batches: Iterable[Batch], name: str) -> None:
    """Refit the last linear layer of a network by logistic regression.

    One batch, and one feature row per image, are in memory.

    `name` is the name of the last linear layer (`last_dense`), which returns the
    logits; only this layer is changed.
    """
    path, _, key = name.rpartition(".")
    parent = model.get_submodule(path)
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - by `last_dense`
    setattr(parent, key, nn.Identity())
    with evaluation_mode(model), torch.no_grad():
        pairs = [(model(x).flatten(1), y) for x, y in batches]
    setattr(parent, key, layer)
    rows, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    if rows.shape[1] != layer.in_features:
        what = f"other operations follow the last linear layer, {layer_name(name)}"
        fix = "other pooling cannot be compared for this network"
        raise GeometryError(what, fix=fix)
    _fit(layer, rows, labels)


def _fit(layer: nn.Linear, rows: Tensor, labels: Tensor) -> None:
    mean, size = rows.mean(0), rows.std(0).clamp(min=1e-6)
    scaled = (rows - mean) / size
    weight = torch.zeros_like(layer.weight).requires_grad_()
    bias = torch.zeros(layer.out_features).requires_grad_()
    optimizer = lbfgs([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        scores = scaled @ weight.T + bias
        loss = F.cross_entropy(scores, labels) + _DECAY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[arg-type]
    with torch.no_grad():
        layer.weight.copy_(weight / size)
        layer.bias = nn.Parameter(bias - (weight / size) @ mean)
