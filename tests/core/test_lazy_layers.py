"""Lazy layers get their shapes by one run, which changes nothing else."""

import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import GeometryError
from striate.core.lazy_layers import lazy_layer_names, materialize_lazy


class Unused(nn.Sequential):
    def forward(self, x):
        return x


def test_modes_and_gradients_stay():
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten())
    model[1].eval()
    materialize_lazy(model, (2, 5, 5))
    assert lazy_layer_names(model) == []
    assert [m.training for m in model] == [True, False, True]
    assert model[1].num_batches_tracked == 0
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_network_without_lazy_layers_is_not_run():
    materialize_lazy(nn.Linear(3, 2), (1, 9, 9))


def test_images_that_do_not_fit_and_layers_that_do_not_run():
    with pytest.raises(GeometryError, match="which fails on images of 2×2×1"):
        materialize_lazy(nn.Sequential(nn.LazyConv2d(4, 3)), (1, 2, 2))
    with pytest.raises(GeometryError, match="the lazy layer 0 has no shape"):
        materialize_lazy(Unused(nn.LazyLinear(3)), (1, 2, 2))


def test_an_object_with_lazy_layers_trains(shared_folder, no_report):
    model = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    data = st.load_data(shared_folder)
    run = st.train(model, data, epochs=1, quiet=True)
    fresh = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    materialize_lazy(fresh, (1, 8, 8))
    again = st.load_run(run.path, model=fresh)
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.allclose(again.model(x), run.model(x))
