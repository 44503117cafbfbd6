"""A wrong layer name is answered with the nearest right one."""

import pytest
import torch

from striate.core.errors import UnknownNameError
from striate.finetune.freeze import freeze
from striate.finetune.split_model import cut_at
from striate.interpret.activations_at import match_layers
from striate.interpret.layer_choice import target_layer
from striate.run.create_model import create_model

NAMED = {
    "freeze": lambda model, x, name: freeze(model, name),
    "cut": lambda model, x, name: cut_at(model, x, name),
    "explain --layer": lambda model, x, name: target_layer(model, x, name),
    "features": lambda model, x, name: match_layers(model, name),
}


@pytest.mark.parametrize("use", NAMED)
@pytest.mark.parametrize(
    ("wrong", "right"), [("layr3", "layer3"), ("layer3.2.con2", "layer3.2.conv2")]
)
def test_the_nearest_layer_is_named(use, wrong, right):
    model = create_model("cifar_resnet20", image_size=16, seed=0).eval()
    with pytest.raises(UnknownNameError) as caught:
        NAMED[use](model, torch.zeros(2, 3, 16, 16), wrong)
    assert f"did you mean {right}" in caught.value.fix


@pytest.mark.parametrize("use", NAMED)
def test_a_torchvision_name_is_right(use):
    model = create_model("cifar_resnet20", image_size=16, seed=0).eval()
    NAMED[use](model, torch.randn(2, 3, 16, 16), "layer2")
