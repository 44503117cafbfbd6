"""Gradients by depth against autograd; linear collapse and bent boundaries."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.core.errors import GeometryError
from striate.interpret.depth.layer_profile import depth_profile, gradient_factor
from striate.interpret.depth.nonlinearity import (
    PolynomialFeatures,
    collapse_linear,
    draw_boundary,
    fit_boundary,
    fit_networks,
    probability_profile,
    ring_points,
)
from support.foreign_networks import STRANGERS, Reused, Unchanged, stranger


def plain(activation, depth=20, width=32, shortcut=False):
    """A chain of dense blocks behind an image, as the notes draw them."""
    torch.manual_seed(0)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(width, width)
            nn.init.kaiming_normal_(self.dense.weight)

        def forward(self, x):
            out = activation(self.dense(x))
            return x + out if shortcut else out

    first = nn.Linear(16, width)
    return nn.Sequential(
        nn.Flatten(), first, *[Block() for _ in range(depth)], nn.Linear(width, 4)
    )


def batch(count=16, channels=1, side=4):
    x = torch.randn(count, channels, side, side, generator=torch.manual_seed(3))
    return x, torch.arange(count) % 4


@pytest.mark.parametrize("kind", STRANGERS)
@pytest.mark.parametrize("training", [False, True])
def test_networks_of_others_are_left_alone(kind, training):
    model = stranger(kind)
    x, y = batch(8, 3, 12)
    with Unchanged(model):
        result = depth_profile(model, x, y, training)
    assert [level.depth for level in result] == list(range(1, len(result) + 1))
    assert all(level.gradient > 0 and level.activation > 0 for level in result)
    if kind is Reused:
        assert [level.name for level in result] == ["first", "again", "again #2", "fc"]


def test_profile_equals_autograd():
    """The same network written out by hand, every inner number kept."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 4)
    )
    x, y = batch()
    result = depth_profile(model, x, y)
    conv = F.conv2d(x, model[0].weight, model[0].bias)
    conv.retain_grad()
    logits = F.linear(conv.relu().flatten(1), model[3].weight, model[3].bias)
    logits.retain_grad()
    F.cross_entropy(logits, y, reduction="sum").backward()
    for level, inner in zip(result, (conv, logits), strict=True):
        size = float(inner.detach().square().mean().sqrt())
        assert level.activation == pytest.approx(size)
        want = float(inner.grad.square().mean().sqrt())
        assert level.gradient == pytest.approx(want, rel=1e-5)
    weight = model[0].weight
    want = float((weight.grad / len(x)).norm() / weight.detach().norm())
    assert result[0].update == pytest.approx(want, rel=1e-5)


def test_vanishing_gradients_by_activation_and_shortcuts():
    x, y = batch()
    result = {
        name: gradient_factor(depth_profile(plain(function, shortcut=short), x, y))
        for name, function, short in (
            ("sigmoid", torch.sigmoid, False),
            ("tanh", torch.tanh, False),
            ("relu", torch.relu, False),
            ("sigmoid, shortcut", torch.sigmoid, True),
        )
    }
    assert result["sigmoid"] < 0.45  # a slope of a quarter, times weights
    assert result["sigmoid"] < result["tanh"]
    assert abs(result["relu"] - 1) < 0.1
    assert abs(result["sigmoid, shortcut"] - 1) < 0.15


def test_a_frozen_layer_has_no_update_but_a_gradient():
    x, y = batch()
    model = plain(torch.relu, depth=2)
    model[2].dense.weight.requires_grad_(False)
    result = {level.name: level for level in depth_profile(model, x, y)}
    assert result["2.dense"].update != result["2.dense"].update
    assert result["2.dense"].gradient > 0
    assert result["1"].update > 0


def test_gradient_factor_needs_two_layers():
    assert gradient_factor([]) != gradient_factor([])


# --- one layer, and more -------------------------------------------------------------


def test_only_linear_layers_collapse():
    torch.manual_seed(0)
    chain = [nn.Linear(4, 9), nn.Linear(9, 7, bias=False), nn.Linear(7, 3)]
    x = torch.randn(20, 4)
    assert torch.allclose(
        collapse_linear(chain)(x), nn.Sequential(*chain)(x), atol=1e-5
    )
    bent = nn.Sequential(chain[0], nn.ReLU(), *chain[1:])
    assert not torch.allclose(collapse_linear(chain)(x), bent(x), atol=1e-2)
    with pytest.raises(GeometryError, match="layer 1 is a ReLU"):
        collapse_linear(list(bent))
    with pytest.raises(GeometryError, match="no layers"):
        collapse_linear([])


def test_accuracy_of_the_four_networks():
    """One layer, three in a row, squares before it, a bend between."""
    points, inner = ring_points(400)

    def accuracy(model, x=points):
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()
        return fit_boundary(model, x, inner)

    line = accuracy(nn.Linear(2, 1))
    deep = accuracy(nn.Sequential(nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)))
    squares = accuracy(nn.Linear(5, 1), PolynomialFeatures(2)(points))
    bent = accuracy(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)))
    assert line < 0.62
    assert deep < 0.62
    assert squares == 1
    assert bent > 0.99


def test_draw_boundary_colors():
    """Squares draw a disc: red within, blue without, the points upon it."""
    result = fit_networks(300)
    points, inner = ring_points(300)
    drawn = draw_boundary(result[2].model, points, inner, side=120).astype(int)
    middle, corner = drawn[60, 60], drawn[2, 2]
    assert middle[0] > middle[2]
    assert corner[2] > corner[0]
    right = draw_boundary(lambda x: x[:, :1] * 9, points[:0], inner[:0], side=9).astype(
        int
    )
    assert right[4, 8, 0] > right[4, 8, 2]  # to the right is red
    up = draw_boundary(lambda x: x[:, 1:] * 9, points[:0], inner[:0], side=9).astype(
        int
    )
    assert up[0, 4, 0] > up[0, 4, 2]  # the upper side is on top
    one = draw_boundary(
        lambda x: x[:, :1] * 0, torch.tensor([[2.6, 2.6]]), inner[:1], side=9
    )
    assert one[0, 8].tolist() == [120, 20, 18]


def test_probability_profile():
    places, probs = probability_profile(lambda x: x[:, :1], 5)
    assert places == sorted(places)
    assert probs == sorted(probs)
    assert probs[2] == 0.5
