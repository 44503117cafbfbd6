"""A run from beginning to end: the folder, its truths, its ends before time."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import (
    DataError,
    GeometryError,
    NonFiniteError,
    RunError,
    SettingError,
    StorageError,
    UnknownNameError,
    WeightsError,
)
from striate.core.files import read_csv, read_json
from striate.data.decode.preprocess import normalize
from striate.engine.weights_io import read_weights
from striate.run import layout as names
from striate.run.build_from_recipe import split_batches
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.run import Run
from striate.workflows.predict.predict import predict
from striate.workflows.train import run_job
from support.images import encoded, pil_image, stripes, write_folder

FILES = {
    "args.yaml",
    "calibration.json",
    "classes.json",
    "events.jsonl",
    "manifest.json",
    "predictions_test.csv",
    "predictions_val.csv",
    "preprocess.json",
    "quarantine.csv",
    "report.html",
    "results.csv",
    "scores.json",
    "split.csv",
    "timing.csv",
    "plots/accuracy.png",
    "plots/confusion.png",
    "plots/loss.png",
    "weights/best.safetensors",
    "weights/first_layer_initial.safetensors",
    "weights/last/LATEST",
    "weights/last/{end}/MANIFEST.json",
    "weights/last/{end}/best.safetensors",
    "weights/last/{end}/model.safetensors",
    "weights/last/{end}/optimizer.safetensors",
    "weights/last/{end}/state.json",
}


def files_of(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def quick(data, out="run", **settings):
    chosen = {"epochs": 2, "batch_size": 8, **settings}
    return st.train_recipe(Recipe(data=str(data), **chosen), out=Path(out), quiet=True)


# --- the folder


def test_the_folder_is_complete_and_holds_no_leftovers(shared_run):
    # The checkpoint of the beginning and that of the end: two sound ones are kept.
    begin, end = "step-00000000-epoch-0000", "step-00000012-epoch-0004"
    files = (
        "MANIFEST.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
    )
    expected = {name.format(end=end) for name in FILES}
    expected |= {f"weights/last/{begin}/{name}" for name in files}
    assert files_of(shared_run.path) == expected
    assert (shared_run.path / "weights/last/LATEST").read_text() == f"{end}\n"
    manifest = shared_run.manifest
    assert (manifest["status"], manifest["epochs"]) == ("done", 4)
    facts = manifest["data"]
    assert (
        facts["seen"] == facts["used"] + facts["quarantined"] + facts["ignored"] == 40
    )
    assert set(manifest["versions"]) >= {"python", "striate", "torch", "numpy"}
    assert len(shared_run.history) == 4
    lines = (shared_run.path / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    steps = -(-len(shared_run.data.subset("train")) // 8)
    assert [e["step"] for e in events] == list(range(4 * steps))
    assert {row["split"] for row in read_csv(shared_run.path / "split.csv")} == {
        "train",
        "val",
        "test",
    }


def test_it_learned(shared_run):
    assert shared_run.scores["test"]["accuracy"] > 0.9
    low, high = shared_run.scores["test"]["interval"]
    assert 0 < low < high <= 1


def test_what_a_run_says_again(shared_run):
    again = st.load_run(shared_run.path)
    assert repr(again) == f"Run('{shared_run.path}')"
    assert again.evaluate().accuracy == shared_run.scores["test"]["accuracy"]
    assert again.evaluate("val").accuracy == shared_run.scores["val"]["accuracy"]
    assert again.evaluated_split == "test"
    worst = again.top_losses(3)
    assert [w["loss"] for w in worst] == sorted(
        (w["loss"] for w in worst), reverse=True
    )
    assert set(worst[0]) == {"image_path", "true", "pred", "probability", "loss"}
    assert len(again.most_confused()) <= 2
    with pytest.raises(RunError, match="the train split was not evaluated") as caught:
        again.predictions("train")
    assert "predictions_test, predictions_val" in caught.value.what


def test_most_confused(shared_run, tmp_path):
    shutil.copytree(shared_run.path, tmp_path / "copy")
    path = tmp_path / "copy/predictions_test.csv"
    lines = path.read_text().splitlines()
    cells = lines[1].split(",")
    p = dict(zip(lines[0].split(","), range(9), strict=False))
    cells[p["p_across"]], cells[p["p_down"]] = "0.1", "0.9"
    cells[p["true"]] = "across"
    path.write_text("\n".join([lines[0], ",".join(cells), ""]))
    assert Run(tmp_path / "copy").most_confused() == [("across", "down", 1)]


def test_predictions_of_validation_are_those_of_the_weights(shared_run):
    said = shared_run.predictions("val")
    fresh = Run(shared_run.path).predict_subset(shared_run.data.subset("val"))
    assert said.paths == fresh.paths
    assert np.allclose(said.probs, fresh.probs, atol=1e-7)
    assert np.allclose(said.losses, fresh.losses, rtol=1e-5, atol=1e-7)
    assert (said.predicted == fresh.predicted).all()


def test_large_images_are_judged_few_at_a_time(shared_run, monkeypatch):
    """Fewer of them make no other answer, wherever a run judges."""
    monkeypatch.setattr("striate.interpret.activations_at.MAX_PIXELS", 3 * 8 * 8 + 7)
    fresh = write_folder(Path("fresh"), count=3, seed=9)
    run, seen = Run(shared_run.path), []
    run.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    said, written = run.predict_subset(run.data.subset("val")), run.predictions("val")
    np.testing.assert_allclose(said.probs, written.probs, atol=1e-6)
    assert len(predict(run, [fresh]).predictions) > 3
    assert max(seen) <= 4  # three, and one left over
    cpu = torch.device("cpu")
    assert split_batches("val", run.data, run.recipe, cpu).batch_size == 3
    assert split_batches("train", run.data, run.recipe, cpu).batch_size == 8


@pytest.mark.parametrize("sides", [(28, 28), (32, 32), (64, 64)])
def test_small_images_are_judged_256_at_a_time(sides):
    assert evaluation_batch_size(*sides) == 256


# --- one answer everywhere


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_predict_sees_what_validation_saw_to_the_bit(tmp_path, resize, channels):
    """Same files through training's path and through predict's: the same tensor."""
    root = tmp_path / "photos"
    write_folder(root, size=(23, 31), count=6, channels=channels)
    write_folder(root, ("across", "down"), 4, (17, 16), channels, ".jpg", seed=1)
    run = quick(root, resize=resize, image_size=(13, 18), epochs=1)
    subset = run.data.subset("val")
    read = run.image_predictor.read_input
    inputs = torch.stack([read(root / path) for path in subset.paths])
    assert torch.equal(inputs, subset.pixels)
    assert torch.equal(
        normalize(inputs, run.preprocess), normalize(subset.pixels, run.preprocess)
    )
    answers = predict(run, [root / path for path in subset.paths])
    said = run.predictions("val")
    for i, one in enumerate(answers.predictions):
        assert one.pred == run.labels[int(said.predicted[i])]
        mine = [one.probs[name] for name in run.labels.names]
        assert np.allclose(mine, said.probs[i], atol=5e-7)
        assert one.probability == max(mine)


def test_color_through_a_gray_network(tmp_path):
    root = write_folder(tmp_path / "photos", channels=3)
    run = quick(root, in_chans=1, epochs=1)
    subset = run.data.subset("val")
    read = run.image_predictor.read_input
    inputs = torch.stack([read(root / path) for path in subset.paths])
    assert torch.equal(inputs, subset.pixels)


# --- same seed, same run


def seconds_apart(path):
    """A CSV's rows without its clock."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_csv(path)]


def test_one_seed_one_result(shared_folder):
    runs = [
        quick(shared_folder, f"run{i}", seed=s, val_fraction=0.3)
        for i, s in enumerate((7, 7, 8))
    ]
    best = [(run.path / names.BEST).read_bytes() for run in runs]
    assert best[0] == best[1] != best[2]
    rows = [seconds_apart(run.path / names.RESULTS) for run in runs]
    assert rows[0] == rows[1] != rows[2]
    same = ("predictions_val.csv", "predictions_test.csv", "split.csv", "scores.json")
    for name in same:
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes()
    assert runs[0].manifest["data"]["hash"] == runs[1].manifest["data"]["hash"]
    assert runs[0].manifest["data"]["hash"] != runs[2].manifest["data"]["hash"]


def test_dropout_belongs_to_the_seed_too(tmp_path):
    root = write_folder(tmp_path / "photos", channels=3)
    runs = []
    for i in range(2):
        torch.manual_seed(i)
        runs.append(quick(root, f"run{i}", epochs=1))
    assert runs[0].recipe.model == "tutorial_color"
    best = [(run.path / names.BEST).read_bytes() for run in runs]
    assert best[0] == best[1]


def test_early_stopping_in_a_run(shared_folder):
    run = quick(shared_folder, epochs=60, patience=2, lr=0.03)
    assert len(run.history) < 60
    best = max(i for i, row in enumerate(run.history) if row["best"])
    assert len(run.history) == best + 3
    assert run.manifest["best_epoch"] == best + 1


# --- networks of the user's own


class Mine(nn.Module):
    """A plain module without a convolution."""

    def __init__(self, classes=2):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.dense = nn.Linear(64, classes)

    def forward(self, x):
        return self.dense(self.scale * x.flatten(1))


def test_a_plain_module_goes_in_and_comes_out(shared_folder):
    data = st.load_data(shared_folder)
    model = Mine()
    run = st.train(model, data, epochs=2, out="run", quiet=True)
    assert run.model is model
    assert run.recipe.model.endswith("test_run.Mine")
    assert "first_layer_initial" not in str(files_of(run.path))
    again = st.load_run(run.path, model=Mine())
    assert again.evaluate().accuracy == run.scores["test"]["accuracy"]
    with pytest.raises(RunError, match="the model is a Python object") as caught:
        st.load_run(run.path).model  # noqa: B018 - asking is what fails
    assert "striate.load_run(path, model=...)" in str(caught.value)
    with pytest.raises(WeightsError, match=r"dense\.bias: shape 2, the network has 3"):
        st.load_run(run.path, model=Mine(3)).model  # noqa: B018


def test_a_module_that_does_not_fit(shared_folder):
    data = st.load_data(shared_folder)
    with pytest.raises(
        SettingError, match=r"model output \(5,\) does not match 2 classes"
    ) as c:
        st.train(Mine(5), data, quiet=True)
    assert "build the model with num_classes=2" in str(c.value)
    narrow = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    narrow.train()
    with pytest.raises(GeometryError, match="fails on images of 8×8×1") as caught:
        st.train(narrow, data, quiet=True)
    assert "change --image-size or --in-chans" in str(caught.value)
    assert narrow.training
    with pytest.raises(UnknownNameError, match="did you mean epochs"):
        st.train(Mine(), data, epoch=3)
    assert not Path("runs").exists()


def test_a_run_without_a_test_split(tmp_path):
    root = write_folder(tmp_path / "photos", count=20)
    run = quick(root, test_fraction=0)
    assert "predictions_test.csv" not in files_of(run.path)
    assert run.evaluated_split == "val"
    assert set(run.scores) == {"val"}
    assert "validation results are optimistic" in (run.path / names.REPORT).read_text()


# --- the images have moved


def test_report_without_its_images(tmp_path):
    root = write_folder(tmp_path / "photos")
    run = quick(root)
    root.rename(tmp_path / "moved")
    again = Run(run.path)
    assert "could not be read" in write_report(again).read_text()
    with pytest.raises(DataError, match="the images of the run are no longer at"):
        Run(run.path).evaluate()


def test_report_from_another_folder(tmp_path, monkeypatch):
    write_folder(tmp_path / "photos")
    run = quick("photos", "run")
    path = run.path.resolve()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    text = write_report(Run(path)).read_text()
    assert "could not be read" not in text


# --- refusals at work


def test_a_run_that_is_none():
    with pytest.raises(RunError, match="the run folder does not exist"):
        Run("nowhere")


def test_a_misspelt_run(shared_folder):
    quick(shared_folder, "runs/train/stripes-lenet", epochs=1)
    with pytest.raises(RunError) as caught:
        Run("stripes-lenets")
    assert "did you mean stripes-lenet" in str(caught.value)
    assert Run("stripes-lenet").path == Path("runs/train/stripes-lenet")


@pytest.mark.parametrize("name", ["manifest.json", "results.csv", "best.safetensors"])
def test_a_full_disk_while_saving(shared_folder, tmp_path, monkeypatch, name):
    """From the second epoch on nothing can be written: one message, the first error,
    the first epoch's weights whole and loadable, no temporary file."""
    if name == "results.csv":
        _fill_results(monkeypatch)
    else:
        _fill_replace(monkeypatch, name)
    with pytest.raises(StorageError) as caught:
        quick(shared_folder, epochs=3, lr=0.002)
    assert caught.value.what.startswith(f"could not save {name}: the disk is full")
    assert " bytes needed, " in caught.value.what
    assert " free)" in caught.value.what
    assert "free some space or choose another --out" in str(caught.value)
    run = tmp_path / "run"
    assert not [f for f in files_of(run) if Path(f).name.startswith(".")]
    assert "(0 bytes" not in caught.value.what
    found = list(run.rglob("*.safetensors"))
    assert len(found) >= 1
    for weights in found:
        read_weights(weights)
    status = read_json(run / names.MANIFEST)["status"]
    assert status == ("stopped" if name == "results.csv" else "running")


def _fill_replace(monkeypatch, name):
    """From the second write of `name` on, the disk takes nothing at all."""
    replace, met = os.replace, []

    def full(source, target):
        met.append(str(target).endswith(name))
        if sum(met) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)


def _fill_results(monkeypatch):
    """After the header the disk takes no more of results.csv."""
    write, met = os.write, []

    def full(handle, payload):
        met.append(os.readlink(f"/proc/self/fd/{handle}").endswith("results.csv"))
        if sum(met) >= 2 and met[-1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(handle, payload)

    monkeypatch.setattr(os, "write", full)


def test_a_run_that_blows_up_keeps_its_good_weights(shared_folder, tmp_path):
    with pytest.raises(NonFiniteError) as caught:
        quick(shared_folder, optimizer="sgd", lr=1e9, epochs=5, schedule="constant")
    assert caught.value.where.startswith("epoch ")
    assert caught.value.exit_code == 1
    manifest = read_json(tmp_path / "run/manifest.json")
    assert manifest["status"] == "stopped"
    assert "loss became" in manifest["reason"]
    for path in (tmp_path / "run").rglob("*.safetensors"):
        assert all(t.isfinite().all() for t in read_weights(path).values())


def test_an_unforeseen_error_leaves_a_stopped_run(shared_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(run_job, "fit_job", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        quick(shared_folder)
    manifest = read_json(tmp_path / "run/manifest.json")
    assert manifest["status"] == "stopped"
    assert "ZeroDivisionError" in manifest["reason"]


def test_arrays_and_files_agree(tmp_path):
    """A set held as arrays, saved as PNG files, predicts the same."""
    pixels = np.stack([stripes(i % 2, i, 9, 11) for i in range(24)])
    source = st.from_arrays("toy", pixels, ["ab"[i % 2] for i in range(24)])
    data = st.load_data(source, image_size=(16, 16), exact=True)
    run = st.train(
        st.create_model("tutorial_gray", num_classes=2, in_chans=1, image_size=16),
        data,
        epochs=1,
        out="run",
        quiet=True,
    )
    for i in range(24):
        (tmp_path / f"{i:02d}.png").write_bytes(encoded(pil_image(pixels[i])))
    subset = data.subset("val")
    read = run.image_predictor.read_input
    inputs = [read(tmp_path / f"{p[-2:]}.png") for p in subset.paths]
    assert torch.equal(torch.stack(inputs), subset.pixels)


def test_a_run_of_images_in_memory():
    """They lie nowhere, so a run read back must be handed them again."""
    pixels = np.stack([stripes(i % 2, i) for i in range(24)])
    data = st.load_data(st.from_arrays("toy", pixels, ["ab"[i % 2] for i in range(24)]))
    run = st.train(Mine(), data, epochs=1, out="run", quiet=True)
    again = st.load_run(run.path, model=Mine())
    with pytest.raises(RunError, match="trained on arrays in memory"):
        again.evaluate()
