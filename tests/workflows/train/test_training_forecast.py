"""Forecast of time and memory before training."""

import torch
from torch import nn

import striate as st
from striate.audit.network import audit
from striate.core.files import read_json
from striate.data.load import load_data
from striate.engine.benchmark import BenchmarkResult
from striate.engine.execution_config import ExecutionConfig
from striate.run.recipe import Recipe
from striate.workflows.train import training_forecast
from striate.workflows.train.training_forecast import (
    TrainingForecast,
    forecast_training,
)

NONE = BenchmarkResult(execution=ExecutionConfig())


def network():
    conv = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5)
    return nn.Sequential(*conv, nn.Flatten(), nn.Linear(256, 10))


def test_memory_is_that_of_the_summary_and_nothing_changes():
    data, model = load_data("digits"), network()
    recipe = Recipe(data="digits", epochs=20, batch_size=32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    forecast = forecast_training(model, data, recipe, NONE)
    expected = audit(model, (1, 8, 8), batch_size=32, optimizer="adamw").memory
    assert forecast.memory_bytes == expected.peak
    assert forecast.seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in model.parameters())


def test_gradient_accumulation_needs_the_memory_of_a_micro_batch():
    data = load_data("digits")
    whole, parts = (
        forecast_training(
            network(), data, Recipe(data="digits", batch_size=64, accumulate=n), NONE
        )
        for n in (1, 4)
    )
    assert parts.memory_bytes < whole.memory_bytes


def test_the_time_of_the_benchmark_is_used():
    data, execution = load_data("digits"), ExecutionConfig()
    benchmark = BenchmarkResult(execution=execution, seconds={str(execution): 64.0})
    recipe = Recipe(data="digits", epochs=10, batch_size=64)
    seconds = forecast_training(network(), data, recipe, benchmark).seconds
    images = len(data.subset("train")) + len(data.subset("val")) / 3
    assert seconds == 10 * images


def test_a_short_run_and_a_strange_network_have_no_forecast_of_time():
    class Strange(nn.Module):
        def forward(self, x):
            raise RuntimeError("only at full moon")

    data = load_data("digits")
    short = forecast_training(network(), data, Recipe(data="digits", epochs=1), NONE)
    assert short.seconds is None
    assert short.notes == []
    strange = forecast_training(Strange(), data, Recipe(data="digits"), NONE)
    assert (strange.seconds, strange.memory_bytes) == (None, None)


def test_missing_memory_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training_forecast, "available_bytes", lambda: 1000)
    data = load_data("digits")
    run = st.train(network(), data, epochs=1, out=tmp_path / "run", quiet=True)
    record = read_json(run.path / "manifest.json")
    assert record["forecast"]["free_bytes"] == 1000
    (note,) = [note for note in record["notes"] if "memory" in note]
    assert note.startswith("not enough memory: a training step needs about")
    assert "--batch-size" in note


def test_unknown_free_memory_is_no_warning():
    assert TrainingForecast(memory_bytes=10**12).fits
