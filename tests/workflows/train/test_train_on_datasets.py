"""Runs on torch Datasets: training, report, explanation, resume, and other names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import striate as st
from striate.core.errors import (
    DataError,
    InterruptedRunError,
    RunError,
    SettingError,
    StriateError,
)
from striate.data.cache import free_memory
from striate.data.torch_dataset.pixels import DatasetPixels
from striate.workflows.explain.explain import explain_images
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions
from support.stopped_runs import ask_before

BUNCH = load_digits(n_class=3)
PIXELS = np.rint(BUNCH.images * (255 / 16)).astype(np.uint8)
LABELS = torch.from_numpy(BUNCH.target)
SETTINGS = {"epochs": 3, "batch_size": 32, "lr": 0.05, "quiet": True}


class Digits(Dataset):
    """Digits as arrays, or as float tensors, which a random transform may change."""

    classes = ("zero", "one", "two")

    def __init__(self, rows, kind="array", noise=0.0):
        self.rows, self.kind, self.noise = list(rows), kind, noise
        self.draw = torch.Generator().manual_seed(1)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        if self.kind == "array":
            return PIXELS[row], int(LABELS[row])
        x = (torch.from_numpy(PIXELS[row])[None] / 255 - 0.3) / 0.4
        return x + self.noise * torch.randn(1, generator=self.draw), LABELS[row]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def splits(kind="array"):
    return [
        Digits(rows, kind) for rows in (range(300), range(300, 400), range(400, 537))
    ]


def digest(folder):
    names = "results.csv", "scores.json", "predictions_val.csv"
    weights = folder / "weights" / "best.safetensors"
    return [(folder / name).read_bytes() for name in names], weights.read_bytes()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return a run on 8-bit arrays and one on float tensors of the same images."""
    folder = tmp_path_factory.mktemp("runs")
    return {
        kind: st.train(network(), *splits(kind), out=folder / kind, **SETTINGS)
        for kind in ("array", "float")
    }


@pytest.mark.parametrize("kind", ["array", "float"])
def test_a_data_set_trains_like_loaded_images(runs, kind):
    run = runs[kind]
    train, val, test = splits(kind)
    data = st.load_data(train, val=val, test=test)
    again = st.train(network(), data, out="again", **SETTINGS)
    assert digest(run.path) == digest(again.path)
    assert run.labels.names == Digits.classes
    assert run.scores["test"]["count"] == 137
    assert run.scores["test"]["accuracy"] > 0.6
    assert run.manifest["data"]["splits"] == {"train": 300, "val": 100, "test": 137}
    assert "exact" not in run.manifest


def test_float_images_train_like_the_pixels_that_they_were_made_of(runs):
    """(v/255 − 0.3)/0.4 by striate or by the data set: equal to rounding."""
    train, val, test = splits()
    options = {"mean": [0.3], "std": [0.4]}
    data = st.load_data(train, val=val, test=test, **options)
    run = st.train(network(), data, out="again", **SETTINGS)
    assert run.scores["test"]["loss"] == pytest.approx(
        runs["float"].scores["test"]["loss"], rel=1e-3
    )


@pytest.mark.parametrize("kind", ["array", "float"])
def test_the_report_shows_the_images(runs, kind):
    html = (runs[kind].path / "report.html").read_text()
    assert "could not be read" not in html
    assert "Feature maps" in html
    assert html.count("data:image/png") > 20
    assert "Digits/test/" in html


def test_both_runs_show_the_same_images(runs):
    rows = [run.data.subset("test").pixels for run in runs.values()]
    from striate.data.cache.image_rows import display_rows

    visible = display_rows(rows[1], runs["float"].preprocess)
    assert torch.equal(visible[:], rows[0])


@pytest.mark.parametrize("kind", ["array", "float"])
def test_images_of_a_run_are_evaluated_explained_and_predicted(runs, kind, tmp_path):
    run = runs[kind]
    score = run.evaluate("test")
    assert score.accuracy == run.scores["test"]["accuracy"]
    assert run.evaluate(data=splits(kind)[2]).accuracy == score.accuracy
    name = run.predictions("test").paths[0]
    heatmap = st.explain(run, name, sanity_checks=False).heatmap
    x = run.predict_subset(run.data.subset("test")).probs[0]
    assert heatmap.shape == (8, 8)
    (prediction,) = st.predict(run, [name]).predictions
    assert prediction.image_path == name
    assert list(prediction.probs.values()) == pytest.approx(x.tolist(), abs=1e-5)
    loaded = LoadedModel(
        name=kind,
        model=run.model,
        preprocess=run.preprocess,
        labels=run.labels,
        run=run,
    )
    sections = "dataset", "invariance"
    page = explain_images(
        loaded, options=ExplainOptions(sections=sections), out=tmp_path / "page"
    )
    assert (page.folder / "report.html").is_file()


def test_an_opened_run_takes_its_data_again(runs):
    path = runs["float"].path
    train, val, test = splits("float")
    run = st.load_run(
        path, model=network(), data=st.load_data(train, val=val, test=test)
    )
    assert run.evaluate().accuracy == run.scores["test"]["accuracy"]
    with pytest.raises(RunError, match="in memory"):
        st.load_run(path, model=network()).evaluate()
    with pytest.raises(SettingError, match="data is a Digits, not loaded images"):
        st.load_run(path, model=network(), data=train)
    with pytest.raises(SettingError, match="data is a Digits, not loaded images"):
        st.resume(path, model=network(), data=train)


def test_files_are_predicted_only_by_networks_of_8_bit_images(runs, tmp_path):
    from PIL import Image

    file = tmp_path / "digit.png"
    Image.fromarray(PIXELS[401]).save(file)
    (prediction,) = st.predict(runs["array"], [file]).predictions
    assert prediction.probability > 0.3
    for command in (
        lambda: st.predict(runs["float"], [file]),
        lambda: st.explain(runs["float"], file),
    ):
        with pytest.raises(DataError, match="trained on float tensors"):
            command()
    with pytest.raises(DataError, match="no such file"):
        st.predict(runs["float"], ["Digits/test/999"])


def stop(*data, step, out="run", **settings):
    with pytest.MonkeyPatch.context() as patch:
        ask_before(step, patch)
        with pytest.raises(InterruptedRunError):
            st.train(network(), *data, out=out, **SETTINGS | settings)
    return Path(out)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["array", "float"])
def test_a_stopped_run_is_resumed_exactly(runs, kind, lazy, monkeypatch):
    if lazy:  # each image is read from the data set when it is needed
        monkeypatch.setattr(free_memory, "available_bytes", lambda: 5_000)
    folder = stop(*splits(kind), step=13)
    train, val, test = splits(kind)
    data = st.load_data(train, val=val, test=test)
    assert isinstance(data.subset("train").pixels, DatasetPixels) == lazy
    infos = []
    run = st.resume(
        folder, model=network(), data=data, quiet=True, on_resume=infos.append
    )
    assert infos[0].exact == "yes"
    assert infos[0].state.step == 13
    assert run.manifest["exact"] == "yes"
    assert digest(folder) == digest(runs[kind].path)


def test_a_run_on_other_images_is_not_exact():
    train, val, _ = splits()
    folder = stop(train, val, step=3)
    train.rows[5] = 500
    data = st.load_data(train, val=val)
    run = st.resume(folder, model=network(), data=data, quiet=True)
    assert "images" in run.manifest["exact"]


RANDOM = "the data set returns another image at each read"


def test_a_run_on_random_images_is_not_exact():
    def data():
        return Digits(range(300), "float", noise=0.1), splits("float")[1]

    folder = stop(*data(), step=13)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert any(note.startswith(RANDOM) for note in manifest["notes"])
    train, val = data()
    loaded = st.load_data(train, val=val)
    infos = []
    run = st.resume(
        folder, model=network(), data=loaded, quiet=True, on_resume=infos.append
    )
    assert infos[0].exact == f"no ({RANDOM})"
    assert run.manifest["exact"] == f"no ({RANDOM})"
    assert run.scores["val"]["accuracy"] > 0.5
    whole = st.train(network(), *data(), out="whole", **SETTINGS)
    assert whole.manifest["exact"] == f"no ({RANDOM})"


class Stream(IterableDataset):
    def __iter__(self):
        yield from (Digits(range(300), "float")[i] for i in range(300))


def test_a_loader_read_once_is_not_exact():
    loader = DataLoader(Stream(), batch_size=50)
    run = st.train(
        network(), loader, splits("float")[1], out="run", epochs=1, quiet=True
    )
    assert run.manifest["exact"].startswith("no (a data loader with its own order")
    assert run.recipe.batch_size == 50
    assert "read once, 300 images" in run.manifest["notes"][0]
    assert (run.path / "report.html").is_file()


def test_the_batch_size_of_a_loader_is_used():
    loader = DataLoader(splits()[0], batch_size=40, shuffle=True, num_workers=2)
    settings = {"epochs": 1, "quiet": True}
    run = st.train(network(), loader, splits()[1], out="a", **settings)
    assert run.recipe.batch_size == 40
    assert "batch size 40, 2 worker processes" in run.manifest["notes"][0]
    run = st.train(network(), loader, splits()[1], out="b", batch_size=30, **settings)
    assert run.recipe.batch_size == 30


def test_one_data_set_is_split_and_its_seed_is_that_of_the_run():
    run = st.train(network(), Digits(range(537)), out="a", epochs=1, seed=3, quiet=True)
    assert list(run.data.subsets) == ["train", "val", "test"]
    data = st.load_data(Digits(range(537)), seed=3)
    assert [r.split for r in data.rows] == [r.split for r in run.data.rows]


def test_bad_data_makes_no_run_folder():
    bad = TensorDataset(torch.zeros(9, 1, 8, 8), torch.zeros(9))
    for data in ((bad,), (splits()[0], bad), (Digits([]),)):
        with pytest.raises(StriateError):
            st.train(network(), *data, out="run", **SETTINGS)
    with pytest.raises(SettingError, match="does not match 3 classes"):
        st.train(nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), *splits(), out="run")
    with pytest.raises(SettingError, match="must be set when images are loaded"):
        st.train(network(), *splits(), image_size=9)
    unread = [None] * 9  # its items would fail
    with pytest.raises(SettingError, match="epochs"):
        st.train(network(), unread, out="run", epochs=-1)
    assert not Path("run").exists()
