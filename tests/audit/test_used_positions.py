"""Positions said to be unread have no gradient; in plain networks, no others."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from striate.audit.network import audit
from striate.audit.recorder import IMAGE
from striate.audit.used_positions import count_unused, find_used_positions
from striate.core.errors import GeometryError
from support.brute_receptive_field import positive
from support.random_networks import Branches, chain


def predicted(model, shape):
    result = audit(model, shape)
    reading = find_used_positions(
        o for layer in result.layers for o in layer.operations
    )
    return reading.needed[IMAGE]


def measured(model, shape):
    image = torch.ones(1, *shape, dtype=torch.double, requires_grad=True)
    model(image * 1).sum().backward()
    return (image.grad[0] != 0).any(0).numpy()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@settings(derandomize=True)
@given(st.integers(0, 2**32))
def test_unused_positions_have_zero_gradient(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = positive(chain(draw, draw.randint(1, 5)))
    shape = 4, draw.randint(7, 20), draw.randint(7, 20)
    try:
        sides = audit(model, shape).container_outputs[""].output[2:]
    except GeometryError:
        return
    if min(sides):
        seen = measured(model, shape)
        rows, columns = predicted(model, shape)
        assert not (seen & ~(rows[:, None] & columns)).any()


@settings(derandomize=True)
@given(st.integers(0, 2**32))
def test_used_positions_of_plain_windows_are_exact(seed):
    draw = random.Random(seed)
    layers = []
    for _ in range(draw.randint(1, 3)):
        kernel, stride = draw.randint(1, 4), draw.randint(1, 4)
        pad = draw.randint(0, kernel - 1)
        layers += [nn.Conv2d(2, 2, kernel, stride, pad, draw.randint(1, 2))]
        layers += [nn.ReLU(), nn.BatchNorm2d(2)]
    model = positive(nn.Sequential(*layers))
    shape = 2, draw.randint(9, 30), draw.randint(9, 30)
    try:
        audit(model, shape)
    except GeometryError:
        return
    rows, columns = predicted(model, shape)
    seen = measured(model, shape)
    np.testing.assert_array_equal(seen, rows[:, None] & columns)
    assert count_unused((rows, columns)) == int((~seen).sum())


def test_used_positions_of_branches_and_views():
    kernels = nn.Conv2d(1, 1, 1, stride=2), nn.Conv2d(1, 1, 1, stride=2)
    joined = Branches([*kernels], add=True)
    rows, _ = predicted(joined, (1, 5, 5))
    assert rows.tolist() == [True, False, True, False, True]
    three = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(2), nn.Conv1d(2, 1, 2, 2))
    rows, columns = predicted(three, (1, 5, 5))
    assert rows.all()
    assert columns.all()


class Uneven(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 1, 1, stride=2)

    def forward(self, x):
        upper, lower = (x * 2).split([2, 4], 2)
        return torch.cat([self.one(upper), self.one(lower)], 2)


def test_used_positions_with_different_sizes():
    rows, columns = predicted(Uneven(), (1, 6, 6))
    assert rows.all()
    assert columns.all()
