"""Every layer of ours: backward equals the numeric derivative, in float64."""

import pytest
import torch
from torch import nn
from torch.autograd import gradcheck

from striate.layers.blur import BlurPool
from striate.layers.depth_max_pool import DepthMaxPool
from striate.layers.inception import Inception, InceptionWidths
from striate.layers.inverted_residual import InvertedResidual
from striate.layers.partial_conv import LENET_C3, PartialConv2d
from striate.layers.rbf import RBFOutput, random_codes
from striate.layers.residual import (
    PadShortcut,
    Residual,
    basic_branch,
    bottleneck_branch,
    shortcut,
)
from striate.layers.scaled_tanh import ScaledTanh
from striate.layers.subsample import Subsample2d

SMALL = InceptionWidths(2, 1, 2, 1, 2, 1)


def basic(option):
    return Residual(basic_branch(2, 4, 2), shortcut(option, 2, 4, 2))


def bottleneck(stride_in):
    branch = bottleneck_branch(4, 1, 2, stride_in)
    return Residual(branch, shortcut("B", 4, 4, 2))


LAYERS = {
    "blur": (lambda: BlurPool(2), (2, 2, 5, 4)),
    "blur, even": (lambda: BlurPool(2, 4, 3), (2, 2, 5, 4)),
    "partial convolution": (lambda: PartialConv2d(LENET_C3, 2), (2, 6, 3, 3)),
    "depth pool": (lambda: DepthMaxPool(3), (2, 7, 2, 3)),
    "depth pool, overlapping": (lambda: DepthMaxPool(3, 2), (2, 7, 2, 3)),
    "inception": (lambda: Inception(3, SMALL), (2, 3, 4, 4)),
    "inception, normed": (lambda: Inception(3, SMALL, 3, norm=True), (2, 3, 4, 4)),
    "inverted": (lambda: InvertedResidual(2, 2, 1, 3), (2, 2, 4, 4)),
    "inverted, strided": (lambda: InvertedResidual(2, 3, 2, 1), (3, 2, 5, 5)),
    "rbf": (lambda: RBFOutput(random_codes(3, 5)), (4, 5)),
    "residual, A": (lambda: basic("A"), (3, 2, 4, 4)),
    "residual, B": (lambda: basic("B"), (3, 2, 4, 4)),
    "residual, C": (lambda: basic("C"), (3, 2, 4, 4)),
    "bottleneck, paper": (lambda: bottleneck("1x1"), (3, 4, 4, 4)),
    "bottleneck, 1.5": (lambda: bottleneck("3x3"), (3, 4, 4, 4)),
    "pad shortcut": (lambda: PadShortcut(2, 4, 2), (2, 2, 5, 4)),
    "scaled tanh": (ScaledTanh, (3, 5)),
    "subsample": (lambda: Subsample2d(3), (2, 3, 5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_backward_equals_the_numeric_derivative(name):
    torch.manual_seed(1)
    build, shape = LAYERS[name]
    layer = build().double()
    names = [n for n, _ in layer.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in layer.parameters()]

    def call(x, *weights):
        values = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, values, (x,))

    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    # Batch norm's running statistics change in training; gradients do not read them.
    assert gradcheck(call, (x, *weights))


@pytest.mark.parametrize("name", [n for n in LAYERS if len(LAYERS[n][1]) == 4])
def test_layout_changes_nothing(name):
    build, shape = LAYERS[name]
    torch.manual_seed(1)
    layer = build().double().eval()
    x = torch.randn(shape, dtype=torch.float64)
    expected = layer(x)
    layer = layer.to(memory_format=torch.channels_last)
    got = layer(x.to(memory_format=torch.channels_last))
    assert torch.allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_prints_itself(name):
    assert isinstance(repr(LAYERS[name][0]()), str)
    assert isinstance(LAYERS[name][0](), nn.Module)
