"""Cut points: backbone and head together equal the network, or it is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.core.errors import SettingError, UnknownNameError
from striate.finetune.split_model import cut_at, probe_batch
from striate.run.create_model import create_model

NETWORKS = {
    "cifar_resnet20": (32, "flatten", "layer2.1"),
    "fast_small": (12, "flatten", "block1.conv"),
    "mobilenet_v2": (64, "flatten", "features.13"),
    "googlenet_bn_no_aux": (64, "flatten", "inception4e"),
    "lenet5": (32, None, "stretch1"),
}


def split_and_run(model, x, name):
    cut = cut_at(model, x, name)
    with torch.no_grad():
        return cut, cut.head.eval()(cut.features(model.eval(), x))


@pytest.mark.parametrize("name", NETWORKS)
def test_backbone_and_head_equal_the_network(name):
    side, by_default, inner = NETWORKS[name]
    model = create_model(name, num_classes=3, image_size=side, seed=0).eval()
    channels = 1 if name in ("fast_small", "lenet5") else 3
    x = probe_batch((channels, side, side))
    with torch.no_grad():
        expected = model(x)
    cut, output = split_and_run(model, x, None)
    assert by_default is None or cut.name == by_default
    assert torch.equal(output, expected)
    if name != "lenet5":
        cut, output = split_and_run(model, x, inner)
        assert torch.equal(output, expected)
    backbone = tuple(f"{name}." for name in cut.backbone)
    frozen = {n for n, _ in model.named_parameters() if n.startswith(backbone)}
    behind = {id(p) for p in cut.head.parameters()}
    for key, parameter in model.named_parameters():
        assert (key in frozen) != (id(parameter) in behind)


class Loose(nn.Module):
    """Layers with functional calls between them."""

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


def test_functional_calls_between_layers_are_found():
    model, x = Loose(), probe_batch((1, 8, 8))
    cut, output = split_and_run(model, x, None)
    assert cut.name == "before fc"
    assert torch.equal(output, model.eval()(x))
    with pytest.raises(
        SettingError, match="cannot split behind conv: the layers after that point"
    ):
        cut_at(model, x, "conv")


class Named(Loose):
    """A network that passes its input to the head by keyword."""

    def forward(self, x):
        x = F.relu(self.second(self.conv(x)))
        return self.fc(input=torch.flatten(self.pool(x), 1))


def test_a_layer_called_with_a_keyword_argument():
    model, x = Named(), probe_batch((1, 8, 8))
    cut, output = split_and_run(model, x, None)
    assert cut.name == "before fc"
    assert torch.equal(output, model.eval()(x))


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(UnknownNameError, match="no layer is called 'pol'") as caught:
        cut_at(Loose(), probe_batch((1, 8, 8)), "pol")
    assert "did you mean pool" in caught.value.fix


def test_layers_behind_the_cut_point_do_not_run():
    ran = []
    layers = nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3)
    model, x = nn.Sequential(*layers), probe_batch((1, 8, 8))
    cut = cut_at(model, x)
    model[2].register_forward_hook(lambda *_: ran.append("head"))
    cut.features(model, x)
    assert ran == []
    assert not model[0]._forward_hooks
