"""Pools exchanged on one base: sizes kept, the original as it was, the head refit."""

import pytest
import torch
from torch import nn

from striate.core.errors import GeometryError
from striate.models.head import last_dense
from striate.run.create_model import create_model
from striate.workflows.explain.pooling_swap import POOLS, refit_head, replace_pools


def network(pool):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.LazyLinear(3)
    )


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_every_kind_keeps_the_size(kind, side, pool):
    model = network(pool)
    x = torch.randn(2, 1, side, side)
    before = model(x)
    other, count = replace_pools(model, kind)
    assert count == 1
    assert other(x).shape == before.shape
    assert torch.equal(model(x), before)
    own = "max" if isinstance(pool, nn.MaxPool2d) else "average"
    if kind == own:
        assert torch.allclose(other(x), before, atol=1e-6)


def test_refit_head():
    model = network(nn.MaxPool2d(2))
    x = torch.randn(90, 1, 8, 8)
    y = torch.arange(90) % 3
    x[y == 1, :, :3] += 3
    x[y == 2, :, 5:] += 3
    model(x)
    name = last_dense(model)
    filters = model[0].weight.clone()
    refit_head(model, [(x, y)], name)
    assert (model(x).argmax(1) == y).float().mean() == 1
    assert torch.equal(model[0].weight, filters)
    assert last_dense(nn.Flatten()) is None


@pytest.mark.parametrize(
    ("name", "head"), [("googlenet", "fc"), ("lenet5", None), ("vgg11", "classifier.6")]
)
def test_auxiliary_heads_and_distances_are_no_dense_head(name, head):
    with torch.device("meta"):
        model = create_model(name)
    assert last_dense(model) == head


def test_refit_needs_the_last_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.AdaptiveAvgPool1d(2))
    with pytest.raises(GeometryError, match="other operations follow"):
        refit_head(model, [(torch.randn(5, 1, 2, 2), torch.zeros(5).long())], "1")
