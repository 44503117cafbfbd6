"""The effective field: of linear networks known exactly, and never beyond the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from striate.core.errors import GeometryError, UnknownNameError
from striate.interpret.effective_receptive_field import (
    effective_receptive_fields,
    shortest_span,
    unit_effective_field,
)
from support.foreign_networks import STRANGERS, Unchanged, stranger


def ones(count, kernel=3):
    """Return convolutions that sum their windows."""
    layers = [nn.Conv2d(1, 1, kernel, bias=False) for _ in range(count)]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_a_linear_network_is_a_box_convolved_with_itself(count):
    """n box windows: the derivative is an n-fold box spline, nearly Gaussian."""
    result = effective_receptive_fields(
        ones(count), torch.rand(3, 1, 31, 31), [str(count - 1)]
    )
    profile = np.ones(1)
    for _ in range(count):
        profile = np.convolve(profile, np.ones(3))
    energy = profile**2 / (profile**2).sum()
    field = result[str(count - 1)]
    middle = field.energy.sum(0)
    low = field.unit[1]
    np.testing.assert_allclose(middle[low : low + len(energy)], energy, atol=1e-12)
    assert field.width == field.height == shortest_span(energy)
    assert field.width <= 2 * count + 1


def test_the_fields_grow_slower_than_the_theory():
    """Luo et al. 2016: with the root of the depth, where the theory is linear."""
    model = ones(12)
    result = effective_receptive_fields(model, torch.rand(1, 1, 40, 40), ["2", "11"])
    ratio = result["11"].width / result["2"].width
    assert 1.5 < ratio < 2.5  # √4, against 25/7 = 3.6 in theory


class Places(nn.Module):
    def forward(self, x):
        return torch.zeros(x.shape[0], 1, 3, 3) + 0 * x.sum()


def test_leaves_the_model_alone_and_names_what_it_measures():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten()
    )
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = effective_receptive_fields(model, torch.rand(2, 3, 8, 8), ["0", "2", "3"])
    assert list(result) == ["0", "2"]
    assert result["0"].unit == (3, 3)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(UnknownNameError, match="choose one of: 0"):
        effective_receptive_fields(model, torch.rand(2, 3, 8, 8), ["nothing"])


@pytest.mark.parametrize("kind", STRANGERS)
def test_networks_of_others_are_left_alone(kind):
    model = stranger(kind)
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    x = torch.rand(2, 3, 12, 12)
    with Unchanged(model):
        result = effective_receptive_fields(model, x, names)
    assert list(result) == names
    assert all(field.width > 0 for field in result.values())


def test_a_unit_that_nothing_moves_has_no_field():
    result = effective_receptive_fields(
        nn.Sequential(Places()), torch.rand(1, 1, 5, 5), ["0"]
    )
    assert (result["0"].height, result["0"].width) == (0, 0)


def test_frozen_parameters_do_not_matter():
    model = ones(1).requires_grad_(False)
    field = effective_receptive_fields(model, torch.rand(1, 1, 5, 5), ["0"])["0"]
    assert field.width == 3


def test_a_first_layer_may_work_in_place():
    """The leaf itself is never handed over, and the images stay as they are."""
    model, x = nn.Sequential(nn.ReLU(inplace=True), *ones(1)), torch.randn(2, 1, 7, 7)
    before = x.clone()
    field = effective_receptive_fields(model, x, ["1"])["1"]
    assert torch.equal(x, before)
    single = unit_effective_field(model, x, "1", (0, *field.unit))
    np.testing.assert_allclose(field.energy, single.energy)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_the_callers_mode_does_not_matter(mode):
    model = ones(2)
    with mode():
        result = effective_receptive_fields(model, torch.rand(2, 1, 9, 9), ["1"])
    assert result["1"].width == 5


@pytest.mark.parametrize(
    ("x", "output"),
    [
        (torch.rand(1, 9, 9), "a batch of images has 4 dimensions, got 1×9×9"),
        (
            torch.zeros(1, 1, 9, 9, dtype=torch.uint8),
            "must be preprocessed floating-point",
        ),
        (torch.rand(1, 3, 9, 9), "the network does not accept a batch of 1×3×9×9"),
    ],
)
def test_what_is_no_batch_is_refused_in_words(x, output):
    with pytest.raises(GeometryError, match=output):
        effective_receptive_fields(ones(1), x, ["0"])
