"""Uneven classes and odd batches: told with figures, judged alike, never a crash.

Checked by removal: without `check_batch` torch stops with "Expected more than 1 value
per channel"; without the balanced judgement the last epoch that forgets the rare class
is kept; with torch's own class weights the tests of `engine.loss` go red.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import DataError, SettingError
from striate.core.files import read_csv, read_json
from striate.data.load import load_data
from striate.engine.training_loop import FitConfig, fit
from striate.metrics import classification as metrics
from striate.run import predictions as predictions_module
from striate.run.build_from_recipe import last_batch_notes
from striate.workflows.train.train import train_recipe
from support.images import stripes, write_folder


def uneven(*counts):
    """Return classes a, b, … with so many striped images, in memory."""
    pixels = [
        stripes(k, 100_000 * k + i) for k, n in enumerate(counts) for i in range(n)
    ]
    labels = ["abcdefgh"[k] for k, n in enumerate(counts) for _ in range(n)]
    return st.from_arrays("uneven", np.stack(pixels), labels)


class Small(nn.Sequential):
    def __init__(self, classes=2, norm=False):
        layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
        extra = [nn.BatchNorm2d(4)] if norm else []
        super().__init__(*layers, *extra, nn.Flatten(), nn.Linear(4, classes))


# --- few images, few classes, many classes


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((30,), "only one class ('a'): a classifier needs at least two"),
        ((30, 1), "classes with only one image (1 of 2): 'b'"),
        ((30, 0), "only one class"),
    ],
)
def test_too_few_images_are_refused(counts, message):
    with pytest.raises(DataError) as caught:
        load_data(uneven(*counts))
    assert message in str(caught.value)


def test_an_empty_class_is_listed(tmp_path, striate):
    root = write_folder(tmp_path / "photos", count=20)
    (root / "empty").mkdir()
    said = striate("train", root, "--epochs", "1", "--out", "run", "--json")
    assert said.code == 0
    rows = read_csv(Path("run/quarantine.csv"))
    assert ("empty", "empty-class-folder") in [
        (r["image_path"], r["reason"]) for r in rows
    ]
    assert read_json(Path("run/classes.json")) == ["across", "down"]


def test_a_class_of_two_images(tmp_path):
    """By hash, the class would lack training or validation images in most splits."""
    root = write_folder(tmp_path / "photos", count=30)
    write_folder(root, ("rare",), count=2, seed=3)
    for seed in range(4):
        data = load_data(root, seed=seed)
        rare = sorted(row.split for row in data.rows if row.label == "rare")
        assert rare == ["train", "val"]
        text = "test has no images of 1 of 3 classes (not evaluated): rare (2)"
        assert text in data.warnings


@pytest.mark.charts
def test_many_classes(monkeypatch):
    """As 10,000 classes go, with the limits drawn in; those themselves run nightly."""
    monkeypatch.setattr(predictions_module, "MAX_PROBABILITY_COLUMNS", 20)
    monkeypatch.setattr(metrics, "MAX_MATRIX_CLASSES", 20)
    check_many_classes(60)


@pytest.mark.slow
@pytest.mark.charts
def test_ten_thousand_classes():
    check_many_classes(10_000)


def check_many_classes(count):
    pixels = np.random.default_rng(0).integers(0, 256, (3 * count, 8, 8), np.uint8)
    labels = [f"k{i // 3}" for i in range(3 * count)]
    source = st.from_arrays("many", pixels, labels)
    data = load_data(source, exact=True)
    assert f"{count:,} classes have fewer than 10 training images" in data.warnings[0]
    run = st.train(Small(count), data, epochs=1, batch_size=64, out="many", quiet=True)
    score = run.scores["test"]
    assert (score["count"], len(score["classes"]), score["confusion"]) == (
        count,
        count,
        [],
    )
    assert sum(n for *_, n in score["confused_pairs"]) == round(
        (1 - score["accuracy"]) * count
    )
    kept, fresh = run.predictions("test"), run.predict_subset(data.subset("test"))
    assert (kept.predicted == fresh.predicted).all()
    assert np.allclose(kept.probs.max(1), fresh.probs.max(1), rtol=1e-5)
    assert (np.count_nonzero(kept.probs, 1) == predictions_module.TOP_K).all()
    row = read_csv(run.path / "predictions_test.csv")[0]
    assert list(row) == ["image_path", "true", "pred", "top", "loss"]
    assert row["pred"] in json.loads(row["top"])
    page = (run.path / "report.html").read_text()
    assert "Most frequent errors (test split)" in page
    assert len(page) < 2_000_000
    assert not (run.path / "plots/confusion.png").exists()


# --- a thousand to one


def test_an_imbalance_of_a_thousand_to_one(striate, capsys):
    data = load_data(uneven(2000, 16), seed=1, exact=True)
    (told,) = data.warnings
    assert "imbalanced classes (120:1): a has 1,200 training images, b 10" in told
    thousand = load_data(uneven(4000, 4), exact=True)
    assert "(1,200:1): a has 2,400 training images, b 2" in thousand.warnings[-1]
    for weights in ("none", "auto"):
        run = st.train(
            Small(), thousand, epochs=1, class_weights=weights, out=weights, quiet=True
        )
        score = run.scores["test"]
        assert {"balanced_accuracy", "balanced_interval", "classes"} <= score.keys()
        assert score["classes"][1]["recall_interval"][1] > 0.5
        assert run.recipe.class_weights == weights
        page = (run.path / "report.html").read_text()
        assert "balanced accuracy" in page
        assert "1,200:1" in page


@pytest.mark.parametrize("weights", ["auto", "loss", "sampling"])
def test_class_weights_find_the_rare_class(weights):
    """Three rare images among a hundred: without weights, `a` is always predicted."""
    data = load_data(uneven(600, 18), exact=True, seed=3)

    def recall(switch):
        torch.manual_seed(0)
        settings = {"epochs": 4, "lr": 0.02, "batch_size": 32, "out": switch}
        run = st.train(Small(), data, class_weights=switch, quiet=True, **settings)
        return run.evaluate("train")

    plain, evened = recall("none"), recall(weights)
    assert plain.classes[1].recall == 0
    assert plain.accuracy > 0.95
    assert evened.balanced_accuracy > plain.balanced_accuracy + 0.2


class Scripted:
    """A batch an epoch, before which the weights are set to the next of a script."""

    def __init__(self, model, batch, script):
        self.model, self.batch, self.script = model, batch, script

    def __call__(self, epoch, start=0):
        with torch.no_grad():
            for parameter, value in zip(
                self.model.parameters(), self.script[epoch], strict=True
            ):
                parameter.copy_(torch.tensor(value))
        return [self.batch]

    def __len__(self):
        return 1


ALWAYS_A = ([[0.0], [0.0]], [1.0, 0.0])
BY_SIGN = ([[1.0], [-1.0]], [0.0, 0.0])


@pytest.mark.parametrize(("balanced", "best"), [(False, [1, 0]), (True, [1, 1])])
def test_class_weights_select_epochs_by_balanced_accuracy(balanced, best):
    """The second epoch predicts the rare image, but misses five common ones."""
    model = nn.Linear(1, 2)
    batch = torch.tensor([[1.0]] * 4 + [[-1.0]] * 6), torch.tensor([0] * 9 + [1])
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    plan = FitConfig(epochs=2, lr=0.0, schedule=lambda t: 1.0, balanced=balanced)
    train = Scripted(model, batch, [ALWAYS_A, BY_SIGN])
    history = fit(model, optimizer, train, Held(batch), plan)
    assert [d.val_accuracy for d in history] == pytest.approx([0.9, 0.5])
    assert [d.val_balanced_accuracy for d in history] == pytest.approx(
        [0.5, (4 / 9 + 1) / 2]
    )
    assert [d.best for d in history] == best


class Held:
    """The same batch whenever asked."""

    def __init__(self, batch):
        self.batch = batch

    def __call__(self, epoch, start=0):
        return [self.batch]

    def __len__(self):
        return 1


# --- batches


@pytest.mark.parametrize(("size", "batch"), [(33, 8), (33, 32), (3, 2)])
def test_a_last_batch_of_one_image_joins_the_one_before(size, batch):
    data = load_data(uneven(40, 40), exact=True, test_fraction=0.2)
    subset = data.subset("train").take(range(size))
    cut = data.__class__(**{**vars(data), "subsets": {**data.subsets, "train": subset}})
    run = st.train(
        Small(norm=True), cut, epochs=1, batch_size=batch, out="run", quiet=True
    )
    (note,) = run.manifest["notes"]
    assert note == (
        f"{size} images in batches of {batch} leave one image; "
        f"the last batch gets this image too ({batch + 1} images)"
    )
    assert note in (run.path / "report.html").read_text()
    events = (run.path / "events.jsonl").read_text().splitlines()
    assert [json.loads(e)["images"] for e in events][-1] == batch + 1


def test_full_batches_leave_no_note():
    data = load_data(uneven(40, 40), exact=True)
    for size in (1, 2, 6, 48, 60):
        assert last_batch_notes(data, st.Recipe(data="x", batch_size=size)) == ()


def test_steps_of_one_image(tmp_path):
    data = load_data(uneven(20, 20), exact=True)
    run = st.train(Small(), data, epochs=1, batch_size=1, out="one", quiet=True)
    assert run.manifest["notes"] == []
    with pytest.raises(SettingError) as caught:
        st.train(Small(norm=True), data, epochs=1, batch_size=1, out="two", quiet=True)
    assert "batch norm needs at least two values per channel" in str(caught.value)
    assert "layer 3" in str(caught.value)
    assert "--batch-size 2" in str(caught.value)
    assert not Path("two").exists()


def test_steps_of_one_image_with_batch_norm_on_maps(tmp_path):
    """A map of 6×6 has 36 values per channel; only 1×1 has a single value."""
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1)
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 2))
    data = load_data(uneven(20, 20))
    run = st.train(model, data, epochs=1, batch_size=1, out="one", quiet=True)
    assert run.manifest["status"] == "done"
    assert model[1].num_batches_tracked == len(data.subset("train"))


def test_batch_norm_refuses_single_values(refused, tmp_path):
    root = write_folder(tmp_path / "photos", count=20, size=(32, 32), channels=3)
    said = refused(root, "--model", "mobilenet_v2", "--batch-size", "1")
    assert "batch norm needs at least two values per channel" in said


# --- settings that are decided elsewhere


@pytest.mark.parametrize("name", ["fraction", "split", "val_fraction", "image_size"])
def test_train_refuses_data_settings(name):
    data = load_data(uneven(20, 20))
    with pytest.raises(
        SettingError, match=f"{name} must be set when images are loaded"
    ):
        st.train(Small(), data, epochs=1, **{name: 1})


def test_a_run_records_its_split():
    data = load_data(uneven(60, 60), val_fraction=0.3, folds=3, fold=2, fraction=0.5)
    recipe = st.train(Small(), data, epochs=1, out="run", quiet=True).recipe
    assert (recipe.val_fraction, recipe.folds, recipe.fold) == (0.3, 3, 2)
    assert recipe.fraction == 0.5


def test_train_with_loaded_data(shared_folder):
    recipe = st.Recipe(data=str(shared_folder), epochs=1, seed=2)
    from striate.run.prepare_run import load_recipe

    data = load_recipe(recipe)
    first = train_recipe(recipe, data=data, out=Path("a"), quiet=True)
    second = train_recipe(recipe, out=Path("b"), quiet=True)
    assert first.manifest["weights"] == second.manifest["weights"]
