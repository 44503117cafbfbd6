"""An audit: shapes and counts of a real run, on any network, left as it was."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from striate.audit.findings import layer_table
from striate.audit.meta_device import _signature
from striate.audit.network import ForwardError, audit
from striate.core.errors import GeometryError
from striate.models.catalogue import model_entry
from striate.run.create_model import create_model


@pytest.mark.parametrize("name", ["lenet5", "tutorial_gray", "tutorial_color"])
def test_shapes_and_counts_are_those_of_a_real_run(name):
    model = create_model(name)
    image = model_entry(name).image
    result = audit(model, image.shape)
    x, shapes = torch.zeros(1, *image.shape), {}
    with torch.no_grad():
        for key, module in model.named_children():
            x = module(x)
            shapes[key] = tuple(x.shape[1:])
    assert {layer.name: layer.output for layer in result.layers} == shapes
    total = sum(p.numel() for p in model.parameters())
    assert (
        sum(layer.parameters for layer in result.layers) == total == result.parameters
    )


class Odd(nn.Module):
    """One layer twice, functions, a branch, a parameter and a constant of its own."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(2, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)
        self.scale = torch.tensor([[2.0, 3.0]])
        self.calls = 0
        self.kept = None

    def forward(self, x):
        self.calls += 1
        x = F.relu(self.twice(self.twice(x)), inplace=True)
        self.kept = x
        x = self.norm(x) + x
        x[:, 0] = 0
        random.random()
        np.random.rand()
        x = F.max_pool2d(F.dropout(x + torch.rand(1), training=self.training), 2)
        x = x.mean((2, 3)) + torch.zeros(2)
        return self.frozen(x) * self.scale


def test_reuse_functions_and_frozen_layers():
    result = audit(Odd(), (2, 6, 6))
    rows = [(x.name, x.parameters, x.trainable, x.macs) for x in result.layers]
    conv = 6 * 6 * 2 * 9 * 2
    assert rows == [
        ("twice", 38, 38, conv),
        ("twice #2", 0, 0, conv),
        ("(relu)", 0, 0, 0),
        ("norm", 4, 4, 0),
        ("(add, max_pool2d, mean)", 0, 0, 0),
        ("frozen", 4, 0, 4),
        ("(mul)", 0, 0, 0),
    ]
    assert (result.parameters, result.trainable, result.macs) == (46, 42, 2 * conv + 4)
    assert layer_table(result).rows[0][-1] == "yes"
    assert layer_table(result).rows[5][-1] == "no"
    assert layer_table(result).totals[-1] == "partly"


def state_of(model):
    modules = [(m, m.training, dict(m.__dict__)) for m in model.modules()]
    tensors = {k: (id(v), v.clone(), v.grad) for k, v in model.named_parameters()}
    buffers = {k: (id(v), v.clone()) for k, v in model.named_buffers()}
    chance = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    return modules, tensors, buffers, chance


def assert_same(before, after):
    assert [m[:2] for m in before[0]] == [m[:2] for m in after[0]]
    assert [m[2].keys() for m in before[0]] == [m[2].keys() for m in after[0]]
    for key, (place, value, gradient) in before[1].items():
        assert after[1][key][0] == place
        assert torch.equal(after[1][key][1], value)
        assert after[1][key][2] is gradient is None
    for key, (place, value) in before[2].items():
        assert after[2][key][0] == place
        assert torch.equal(after[2][key][1], value)
    assert torch.equal(before[3][0], after[3][0])
    assert before[3][1] == after[3][1]
    assert (before[3][2] == after[3][2]).all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("real", [True, False])
def test_nothing_of_the_model_changes(training, channels, real):
    """Not even on errors: three channels do not fit."""
    model = Odd().train(training)
    model.norm.eval()
    before = state_of(model)
    try:
        audit(model, (channels, 6, 6), real=real)
    except ForwardError:
        assert channels == 3
    assert_same(before, state_of(model))
    assert (model.calls, model.kept) == (0, None)
    model(torch.zeros(1, 2, 6, 6))


class Looks(nn.Module):
    """A network whose way depends on values."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3)
        self.last = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x) if x.sum() > -1e9 else x


def test_data_dependent_control_flow():
    with pytest.raises(ForwardError, match="depends on tensor values") as caught:
        audit(Looks(), (1, 8, 8))
    assert [layer.name for layer in caught.value.audit.layers[:1]] == ["first"]
    assert "--real" in caught.value.fix
    result = audit(Looks(), (1, 8, 8), real=True)
    assert [layer.output for layer in result.layers if layer.name == "last"] == [
        (2, 4, 4)
    ]
    assert result.memory is None
    assert "real=True" in result.memory_error


def test_forward_error_names_the_layer_and_keeps_the_audit():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(
        GeometryError, match="does not accept images of 5×5×1"
    ) as caught:
        audit(model, (1, 5, 5))
    assert caught.value.where == "2"
    assert [x.output for x in caught.value.audit.layers] == [(2, 3, 3), (18,)]


def test_a_lazy_network_gets_its_shapes_in_a_dry_run():
    model = nn.Sequential(nn.LazyConv2d(2, 3), nn.LazyBatchNorm2d(), nn.Flatten())
    model.append(nn.LazyLinear(4))
    classes = [type(module) for module in model]
    for real in (False, True):
        result = audit(model, (1, 5, 5), real=real)
        assert [x.parameters for x in result.layers] == [20, 4, 0, 76]
        assert [type(module) for module in model] == classes
        assert torch.nn.parameter.is_lazy(model[3].weight)
    assert model(torch.zeros(1, 1, 5, 5)).shape == (1, 4)


def test_lazy_layers_that_do_not_run_are_left_out():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    model.idle = nn.LazyLinear(3)
    model.forward = lambda x: model[0](x)
    assert audit(model, (1, 5, 5)).parameters == 20


class Aside(nn.Module):
    """Weights that only training uses, and a module that holds some and others."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.aside = nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(2))

    def forward(self, x):
        x = x.flatten(1)
        out = self.head(x) * self.gain
        return (out, {"aside": self.aside(x)}) if self.training else out


def test_unused_layers_are_listed():
    result = audit(Aside(), (1, 2, 2))
    assert [(x.name, x.parameters) for x in result.unused_layers] == [("aside", 10)]
    assert [(x.name, x.parameters) for x in result.layers] == [
        ("head", 10),
        ("(model)", 2),
    ]
    assert (
        sum(x.parameters for x in (*result.layers, *result.unused_layers))
        == result.parameters
    )
    assert result.memory.gradients == 4 * result.parameters


class NoTraining(nn.Module):
    def forward(self, x):
        if self.training:
            raise RuntimeError("only for answers")
        return None


def test_networks_without_weights_outputs_or_training():
    assert audit(nn.ReLU(), (1, 2, 2)).memory.peak == 2 * 128 * 4
    result = audit(NoTraining(), (1, 2, 2))
    assert result.memory_error == "only for answers"
    assert result.layers[0].output is None


def test_shared_weights_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    result = audit(nn.Sequential(nn.Flatten(), model), (1, 2, 2))
    assert [x.parameters for x in result.layers] == [0, 20, 4]


def test_another_number_type():
    model = nn.Sequential(nn.Conv2d(1, 1, 1)).double()
    assert audit(model, (1, 4, 4)).layers[0].activation == 16 * 8


class Catches(nn.Module):
    """Tries one way, and takes another when it fails."""

    def __init__(self):
        super().__init__()
        self.bad = nn.Sequential(nn.Linear(3, 3))
        self.good = nn.Conv2d(1, 1, 1)

    def forward(self, x):
        try:
            return self.bad(x)
        except RuntimeError:
            return self.good(x)


def test_a_forward_that_catches_its_own_error():
    result = audit(Catches(), (1, 4, 4))
    assert result.layers[-1].name == "good"
    assert result.layers[-1].output == (1, 4, 4)


class Asserting(nn.Module):
    """Runs an operation that gives out no tensor."""

    def forward(self, x):
        torch.ops.aten._assert_tensor_metadata(x, dtype=torch.float32)
        return torch.relu(x)


def test_operations_without_outputs_are_ignored():
    result = audit(Asserting(), (1, 4, 4))
    assert [o.name for layer in result.layers for o in layer.operations] == ["relu"]
    assert result.memory is not None


class NoGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))

    @torch.inference_mode()
    def forward(self, x):
        return self.inner(x)


def test_inference_mode_changes_no_number():
    model = NoGradients()
    plain = audit(model.inner, (1, 8, 8))
    with torch.inference_mode():
        inside = audit(model.inner, (1, 8, 8))
    decorated = audit(model, (1, 8, 8))
    assert plain.macs == inside.macs == decorated.macs == 36 * 18 + 72 * 3
    assert plain.memory == inside.memory
    assert [x.name for x in decorated.layers] == ["inner.0", "inner.1", "inner.2"]


class Aliased(nn.Module):
    """Refers to a weight by an attribute of its own, too."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.aliases = [self.fc.weight]

    def forward(self, x):
        return x.flatten(1) @ self.aliases[0].T


def test_a_weight_behind_an_alias_is_counted():
    result = audit(Aliased(), (1, 2, 2))
    assert [x.parameters for x in result.layers] == [8]
    assert [x.parameters for x in result.unused_layers] == [2]


def statically_quantized():
    quantization = torch.ao.quantization
    model = nn.Sequential(
        quantization.QuantStub(),
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
        quantization.DeQuantStub(),
    ).eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    quantization.prepare(model, inplace=True)
    model(torch.rand(2, 3, 8, 8))
    return quantization.convert(model, inplace=True)


@pytest.mark.filterwarnings("ignore")
def test_a_quantized_network_has_all_its_weights():
    result = audit(statically_quantized(), (3, 8, 8))
    counts = [(x.kind, x.parameters, x.macs) for x in result.layers if x.parameters]
    assert counts == [
        ("Conv2d", 112, 36 * 108),
        ("Conv2d", 144, 4 * 144),
        ("Linear", 25, 20),
    ]
    assert (result.parameters, result.trainable) == (281, 0)
    assert result.memory_error == "a quantized network is not trained"
    assert result.uncounted_ops == {}
    field = [x for x in result.layers if x.kind == "Conv2d"][-1].receptive_field
    assert (field.is_bound, field.box(1, 0)) == (False, ((2, 6), (0, 4)))


@pytest.mark.filterwarnings("ignore")
def test_dynamically_quantized_layers_are_counted():
    model = nn.Sequential(nn.Flatten(1, 2), nn.Linear(8, 10), nn.LSTM(10, 6))
    model = torch.ao.quantization.quantize_dynamic(model, {nn.Linear, nn.LSTM})
    result = audit(model, (2, 3, 8))
    assert result.parameters == 90 + 24 * (10 + 6 + 2)
    assert [x.macs for x in result.layers][1] == 6 * 80


def test_recurrent_layers_and_attention_raise_no_alarm():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(4, 4, batch_first=True)
            self.mix = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            out, _ = self.rnn(x.flatten(1, 2))
            return self.mix(out, out, out)[0]

    assert audit(Mixed(), (1, 6, 4)).uncounted_ops == {}


def test_a_network_with_an_empty_module_and_a_resize_to_the_same_size():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.register_module("norm", None)

        def forward(self, x):
            return F.interpolate(self.conv(x), size=(8, 8), mode="nearest")

    result = audit(Net(), (1, 8, 8))
    assert result.parameters == 20
    assert result.layers[0].output == (2, 8, 8)


def test_arguments_without_a_hash_are_not_compared():
    assert _signature({1, 2}) is None
    assert _signature(({1, 2}, 3)) is None
