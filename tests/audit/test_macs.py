"""Multiply-adds against torch's own flop counter, the papers and the notes."""

import inspect

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from striate.audit.macs import count_macs
from striate.audit.network import audit
from striate.audit.sketch_parser import sketch
from striate.models.catalogue import model_entry
from striate.run.create_model import create_model


def torch_flops(model, *shape):
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(torch.zeros(1, *shape))
    return counter.get_total_flops()


NAMES = ["lenet5_modern", "tutorial_color", "alexnet", "mobilenet_v2", "cifar_resnet20"]


@pytest.mark.parametrize("name", NAMES)
def test_networks_count_as_torch_counts(name):
    model, shape = create_model(name), model_entry(name).image.shape
    assert 2 * audit(model, shape).macs == torch_flops(model, *shape)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)
        return self.mix(x, x, x, need_weights=False)[0]


LAYERS = {
    "grouped": nn.Conv2d(8, 4, 3, groups=2, dilation=2),
    "transposed": nn.ConvTranspose2d(8, 6, 3, stride=2, groups=2),
    "bilinear": nn.Sequential(nn.Flatten(2), nn.Linear(100, 7, bias=False)),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_layers_count_as_torch_counts(layer):
    assert 2 * audit(layer, (8, 10, 10)).macs == torch_flops(layer, 8, 10, 10)


def test_attention_counts_its_products():
    """In, pairs twice, out; torch's counter misses the fused operation altogether."""
    result = audit(Attention(), (8, 10, 10))
    assert result.macs == 100 * 8 * 24 + 2 * 100 * 100 * 8 + 100 * 8 * 8
    assert result.layers[-1].receptive_field.box(0, 0) == ((0, 9), (0, 9))


SKETCHES = {
    "two 3×3×3 filters": ("9x9x3 > conv 3x3 2", "parameters", 56),
    "ten 3×3×1 filters": ("9x9x1 > conv 3x3 10", "parameters", 100),
    "dense": ("1000x1000x1 > dense 100 nobias", "parameters", 100_000_000),
    "one filter": ("1000x1000x1 > conv 3x3 1 nobias", "parameters", 9),
    "5×5": ("28x28x192 > conv 5x5 32 same", "macs", 120_422_400),
    "bottleneck": (
        "28x28x192 > conv 1x1 16 > conv 5x5 32 same",
        "macs",
        2_408_448 + 10_035_200,
    ),
    "dilated": ("9x9x1 > conv 3x3 1 d2 nobias", "parameters", 9),
}


@pytest.mark.parametrize(("line", "what", "number"), SKETCHES.values(), ids=SKETCHES)
def test_macs_of_published_examples(line, what, number):
    assert getattr(audit(*sketch(line)), what) == number


def test_inception_by_branch():
    """GoogLeNet's 3a (Szegedy et al. 2014, table 1), multiply-adds of each branch."""
    line = (
        "28x28x192 > [conv 1x1 64, conv 1x1 96 > conv 3x3 128 same, "
        "conv 1x1 16 > conv 5x5 32 same, pool 3 /1 same > conv 1x1 32]"
    )
    result = audit(*sketch(line))
    totals = {}
    for layer in result.layers:
        branch = layer.name.split(".")[1]
        totals[branch] = totals.get(branch, 0) + layer.macs
    assert totals == {
        "branch1": 9_633_792,
        "branch2": 14_450_688 + 86_704_128,
        "branch3": 12_443_648,
        "branch4": 4_816_896,
        "(cat)": 0,
    }
    assert result.layers[-1].output == (256, 28, 28)


def test_two_groups_halve_the_weights_and_dilation_sees_more():
    one, two = (audit(*sketch(f"9x9x4 > conv 3x3 8 nobias {g}")) for g in ("g1", "g2"))
    assert two.parameters * 2 == one.parameters
    assert two.macs * 2 == one.macs
    wide = audit(*sketch("9x9x1 > conv 3x3 1 d2 nobias")).layers[0]
    assert (wide.receptive_field.axes[0].size, wide.parameters) == (5, 9)


ACTIVATIONS = (
    *("CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish"),
    *("Hardtanh", "LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU", "ReLU6"),
    *("SELU", "SiLU", "Sigmoid", "Softmax2d", "Softplus", "Softsign", "Tanh"),
)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_no_macs(name):
    make = getattr(nn, name)
    for inplace in {"inplace" in inspect.signature(make).parameters, False}:
        layer = make(inplace=True) if inplace else make()
        result = audit(nn.Sequential(nn.Conv2d(2, 4, 1), layer), (2, 6, 6))
        assert result.uncounted_ops == {}
        assert result.macs == 36 * 8


def test_uncounted_operations_are_listed():
    class Transform(nn.Module):
        def forward(self, x):
            return torch.fft.fft2(x).real

    result = audit(Transform(), (1, 8, 8))
    assert list(result.uncounted_ops) == ["_fft_c2c"]
    assert result.macs == 0


def test_macs_of_matrix_products():
    aten = torch.ops.aten
    a, b = torch.ones(3, 4), torch.ones(4)
    assert count_macs(aten.mv.default, (a, b), (3,)) == 12
    assert count_macs(aten.addmv.default, (torch.ones(3), a, b), (3,)) == 12
    assert count_macs(aten._cdist_forward.default, (a, a, 2.0, None), (3, 3)) == 36
    assert count_macs(aten.normal_.default, (a,), (3, 4)) == 0
    assert count_macs(aten.new_zeros.default, (a, [2]), (2,)) == 0
