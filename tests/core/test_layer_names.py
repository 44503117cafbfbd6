"""Names of layers do not show the wrappers of `torch.compile`."""

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import StriateError
from striate.core.hooks import intercept_outputs, leaf_module_names, trace_modules
from striate.core.layer_names import layer_at, layer_name, named_layers
from striate.finetune.cut_points import find_stages
from striate.finetune.freeze import freeze, frozen_layers
from striate.interpret.filters import layers_with_filters


def plain():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))


def inside():
    model = plain()
    model[0] = torch.compile(model[0], backend="eager")
    return model


def both():
    return torch.compile(inside(), backend="eager")


@pytest.fixture(params=[inside, both])
def model(request):
    return request.param()


X = torch.rand(1, 1, 8, 8)
LAYERS = ["0", "0.0", "0.1", "1", "2", "3"]


def test_names_are_those_of_the_network_that_was_compiled(model):
    names = [name for name, _ in named_layers(model)]
    assert names == ["", *LAYERS]
    assert any("_orig_mod" in name for name, _ in model.named_modules())
    assert leaf_module_names(model) == ["0.0", "0.1", "1", "2", "3"]
    assert isinstance(layer_at(model, "0.0"), nn.Conv2d)
    assert layer_name("_orig_mod.0._orig_mod.0 #2") == "0.0 #2"


def test_summary_and_filters(model):
    text = str(st.summary(model, (1, 8, 8)))
    assert "0.0" in text
    assert "_orig_mod" not in text
    assert list(layers_with_filters(model)) == ["0.0"]


def test_features_have_the_names_and_values_of_the_plain_network(model):
    expected = st.features(plain(), X, "*")
    result = st.features(model, X, "*")
    assert list(result) == LAYERS
    assert result.left_out == {}
    for name in LAYERS:
        torch.testing.assert_close(result[name], expected[name])


@pytest.mark.parametrize("name", ["0.0", "_orig_mod.0._orig_mod.0", "0._orig_mod.0"])
def test_a_layer_is_given_by_either_name(model, name):
    assert list(st.features(model, X, name)) == ["0.0"]
    result = st.explain(model, X, layer=name, method="gradcam", sanity_checks=False)
    assert result.layer.call == "0.0"
    freeze(model, name)
    assert frozen_layers(model).layers == ("0.0",)


def test_explain_has_the_map_of_the_plain_network(model):
    expected = st.explain(plain(), X, sanity_checks=False)
    result = st.explain(model, X, sanity_checks=False)
    assert result.layer.call == expected.layer.call == "0.1"
    torch.testing.assert_close(result.heatmap, expected.heatmap)


def test_stages_and_hooks(model):
    assert [stage.layers for stage in find_stages(model, X)] == [("0.0",), ("3",)]
    entered, left = [], []
    enter = lambda name, module, inputs: entered.append(name)  # noqa: E731
    with (
        trace_modules(model, enter=enter),
        intercept_outputs(model, ["0.0"], lambda call, output: left.append(call)),
        torch.compiler.set_stance("force_eager"),
    ):
        model(X)
    assert entered == ["", *LAYERS]
    assert left == ["0.0"]


def test_an_unknown_layer_is_answered_with_plain_names(model):
    with pytest.raises(StriateError) as error:
        st.features(model, X, "0.7")
    assert "0.0" in str(error.value)
    assert "_orig_mod" not in str(error.value)
