"""torchvision's names, a few of each kind, and the tensors of ours they mean."""

import pytest
import torch

from striate.models.catalogue import create_model
from striate.models.key_mapping import choose

EXAMPLES = {
    "alexnet_one_tower": {
        "features.0.weight": "conv1.weight",
        "features.10.bias": "conv5.bias",
        "classifier.1.weight": "fc6.weight",
        "classifier.6.bias": "head.bias",
    },
    "vgg11_bn": {
        "features.0.weight": "conv1_1.weight",
        "features.1.running_mean": "norm1_1.running_mean",
        "features.25.weight": "conv5_2.weight",
        "classifier.0.weight": "fc6.weight",
        "classifier.3.bias": "fc7.bias",
        "classifier.6.weight": "head.weight",
    },
    "googlenet_bn": {
        "conv1.conv.weight": "features.conv1.conv.weight",
        "conv2.bn.weight": "features.conv2_reduce.norm.weight",
        "conv3.conv.weight": "features.conv2.conv.weight",
        "inception4e.branch1.bn.bias": "features.inception4e.one.norm.bias",
        "inception3a.branch2.0.conv.weight": (
            "features.inception3a.three.reduce.conv.weight"
        ),
        "inception5b.branch3.1.conv.weight": (
            "features.inception5b.five.main.conv.weight"
        ),
        "inception5b.branch4.1.conv.weight": (
            "features.inception5b.pool.project.conv.weight"
        ),
        "aux1.fc1.weight": "aux.inception4a.fc1.weight",
        "aux2.conv.bn.weight": "aux.inception4d.conv.norm.weight",
        "fc.bias": "head.bias",
    },
    "resnet50_v1_5": {
        "conv1.weight": "conv1.weight",
        "bn1.running_var": "norm1.running_var",
        "layer1.0.conv3.weight": "conv2.0.body.conv3.weight",
        "layer4.2.bn2.bias": "conv5.2.body.norm2.bias",
        "layer2.0.downsample.0.weight": "conv3.0.shortcut.conv.weight",
        "layer2.0.downsample.1.running_mean": "conv3.0.shortcut.norm.running_mean",
        "fc.weight": "head.weight",
    },
    "mobilenet_v2": {
        "features.0.1.weight": "norm1.weight",
        "features.1.conv.0.0.weight": "block1.body.depth.weight",
        "features.1.conv.2.bias": "block1.body.down_norm.bias",
        "features.17.conv.0.0.weight": "block17.body.up.weight",
        "features.10.conv.1.1.weight": "block10.body.depth_norm.weight",
        "features.2.conv.3.running_mean": "block2.body.down_norm.running_mean",
        "features.18.0.weight": "conv2.weight",
        "classifier.1.bias": "head.bias",
    },
}


def on_meta(name):
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_their_names_become_ours(name):
    model, examples = on_meta(name), EXAMPLES[name]
    naming = choose(examples, model)
    assert naming.source == "torchvision"
    assert {n: naming.rename(n, model) for n in examples} == examples
    assert set(examples.values()) <= model.state_dict().keys()
    assert naming.objection(model) == ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_our_own_names_stay(name):
    model = on_meta(name)
    naming = choose(model.state_dict(), model)
    assert naming.source == "striate"
    assert naming.rename("conv1.weight", model) == "conv1.weight"


def test_the_stride_of_public_resnets_is_looked_at():
    names, paper = EXAMPLES["resnet50_v1_5"], on_meta("resnet50")
    assert "resnet…_v1_5" in choose(names, paper).objection(paper)


@pytest.mark.parametrize("name", ["features.99.weight", "features.x", "classifier"])
def test_places_that_do_not_exist_keep_their_names(name):
    model = on_meta("vgg11")
    naming = choose(EXAMPLES["alexnet_one_tower"], model)
    assert naming.rename(name, model) == name
