"""The whitening layer: what it computes, and that chance has no part in it."""

import pytest
import torch
from torch.nn import functional as F

from striate.layers.whiten import Whiten


def smooth(count, channels=1, side=16, seed=0):
    """Images whose neighboring pixels are similar, as in photographs."""
    draw = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, channels, side, side, generator=draw)
    return F.avg_pool2d(noise, 3, stride=1, padding=1) * 2


@pytest.mark.parametrize("channels", [1, 3])
def test_what_comes_out_is_uncorrelated_and_even(channels):
    images = smooth(800, channels)
    layer = Whiten(channels, 12, kernel_size=3, stride=1)
    layer.fit(images)
    out = layer.conv(images)[:, :6, 1:-1, 1:-1].transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(out), torch.eye(6), atol=0.05)
    assert torch.equal(layer.conv.weight[6:], -layer.conv.weight[:6])


def test_fitted_twice_is_the_same_to_the_bit():
    one, other = Whiten(1, 8, 3), Whiten(1, 8, 3)
    assert not torch.equal(one.conv.weight, other.conv.weight)
    state = torch.random.get_rng_state()
    one.fit(smooth(100))
    other.fit(smooth(100))
    assert torch.equal(one.conv.weight, other.conv.weight)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_filters_do_not_learn_but_the_biases_do():
    layer = Whiten(1, 8, 3)
    layer(smooth(4)).sum().backward()
    assert layer.conv.weight.grad is None
    assert layer.conv.bias.grad is not None


def test_more_filters_than_directions_are_zero():
    layer = Whiten(1, 24, kernel_size=3)
    layer.fit(smooth(100))
    assert layer.conv.weight.isfinite().all()
    assert int((layer.conv.weight.abs().sum((1, 2, 3)) > 0).sum()) == 18


def test_images_all_alike_are_no_danger():
    layer = Whiten(1, 8, 3)
    layer.fit(torch.ones(10, 1, 8, 8))
    assert layer.conv.weight.isfinite().all()
