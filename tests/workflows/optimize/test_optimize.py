"""`striate optimize`: the race, the choice of a variant, bad input."""

import json
import random
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import DataError, RunError, SettingError, UnknownNameError
from striate.exporters import race
from striate.exporters.ort_session import onnx_session
from striate.metrics.paired import PairedCounts
from striate.workflows.optimize import engines, measure, optimize
from striate.workflows.optimize.choose import Variant, choose_variant, is_faster
from striate.workflows.optimize.findings import choice_sentences
from striate.workflows.optimize.options import OptimizeOptions, parse_budget

GOALS = ("latency", "size", "both")


def counts(images=1000, gained=0, lost=0):
    both = images - gained - lost
    return PairedCounts(both=both, gained=gained, lost=lost, neither=0)


def variant(engine="onnxruntime", precision="int8", **changes):
    values = {
        "seconds": (0.5,) * 9,
        "size": 250,
        "pair": counts(),
        "exact": precision == "fp32",
    }
    return Variant(engine=engine, precision=precision, **{**values, **changes})


PYTORCH = variant("pytorch", "fp32", seconds=(1.0,) * 9, size=1000)


def planted(number):
    """Random measurements: variants that are slower, larger or worse, in any mix."""
    draw = random.Random(number)
    variants = [PYTORCH]
    for engine in ("pytorch_channels_last", "onnxruntime", "openvino"):
        for precision in ("fp32", "int8"):
            middle = draw.choice([0.3, 0.8, 0.97, 1.0, 1.02, 2.0])
            noise = draw.choice([0.0, 0.02, 0.4])
            seconds = tuple(
                middle * draw.uniform(1 - noise, 1 + noise) for _ in "9" * 9
            )
            lost = draw.choice([0, 0, 1, 4, 40])
            variants.append(
                variant(
                    engine,
                    precision,
                    seconds=seconds,
                    size=draw.choice([250, 900, 980, 1000, 1100]),
                    pair=counts(
                        draw.choice([100, 1000, 5000]), draw.choice([0, 2]), lost
                    ),
                    exact=precision == "fp32" and draw.random() < 0.8,
                )
            )
    return variants


@pytest.mark.parametrize("goal", GOALS)
def test_a_slower_or_worse_variant_is_never_recommended(goal):
    recommended = set()
    for number in range(100):
        variants = planted(number)
        choice = choose_variant(variants, goal, max_drop=0.5)
        best = choice.best
        recommended.add(best.name)
        assert best is PYTORCH or best.exact or 100 * best.most_lost <= 0.5
        if best is PYTORCH or best is choice.fp32:
            assert best is PYTORCH or is_faster(best, PYTORCH)
            continue
        if goal != "size":
            assert best.time < choice.fp32.time <= PYTORCH.time
        if goal != "latency":
            assert best.size < PYTORCH.size
    assert len(recommended) > 3


def test_int8_must_beat_the_fastest_exact_engine():
    exact = variant("openvino", "fp32", seconds=(0.5,) * 9)
    slow = choose_variant(
        [PYTORCH, exact, variant(seconds=(0.49,) * 9)], "latency", 0.5
    )
    assert slow.best is exact
    assert slow.rejected == {"onnxruntime int8": "time"}
    fast = variant(seconds=(0.3,) * 9)
    assert choose_variant([PYTORCH, exact, fast], "latency", 0.5).best is fast


def test_few_images_prove_nothing():
    few = variant(seconds=(0.1,) * 9, pair=counts(100))
    choice = choose_variant([PYTORCH, few], "latency", 0.5)
    assert choice.best is PYTORCH
    assert choice.rejected == {few.name: "accuracy"}
    text = " ".join(
        block.text
        for block in choice_sentences(choice, [PYTORCH, few], OptimizeOptions())
    )
    assert "100 validation images" in text
    assert "765 images" in text
    assert choose_variant([PYTORCH, few], "latency", 5.0).best is few


def test_a_large_loss_is_refused_with_many_images():
    worse = variant(seconds=(0.1,) * 9, pair=counts(10_000, lost=100))
    choice = choose_variant([PYTORCH, worse], "both", 0.5)
    assert choice.best is PYTORCH
    assert choice.pareto == (PYTORCH.name, worse.name)


def test_one_slow_round_of_nine_changes_nothing():
    seconds = (0.5,) * 8 + (3.0,)
    assert is_faster(variant(seconds=seconds), PYTORCH)
    assert not is_faster(variant(seconds=(0.5,) * 7 + (3.0, 3.0)), PYTORCH)


def test_budgets_as_text():
    assert parse_budget("90 s") == 90
    assert parse_budget("30min") == 1800
    for wrong in ("", "30", "1d", "-5m", "nan s"):
        with pytest.raises(SettingError, match="is not a time"):
            parse_budget(wrong)


def _missing_openvino():
    raise SettingError("missing", fix='pip install "striate[openvino]"')


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(measure, "cpu_count", lambda: 1)
    monkeypatch.setattr(race, "MIN_SECONDS", 0.0)  # one call in a round
    monkeypatch.setattr(engines, "import_openvino", _missing_openvino)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_race_of_a_run(shared_run, tmp_path, monkeypatch, striate):
    pytest.importorskip("openvino")
    monkeypatch.setattr(measure, "THREADS_MATTER", 0.0)
    monkeypatch.setattr(measure, "cpu_count", lambda: 2)
    monkeypatch.setattr(race, "MIN_SECONDS", 0.0)
    out = tmp_path / "out"
    done = striate("optimize", shared_run.path, "--out", out, "--max-drop", "100")
    assert done.code == 0, done.err
    assert "Recommended: " in done.out
    for title in ("PyTorch, channels_last", "ONNX Runtime", "OpenVINO", "2 threads"):
        assert title in done.out
    record = json.loads((out / "race.json").read_text())
    assert [(v["engine"], v["precision"]) for v in record["variants"]] == [
        ("pytorch", "fp32"),
        ("pytorch_channels_last", "fp32"),
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
    ]
    exact = [v["exact"] for v in record["variants"]]
    assert exact == [True, True, True, True, False, False]
    settings = [(t["batch"], t["threads"]) for t in record["variants"][0]["times"]]
    assert settings == [(1, 1), (16, 1), (1, 2), (16, 2)]
    assert record["weights_sha256"]
    assert record["machine"]["processor"]
    assert record["versions"]["onnxruntime"]
    file = out / record["recommended"]["file"]  # one of the faster engines, in any case
    assert f"written  {file}" in done.out
    images = shared_run.data.subset("val").pixels.numpy()
    answers = onnx_session(file.read_bytes()).run(None, {"resized": images})[0]
    assert answers.shape == (len(images), 2)
    before = file.read_bytes()
    again = striate("optimize", shared_run.path, "--out", out)
    assert again.code == 2
    assert "exists" in again.err
    assert file.read_bytes() == before


def test_a_lossy_variant_is_not_written(shared_run, tmp_path, one_core):
    result = st.optimize(shared_run, tmp_path / "out", methods=("int8",))
    assert {v.precision for v in result.variants[2:]} == {"int8"}
    assert result.best.exact
    assert [path.name for path in result.paths] == ["race.json"]
    assert set(result.choice.rejected.values()) == {"accuracy"}
    assert len(result.table().rows) == len(result.variants)


def test_smaller_files(shared_run, tmp_path, one_core, striate):
    words = ("--out", tmp_path / "out", "--goal", "both", "--max-drop", "100", "--json")
    done = striate("optimize", shared_run.path, *words, "--methods", "engine,int8")
    best = done.json["recommended"]
    rejected = {v["rejected"] for v in done.json["variants"]}
    assert best["file"] is None or best["precision"] in ("fp32", "int8")
    assert rejected <= {"", "time", "size"}
    facts = done.json["quantization"]
    assert 0 < facts["images"] <= 300
    assert len(facts["sha256"]) == 64


class Sorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(2).sort(dim=2).values[:, :, 0])


def test_a_network_without_export_runs_in_pytorch_only(tmp_path, one_core):
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (40, 8, 8), np.uint8)
    data = st.load_data(st.from_arrays("noise", images, ["a", "b"] * 20))
    run = st.train(Sorted(), data, epochs=1, out=tmp_path / "run", quiet=True)
    result = st.optimize(run)
    assert [v.engine for v in result.variants] == ["pytorch", "pytorch_channels_last"]
    assert "Only PyTorch can run this network" in result.notes[0]
    assert "sort" in result.notes[0]
    assert result.paths == (tmp_path / "run" / "optimized" / "race.json",)


# --- bad input ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_drop": -0.1}, "0–100"),
        ({"max_drop": float("nan")}, "0–100"),
        ({"goal": "speed"}, "latency"),
        ({"methods": ("int4",)}, "int8"),
        ({"methods": ()}, "no method"),
        ({"budget": 0}, "above 0"),
        ({"budget": float("inf")}, "above 0"),
        ({"budget": 0.5}, r"one race takes about \d"),
    ],
)
def test_wrong_settings(shared_run, tmp_path, settings, words):
    with pytest.raises((SettingError, UnknownNameError), match=words):
        st.optimize(shared_run, tmp_path / "out", **settings)
    assert list(tmp_path.iterdir()) == []


def test_the_message_of_a_small_budget_says_what_is_needed(shared_run, striate):
    done = striate("optimize", shared_run.path, "--budget", "1s")
    assert done.code == 2
    assert "use --budget" in done.err


def test_an_unfinished_run(shared_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(shared_run.path, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    with pytest.raises(RunError, match="not finished"):
        st.optimize(folder)
    assert not (folder / "optimized").exists()


def test_a_missing_package_names_the_extra(shared_run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingError, match=r"striate\[export\]"):
        st.optimize(shared_run, tmp_path / "out")


def test_without_openvino_the_others_race(shared_run, tmp_path, monkeypatch, one_core):
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = st.optimize(shared_run, tmp_path / "out", methods=("engine",))
    assert [v.engine for v in result.variants][2:] == ["onnxruntime"]
    assert "striate[openvino]" in result.notes[0]
    assert onnx.load(result.paths[0]).opset_import[0].version == 18


def test_the_output_folder_is_a_file(shared_run, tmp_path):
    path = tmp_path / "mine"
    path.write_text("mine")
    with pytest.raises(SettingError, match="is a file"):
        st.optimize(shared_run, path)
    assert path.read_text() == "mine"


def test_a_run_without_validation_images(shared_run, tmp_path, monkeypatch):
    run = st.load_run(shared_run.path)
    monkeypatch.delitem(run.data.subsets, "val")
    with pytest.raises(DataError, match="no val split"):
        st.optimize(run, tmp_path / "out")


def test_a_small_budget_skips_settings_and_images(shared_run, monkeypatch):
    notes = optimize._budget_notes(["16 images, 2 threads"], 100, 5000)
    assert notes == [
        "The time budget left no time for: 16 images, 2 threads.",
        "The time budget left time for 100 of the 5,000 validation images.",
    ]


def test_the_threads_of_pytorch_are_as_before(shared_run, tmp_path, one_core):
    before = torch.get_num_threads()
    st.optimize(shared_run, tmp_path / "out", methods=("engine",))
    assert torch.get_num_threads() == before
