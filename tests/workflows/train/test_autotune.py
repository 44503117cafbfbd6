"""Autotuning of memory layout, compilation and precision in runs."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from striate.core.errors import GeometryError, InterruptedRunError
from striate.core.files import read_json
from striate.data.load import load_data
from striate.engine import execution_config as ways
from striate.engine.benchmark import BenchmarkResult
from striate.engine.checkpoint_store import CheckpointStore
from striate.engine.execution_config import ExecutionConfig
from striate.engine.throughput import ThroughputMeter
from striate.report.progress import TrainingProgress
from striate.run.build_from_recipe import recipe_execution
from striate.run.create_model import create_model
from striate.run.recipe import Recipe
from striate.workflows.train import autotune as autotune_module
from striate.workflows.train.autotune import AutotuneCache, autotune, make_laps
from striate.workflows.train.resume import resume
from striate.workflows.train.train import train_recipe
from support.stopped_runs import ask_before

HALF = BenchmarkResult(
    execution=ExecutionConfig(layout="nchw", precision="bf16"),
    seconds={"nhwc fp32": 0.3, "nchw fp32": 0.2, "nchw bf16": 0.1},
)


@pytest.fixture
def benchmarks_run(monkeypatch):
    """Record the benchmarks, each of which returns nchw bf16, also in short runs."""
    asked = []
    monkeypatch.setattr(autotune_module, "MIN_STEPS", 1)
    monkeypatch.setattr(autotune_module, "bf16_obstacle", lambda device: "")
    monkeypatch.setattr(ways, "bf16_obstacle", lambda device: "")
    monkeypatch.setattr(
        autotune_module, "choose_execution", lambda *words: asked.append(words) or HALF
    )
    # A peak of bf16 takes 10 s to measure on a processor without bf16 instructions.
    monkeypatch.setattr(autotune_module, "measure_peak_flops", lambda *words: 1e9)
    return asked


def settings(folder, **more):
    return Recipe(data=str(folder), epochs=2, batch_size=8, **more)


def test_a_short_run_is_not_autotuned(shared_run):
    written = yaml.safe_load((shared_run.path / "args.yaml").read_text())
    found = [written[name] for name in ("layout", "compile", "precision")]
    assert found == ["nhwc", "off", "fp32"]
    assert "tuning" not in shared_run.manifest
    assert set(shared_run.manifest["speed"]) == {"data", "compute", "optimizer"}


def test_the_result_is_recorded_and_cached(
    benchmarks_run, shared_folder, tmp_path, no_report
):
    run = train_recipe(settings(shared_folder), out=tmp_path / "run", quiet=True)
    written = yaml.safe_load((run.path / "args.yaml").read_text())
    found = [written[name] for name in ("layout", "compile", "precision")]
    assert found == ["nchw", "off", "bf16"]
    facts = read_json(run.path / "manifest.json")
    assert facts["tuning"] == {"nhwc fp32": 300, "nchw fp32": 200, "nchw bf16": 100}
    told = "execution: nchw bf16, 3.0 times as fast as nhwc fp32 on this machine"
    assert told in facts["notes"]
    assert facts["speed"]["mfu"] > 0
    again = train_recipe(settings(shared_folder), out=tmp_path / "again", quiet=True)
    assert len(benchmarks_run) == 1
    assert read_json(again.path / "manifest.json")["tuning"] == facts["tuning"]
    best = [run.path / "weights/best.safetensors" for run in (run, again)]
    assert best[0].read_bytes() == best[1].read_bytes()
    larger = replace(settings(shared_folder), batch_size=9)
    train_recipe(larger, out=tmp_path / "larger", quiet=True)
    assert len(benchmarks_run) == 2


def test_given_settings_are_not_autotuned(benchmarks_run, shared_folder):
    asked_for = {"layout": "nhwc", "compile": "off", "precision": "fp32"}
    recipe = settings(shared_folder, **asked_for)
    data = load_data(shared_folder)
    model = create_model("tutorial_gray", num_classes=2, image_size=8)
    tuned = autotune(model, data, recipe)
    assert (tuned.recipe, tuned.notes, benchmarks_run) == (recipe, [], [])


def test_a_resumed_run_keeps_its_execution(
    benchmarks_run, shared_folder, no_report, monkeypatch
):
    """To the byte, without a second measurement, also without the cache."""
    recipe = settings(shared_folder, cache="off")
    whole = train_recipe(recipe, out=Path("whole"), quiet=True)
    with pytest.MonkeyPatch.context() as patch:
        ask_before(3, patch)
        with pytest.raises(InterruptedRunError):
            train_recipe(recipe, out=Path("run"), quiet=True)
    before = len(benchmarks_run)
    monkeypatch.setattr(
        autotune_module,
        "choose_execution",
        lambda *words: pytest.fail("measured again"),
    )
    resumed = resume("run", quiet=True)
    assert before == 2
    assert resumed.manifest["exact"] == "yes"
    newest = [
        CheckpointStore(p / "weights/last").newest()[0]
        for p in (whole.path, resumed.path)
    ]
    assert newest[0].files == newest[1].files
    best = [p / "weights/best.safetensors" for p in (whole.path, resumed.path)]
    assert best[0].read_bytes() == best[1].read_bytes()


def test_another_layout_makes_a_resumed_run_inexact(shared_folder, no_report):
    recipe = settings(shared_folder)
    with pytest.MonkeyPatch.context() as patch:
        ask_before(3, patch)
        with pytest.raises(InterruptedRunError):
            train_recipe(recipe, out=Path("run"), quiet=True)
    resumed = resume("run", quiet=True, layout="nchw")
    assert resumed.manifest["exact"] == "no (layout: nhwc, now nchw)"


def test_unsupported_bf16_is_refused(refused, shared_folder, monkeypatch):
    monkeypatch.setattr(ways, "_has_bf16", lambda: False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    said = refused(shared_folder, "--precision", "bf16")
    assert "bf16 is unusable: this processor has no bf16 instructions" in said
    assert "--precision fp32" in said


def test_default_execution():
    assert recipe_execution(Recipe(data="digits")) == ExecutionConfig()
    way = recipe_execution(Recipe(data="digits", compile="on", precision="bf16"))
    assert way == ExecutionConfig(compiled=True, precision="bf16")


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"choices": 3}', '{"choices": {"k": 1}, "peaks": []}']
)
def test_a_damaged_cache_file_counts_as_empty(damage, tmp_path):
    path = tmp_path / "speed.json"
    path.write_text(damage)
    assert AutotuneCache(path).benchmark("k", lambda: HALF) == HALF
    assert (
        AutotuneCache(path).benchmark("k", lambda: pytest.fail("measured again"))
        == HALF
    )
    assert AutotuneCache(path).peak(torch.device("cpu"), "fp32", again=False) > 0


def test_a_cache_without_file_and_a_full_cache(tmp_path, monkeypatch):
    assert AutotuneCache(None).benchmark("k", lambda: HALF) == HALF
    monkeypatch.setattr(autotune_module, "MAX_RESULTS", 2)
    path = tmp_path / "speed.json"
    for key in "abc":
        AutotuneCache(path).benchmark(key, lambda: HALF)
    assert list(read_json(path)["choices"]) == ["c"]


def test_the_largest_peak_is_kept(tmp_path, monkeypatch):
    cpu, cache = torch.device("cpu"), AutotuneCache(tmp_path / "speed.json")
    found = []
    for measured in (5.0, 3.0, 8.0):
        monkeypatch.setattr(
            autotune_module, "measure_peak_flops", lambda *words, now=measured: now
        )
        found.append(cache.peak(cpu, "fp32", again=True))
    found.append(AutotuneCache(tmp_path / "speed.json").peak(cpu, "fp32", again=False))
    assert found == [5.0, 5.0, 8.0, 8.0]


def test_no_mfu_for_a_model_that_needs_real_values(
    benchmarks_run, shared_folder, monkeypatch
):
    def refuses(*words):
        raise GeometryError("no")

    data, recipe = load_data(shared_folder), settings(shared_folder)
    model = create_model("tutorial_gray", num_classes=2, image_size=8)
    assert make_laps(model, data, replace(recipe, precision="fp32"), True).macs[0] > 0
    monkeypatch.setattr(autotune_module, "audit", refuses)
    assert make_laps(model, data, recipe, True).peak_flops == 0.0


def test_the_progress_line_shows_mfu_and_bottleneck(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    moments = iter([0.0, 1.0, 2.0])
    stream, laps = Terminal(), ThroughputMeter(macs=1_000_000, peak_flops=1e9)
    words = {"clock": lambda: next(moments), "speed": laps.summary}
    with TrainingProgress(stream=stream, **words) as progress:
        progress.start(epochs=1, steps=10, images=320)
        for step in (1, 2, 3):
            progress.step(1, step, 0.5, 32 * step)
    assert "32 images/s · MFU 19 % · compute-bound" in stream.getvalue()
