"""Forecast of time and memory before training."""

import json
import time

import pytest
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
from striate.workflows.train.train import summary_json
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
    assert "only at full moon" in strange.error
    assert strange.as_record()["forecast"]["error"] == strange.error


def test_missing_memory_is_said_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr(training_forecast, "available_bytes", lambda: 1000)
    data = load_data("digits")
    run = st.train(network(), data, epochs=1, out=tmp_path / "run", quiet=True)
    record = read_json(run.path / "manifest.json")
    assert record["forecast"]["free_bytes"] == 1000
    (note,) = [note for note in record["notes"] if "memory" in note]
    assert note.startswith("not enough memory: a training step needs about")
    assert "--batch-size" in note


def test_missing_memory_is_a_warning_before_anything_runs(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(training_forecast, "available_bytes", lambda: 1000)

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("striate.workflows.train.train.resolve_auto_settings", stop)
    with pytest.raises(KeyboardInterrupt):
        st.train(network(), load_data("digits"), out=tmp_path / "run", quiet=True)
    warning = "warning: not enough memory: a training step needs about"
    assert capsys.readouterr().err.startswith(warning)


def test_python_prints_the_forecast_and_json_has_it(tmp_path, capsys):
    data = load_data("digits")
    run = st.train(network(), data, epochs=20, out=tmp_path / "run")
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "forecast" in x]
    assert line.startswith("forecast: about ")
    assert json.loads(summary_json(run))["forecast"]["seconds"] > 0


def test_a_slow_run_of_few_steps_has_a_forecast():
    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.images = nn.Linear(64, 10), 0

        def forward(self, x):
            if x.device.type != "meta":
                images.append(len(x))
                time.sleep(0.01 * len(x))
            return self.fc(x.flatten(1))

    images = []
    data = load_data("digits")
    recipe = Recipe(data="digits", epochs=4)
    forecast = forecast_training(Slow(), data, recipe, NONE)
    count = len(data.subset("train"))
    expected = 4 * 0.01 * (count + len(data.subset("val")) / 3)
    assert expected < forecast.seconds < 1.5 * expected
    assert sum(images) <= 0.01 * 4 * count


def test_a_failure_in_the_forecast_does_not_end_the_run(tmp_path, monkeypatch):
    def fail(*args):
        raise MemoryError("no memory for a forecast")

    monkeypatch.setattr(training_forecast, "_memory", fail)
    monkeypatch.setattr(training_forecast, "_seconds", fail)
    run = st.train(network(), load_data("digits"), epochs=1, out=tmp_path / "run")
    assert "no memory for a forecast" in run.manifest["forecast"]["error"]


def test_unknown_free_memory_is_no_warning():
    assert TrainingForecast(memory_bytes=10**12).fits
