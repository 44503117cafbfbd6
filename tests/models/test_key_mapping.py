"""Names in weight files: torchvision's are the networks' own."""

import pytest
import torch
from torch import nn

from striate.models.catalogue import list_models
from striate.models.key_mapping import (
    classifier_pattern,
    has_stride_in_1x1,
    without_prefixes,
)
from striate.run.create_model import create_model

# torchvision's names, a few of each kind; the whole lists are compared in test_twins.
TORCHVISION = {
    "alexnet_one_tower": {
        "features.0.weight",
        "features.10.bias",
        "classifier.1.weight",
        "classifier.6.bias",
    },
    "vgg11_bn": {
        "features.0.weight",
        "features.1.running_mean",
        "features.25.weight",
        "classifier.0.weight",
        "classifier.3.bias",
        "classifier.6.weight",
    },
    "googlenet_bn": {
        "conv1.conv.weight",
        "conv2.bn.weight",
        "conv3.conv.weight",
        "inception4e.branch1.bn.bias",
        "inception3a.branch2.0.conv.weight",
        "inception5b.branch3.1.conv.weight",
        "inception5b.branch4.1.conv.weight",
        "aux1.fc1.weight",
        "aux2.conv.bn.weight",
        "fc.bias",
    },
    "resnet50_v1_5": {
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv3.weight",
        "layer4.2.bn2.bias",
        "layer2.0.downsample.0.weight",
        "layer2.0.downsample.1.running_mean",
        "fc.weight",
    },
    "mobilenet_v2": {
        "features.0.1.weight",
        "features.1.conv.0.0.weight",
        "features.1.conv.2.bias",
        "features.17.conv.0.0.weight",
        "features.10.conv.1.1.weight",
        "features.2.conv.3.running_mean",
        "features.18.0.weight",
        "classifier.1.bias",
    },
}
# Layers of the networks that have no twin, named by the same scheme.
OTHERS = {
    "alexnet": {"features.0", "features.4", "features.14", "classifier.6"},
    "googlenet": {"conv3", "maxpool1", "lrn1", "inception5b.branch4.1", "aux1.fc2"},
    "resnet50": {"bn1", "relu", "maxpool", "layer4.2.conv3", "avgpool", "fc"},
    "plain18": {"layer1.0.conv1", "layer4.1.bn2", "fc"},
    "antialiased_resnet18": {"blur", "layer2.0.blur", "layer2.0.downsample.1"},
    "cifar_resnet20": {"conv1", "bn1", "layer3.2.bn2", "layer2.0.downsample", "fc"},
    "lenet5": {"c1", "s2", "c3", "s4", "c5", "f6", "output"},
    "lenet5_modern": {"conv1", "conv2", "fc1", "fc2", "fc3"},
    "tutorial_gray": {"conv1", "pool2", "fc"},
    "tutorial_color": {"conv3", "dropout4", "fc1", "fc2"},
    "fast_small": {"whiten.conv", "block1.conv", "block2.bn", "fc"},
}


def on_meta(name):
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize("name", TORCHVISION)
def test_public_networks_have_torchvisions_names(name):
    assert TORCHVISION[name] <= on_meta(name).state_dict().keys()


@pytest.mark.parametrize("name", OTHERS)
def test_networks_without_twins_have_names_of_the_same_scheme(name):
    assert OTHERS[name] <= dict(on_meta(name).named_modules()).keys()


def test_the_stride_of_public_resnets_is_looked_at():
    with_it = {name for name in list_models() if has_stride_in_1x1(on_meta(name))}
    assert with_it == {"resnet50", "resnet101", "resnet152"}


def test_prefixes_are_removed_if_every_name_has_them():
    assert without_prefixes({"module.a": 1, "module.b": 2}) == {"a": 1, "b": 2}
    assert without_prefixes({"module.a": 1, "b": 2}) == {"module.a": 1, "b": 2}
    assert without_prefixes({}) == {}


def test_the_classifier_is_known_by_name():
    assert classifier_pattern(on_meta("vgg11")) == r"classifier\.6\."
    assert classifier_pattern(on_meta("lenet5")) == r"output\."
    heads = r"fc\.|aux1\.fc2\.|aux2\.fc2\."
    assert classifier_pattern(on_meta("googlenet")) == heads
    assert classifier_pattern(nn.Sequential(nn.ReLU())) == r"(?!)"
