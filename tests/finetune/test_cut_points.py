"""Cut points: all of them, and their features from a single pass."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.finetune.cut_points import (
    MAX_CUT_POINTS,
    find_cut_points,
    find_stages,
)
from striate.finetune.split_model import cut_at, probe_batch
from striate.run.create_model import create_model

CUT_POINTS = {
    "mobilenet_v2": (64, 3, [*(f"features.{i}" for i in range(18)), "flatten"]),
    "cifar_resnet20": (
        *(32, 3),
        ["relu", *(f"layer{s}.{i}" for s in (1, 2, 3) for i in range(3))],
    ),
    "fast_small": (12, 1, ["whiten", "block1", "flatten"]),
}


@pytest.mark.parametrize("name", CUT_POINTS)
def test_one_pass_gives_the_features_at_every_cut_point(name):
    side, channels, expected = CUT_POINTS[name]
    model = create_model(name, num_classes=3, image_size=side, seed=0).eval()
    x = probe_batch((channels, side, side))
    points = find_cut_points(model, x)
    names = [cut.name for cut in points.cuts]
    if name == "cifar_resnet20":
        expected = [*expected[:-1], "flatten"]
    assert names == expected
    assert points.last_is_vector
    with torch.no_grad():
        rows = points.features(model, x)
        assert rows.shape == (2, sum(points.widths))
        for index, cut in enumerate(names):
            alone = cut_at(model, x, cut).features(model, x)
            averaged = alone.mean((2, 3)) if alone.ndim == 4 else alone
            assert torch.allclose(rows[:, points.columns(index)], averaged, atol=1e-6)
    assert points.columns(-1) == points.columns(len(names) - 1)


class Functional(nn.Module):
    """A network with functional calls between its layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(F.relu(self.conv(x))), 1))


def test_functional_calls_leave_a_single_cut_point():
    model, x = Functional(), probe_batch((1, 8, 8))
    assert [cut.name for cut in find_cut_points(model, x).cuts] == ["before fc"]
    assert [stage.layers for stage in find_stages(model, x)] == [("conv",), ("fc",)]


def test_deep_networks_have_a_limited_number_of_cut_points():
    layers = {f"conv{i}": nn.Conv2d(1, 1, 1) for i in range(40)}
    head = {"flatten": nn.Flatten(), "head": nn.Linear(4, 2)}
    model = nn.Sequential(OrderedDict(**layers, **head))
    names = [cut.name for cut in find_cut_points(model, probe_batch((1, 2, 2))).cuts]
    assert len(names) == MAX_CUT_POINTS
    assert (names[0], names[-1]) == ("conv0", "flatten")
    assert len(find_stages(model, probe_batch((1, 2, 2)))) == 41


def test_the_network_stays_unchanged():
    model = create_model("fast_small", num_classes=2, in_chans=1, image_size=12, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    find_cut_points(model.train(), probe_batch((1, 12, 12)))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
