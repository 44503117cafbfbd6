"""Ladders: every sensible cut, and one pass that sees what each of them sees."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.finetune.cut_points import MOST, ladder, stages
from striate.finetune.split_model import cut_at, probe
from striate.models.catalogue import create_model

RUNGS = {
    "mobilenet_v2": (64, 3, [*(f"features.{i}" for i in range(18)), "flatten"]),
    "cifar_resnet20": (
        *(32, 3),
        ["relu", *(f"layer{s}.{i}" for s in (1, 2, 3) for i in range(3))],
    ),
    "fast_small": (12, 1, ["whiten", "block1", "flatten"]),
}


@pytest.mark.parametrize("name", RUNGS)
def test_one_pass_sees_every_cut(name):
    side, channels, expected = RUNGS[name]
    model = create_model(name, num_classes=3, image_size=side, seed=0).eval()
    x = probe((channels, side, side))
    found = ladder(model, x)
    names = [cut.name for cut in found.cuts]
    if name == "cifar_resnet20":
        expected = [*expected[:-1], "flatten"]
    assert names == expected
    assert found.whole
    with torch.no_grad():
        rows = found.features(model, x)
        assert rows.shape == (2, sum(found.widths))
        for rung, cut in enumerate(names):
            alone = cut_at(model, x, cut).features(model, x)
            averaged = alone.mean((2, 3)) if alone.ndim == 4 else alone
            assert torch.allclose(rows[:, found.columns(rung)], averaged, atol=1e-6)
    assert found.columns(-1) == found.columns(len(names) - 1)


class Functional(nn.Module):
    """A stranger's network that flattens between its layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(F.relu(self.conv(x))), 1))


def test_where_there_is_no_chain_the_head_alone_is_left():
    model, x = Functional(), probe((1, 8, 8))
    assert [cut.name for cut in ladder(model, x).cuts] == ["before fc"]
    assert [stage.layers for stage in stages(model, x)] == [("conv",), ("fc",)]


def test_deep_networks_have_so_many_rungs_and_no_more():
    layers = {f"conv{i}": nn.Conv2d(1, 1, 1) for i in range(40)}
    head = {"flatten": nn.Flatten(), "head": nn.Linear(4, 2)}
    model = nn.Sequential(OrderedDict(**layers, **head))
    names = [cut.name for cut in ladder(model, probe((1, 2, 2))).cuts]
    assert len(names) == MOST
    assert (names[0], names[-1]) == ("conv0", "flatten")
    assert len(stages(model, probe((1, 2, 2)))) == 41


def test_a_network_is_left_as_it_was():
    model = create_model("fast_small", num_classes=2, in_chans=1, image_size=12, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ladder(model.train(), probe((1, 12, 12)))
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
