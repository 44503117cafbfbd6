"""The trace: shapes and counts of any network, which is left as it was."""

import pytest
import torch
from striate.audit.trace import trace
from torch import nn

from striate.audit.table import layer_table, shape_text
from striate.core.errors import GeometryError
from striate.models.catalogue import create_model, find


@pytest.mark.parametrize("name", ["lenet5", "notes_grey", "notes_colour"])
def test_shapes_and_counts_are_those_of_a_real_run(name):
    model = create_model(name)
    image = find(name).image
    state = {k: v.clone() for k, v in model.state_dict().items()}
    random = torch.get_rng_state()
    layers = trace(model, image.shape)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    x, shapes = torch.zeros(1, *image.shape), {}
    with torch.no_grad():
        for key, module in model.named_children():
            x = module(x)
            shapes[key] = tuple(x.shape[1:])
    assert {layer.name: layer.output for layer in layers} == shapes
    total = sum(p.numel() for p in model.parameters())
    assert sum(layer.parameters for layer in layers) == total
    assert layer_table(layers).totals[3] == total


class Shared(nn.Module):
    """One layer used twice, a parameter of the container's own, one frozen layer."""

    def __init__(self):
        super().__init__()
        self.twice = nn.Conv2d(2, 2, 3, padding=1)
        self.frozen = nn.Linear(2, 2, bias=False).requires_grad_(False)
        self.gain = nn.Parameter(torch.ones(2))

    def forward(self, x):
        x = self.twice(self.twice(x)).mean((2, 3))
        return self.frozen(x) * self.gain


def test_shared_own_and_frozen_parameters():
    """Without `_holds` the container's own parameter would be missing in the total."""
    layers = trace(Shared(), (2, 5, 5))
    found = [(x.name, x.kind, x.parameters, x.trainable) for x in layers]
    assert found == [
        ("twice", "Conv2d", 38, 38),
        ("twice", "Conv2d", 0, 0),
        ("frozen", "Linear", 4, 0),
        ("(model)", "Shared", 2, 2),
    ]
    assert layer_table(layers).totals == ("total", "4 layers", None, 44, None)


def test_a_model_that_is_one_layer():
    (layer,) = trace(nn.Conv2d(1, 2, 3), (1, 5, 5))
    assert (layer.output, layer.parameters) == ((2, 3, 3), 20)


def test_no_parameters_at_all():
    table = layer_table(trace(nn.Sequential(nn.ReLU()), (1, 2, 2)))
    assert table.rows == (("0", "ReLU", "2×2×1", None, None),)
    assert table.totals[3] == 0


def test_a_misfit_names_the_place_and_the_size():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(7, 2))
    with pytest.raises(GeometryError, match="cannot take pictures of 1×5×5") as caught:
        trace(model, (1, 5, 5))
    assert caught.value.where == "after 1"
    with pytest.raises(GeometryError) as caught:
        trace(model, (3, 5, 5))
    assert caught.value.where == "at the first layer"


def test_shape_text():
    assert shape_text((3, 4)) == "3×4"
