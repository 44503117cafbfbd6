"""timm's methods on every network of the catalogue."""

import pytest
import torch
from torch import nn

from striate.core.aux_heads import HeadOutputs
from striate.layers.rbf import RBFOutput
from striate.models.catalogue import model_entry
from striate.models.classifier import ImageClassifier
from striate.models.head import deepen
from striate.run.create_model import create_model
from support.networks_of_each_kind import EVERY


def on_meta(name, **settings):
    with torch.device("meta"):
        return create_model(name, **settings).eval()


def zeros(name):
    return torch.zeros(2, *model_entry(name).image.shape, device="meta")


@pytest.mark.parametrize("name", EVERY)
def test_features_and_head_are_the_network(name):
    model, x = on_meta(name), zeros(name)
    maps = model.forward_features(x)
    assert maps.ndim == 4
    assert model.forward_head(maps).shape == (2, model_entry(name).classes)


@pytest.mark.parametrize("name", ["googlenet", "lenet5", "tutorial_color"])
def test_features_and_head_compute_what_the_network_computes(name):
    model = create_model(name, seed=0).eval()
    image = model_entry(name).image
    x = torch.randn(2, *image.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model.forward_head(model.forward_features(x)), model(x))


@pytest.mark.parametrize("name", EVERY)
def test_the_classifier_is_replaced(name):
    model, x = on_meta(name), zeros(name)
    before = dict(model.named_parameters())
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 7
    assert model(x).shape == (2, 7)
    changed = {n for n, p in model.named_parameters() if before.get(n) is not p}
    names = tuple(f"{classifier}." for classifier in model.classifiers)
    assert all(parameter.startswith(names) for parameter in changed)
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), nn.Identity)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(3)
    assert model(x).shape == (2, 3)


def test_auxiliary_classifiers_are_replaced_too():
    model = on_meta("googlenet").train()
    model.reset_classifier(5)
    out = model(zeros("googlenet"))
    assert isinstance(out, HeadOutputs)
    assert {tuple(y.shape) for y in (out.logits, *out.auxiliary)} == {(2, 5)}


def test_lenet5_gets_codes_for_the_new_classes():
    model = create_model("lenet5", num_classes=3)
    assert isinstance(model.get_classifier(), RBFOutput)
    model.reset_classifier(10)
    assert torch.equal(model.output.codes, create_model("lenet5").output.codes)


def test_type_device_and_mode_stay():
    model = create_model("tutorial_gray").double().eval()
    model.reset_classifier(2)
    assert model.fc.weight.dtype == torch.float64
    assert not model.fc.training


def test_a_hidden_layer_belongs_to_the_classifier():
    model = create_model("tutorial_gray", seed=0)
    deepen(model, 8)
    assert len(model.get_classifier()) == 3
    model.reset_classifier(4)
    assert model.get_classifier().in_features == 2450


def test_a_slice_is_a_sequence():
    model = create_model("tutorial_gray")
    assert list(dict(model[:3].named_children())) == ["conv1", "relu1", "pool1"]
    assert isinstance(model[:3], ImageClassifier)
    assert len(model[:0]) == 0
