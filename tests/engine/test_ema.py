"""Exponential moving average of the weights: values, checkpoints, best weights."""

import math

import pytest
import torch
from torch import nn

from striate.core.device import flush_denormals
from striate.core.errors import WeightsError
from striate.engine.callbacks import StepResult
from striate.engine.ema import EMA
from striate.engine.weights_io import read_weights
from striate.finetune.freeze import freeze, frozen_layers
from support.small_run import SmallRun, network


def result(step, loss=1.0):
    return StepResult(0, step, step, loss=loss, lr=0.1, images=4)


def test_ema_against_closed_form():
    """Against the closed form, by numbers, running statistics included."""
    model = network()
    ema = EMA(model, decay=0.6)
    expected = {k: v.double().clone() for k, v in model.state_dict().items()}
    draw = torch.Generator().manual_seed(1)
    for step in range(8):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                if tensor.is_floating_point():
                    tensor.add_(torch.randn(tensor.shape, generator=draw))
                else:
                    tensor.add_(1)
        ema.on_step_end(result(step))
        decay = min(0.6, (2 + step) / (11 + step))
        for name, value in model.state_dict().items():
            mixed = decay * expected[name] + (1 - decay) * value
            expected[name] = mixed if value.is_floating_point() else value.double()
    for name, value in ema.state_dict().items():
        assert torch.allclose(value.double(), expected[name], atol=1e-5), name
    assert "1.running_var" in expected


class Tied(nn.Module):
    """One weight and one running mean, each under two names."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        self.second.weight = self.first.weight
        self.second.running_mean = self.first.running_mean


def test_shared_tensors_are_averaged_once():
    """And keeps all its names, so that what is saved stays as it was."""
    model = Tied()
    ema = EMA(model, decay=0.9)
    before = {k: v.clone() for k, v in ema.state_dict().items()}
    with torch.no_grad():
        for tensor in (model.first.weight, model.first.running_mean):
            tensor.add_(1.0)
    ema.on_step_end(result(0))
    after = ema.state_dict()
    assert list(after) == list(model.state_dict())
    for name in ("weight", "running_mean"):
        for layer in ("first", "second"):
            moved = after[f"{layer}.{name}"] - before[f"{layer}.{name}"]
            assert torch.allclose(moved, torch.full((3,), 9 / 11)), (layer, name)


def test_ema_ignores_a_skipped_step():
    model = network()
    ema = EMA(model, decay=0.5)
    before = {k: v.clone() for k, v in ema.state_dict().items()}
    model[0].weight.data.add_(1.0)
    ema.on_step_end(result(3, loss=math.nan))
    assert all(torch.equal(before[k], v) for k, v in ema.state_dict().items())


def test_ema_shares_no_memory_with_the_model():
    model = network()
    ema = EMA(model, decay=0.5)
    assert not any(p.requires_grad for p in ema.model.parameters())
    own = {p.data_ptr() for p in ema.model.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in model.parameters())


def test_best_weights_are_those_of_the_ema(tmp_path):
    SmallRun(tmp_path, ema=0.9).train()
    checkpoint = next((tmp_path / "weights/last").glob("step-*15*"))
    best = read_weights(tmp_path / "weights/best.safetensors")
    last = read_weights(checkpoint / "ema.safetensors")
    training = read_weights(checkpoint / "model.safetensors")
    assert best.keys() == last.keys() == training.keys()
    assert not torch.equal(last["0.weight"], training["0.weight"])
    assert not torch.equal(best["0.weight"], training["0.weight"])


def test_ema_of_another_network_is_refused():
    ema = EMA(nn.Linear(2, 2), decay=0.5)
    with pytest.raises(WeightsError, match="another network"):
        ema.load_state_dict({"weight": torch.zeros(3, 2), "bias": torch.zeros(2)})


def test_frozen_tensors_are_copied_to_the_bit():
    """Weights of ImageNet hold numbers that flushed arithmetic takes for 0."""
    model = network()
    with torch.no_grad():
        for tensor in (model[0].weight, model[1].running_mean):
            tensor.view(-1)[0] = 1e-40
    freeze(model, "[01]")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ema = EMA(model.train(), decay=0.5)
    with flush_denormals():
        ema.on_step_end(result(3))
    assert frozen_layers(ema.model).parameters
    for name, value in ema.state_dict().items():
        assert value.numpy().tobytes() == before[name].numpy().tobytes(), name
