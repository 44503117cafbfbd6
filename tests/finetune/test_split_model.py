"""Cuts: body and tail are the network, wherever it is a chain; nowhere else."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.core.errors import SettingError, UnknownNameError
from striate.finetune.split_model import cut_at, probe
from striate.models.catalogue import create_model

NETWORKS = {
    "cifar_resnet20": (32, "flatten", "layer2.1"),
    "fast_small": (12, "flatten", "block1.conv"),
    "mobilenet_v2": (64, "flatten", "features.13"),
    "googlenet_bn_no_aux": (64, "flatten", "inception4e"),
    "lenet5": (32, None, "stretch1"),
}


def whole(model, x, name):
    found = cut_at(model, x, name)
    with torch.no_grad():
        return found, found.tail.eval()(found.features(model.eval(), x))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_halves_are_the_network(name):
    side, by_default, inner = NETWORKS[name]
    model = create_model(name, num_classes=3, image_size=side, seed=0).eval()
    channels = 1 if name in ("fast_small", "lenet5") else 3
    x = probe((channels, side, side))
    with torch.no_grad():
        expected = model(x)
    found, answer = whole(model, x, None)
    assert by_default is None or found.name == by_default
    assert torch.equal(answer, expected)
    if name != "lenet5":
        found, answer = whole(model, x, inner)
        assert torch.equal(answer, expected)
    body = tuple(f"{name}." for name in found.body)
    kept = {n for n, _ in model.named_parameters() if n.startswith(body)}
    behind = {id(p) for p in found.tail.parameters()}
    for key, parameter in model.named_parameters():
        assert (key in kept) != (id(parameter) in behind)


class Loose(nn.Module):
    """A chain but for what happens between layers."""

    def __init__(self, flatten=True, skip=False):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.fc = nn.Linear(16, 3)
        self.skip = skip

    def forward(self, x):
        x = F.relu(self.conv(x))
        y = self.second(x)
        x = self.pool(x + y if self.skip else y)
        return self.fc(torch.flatten(x, 1))


def test_arithmetic_between_layers_is_seen():
    model, x = Loose(), probe((1, 8, 8))
    found, answer = whole(model, x, None)
    assert found.name == "before fc"
    assert torch.equal(answer, model.eval()(x))
    with pytest.raises(SettingError, match="behind conv the network is no chain"):
        cut_at(model, x, "conv")


class Named(Loose):
    """A network that calls its head by the name of the argument."""

    def forward(self, x):
        x = F.relu(self.second(self.conv(x)))
        return self.fc(input=torch.flatten(self.pool(x), 1))


def test_a_head_may_be_called_with_a_name():
    model, x = Named(), probe((1, 8, 8))
    found, answer = whole(model, x, None)
    assert found.name == "before fc"
    assert torch.equal(answer, model.eval()(x))


def test_a_name_that_is_none():
    with pytest.raises(UnknownNameError, match="no layer is called 'pol'") as caught:
        cut_at(Loose(), probe((1, 8, 8)), "pol")
    assert "did you mean pool" in caught.value.fix


def test_what_lies_behind_does_not_run():
    ran = []
    layers = nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3)
    model, x = nn.Sequential(*layers), probe((1, 8, 8))
    found = cut_at(model, x)
    model[2].register_forward_hook(lambda *_: ran.append("head"))
    found.features(model, x)
    assert ran == []
    assert not model[0]._forward_hooks
