"""`--lr auto`, `--batch-size auto`, and the switches of regularization, in runs."""

import pytest
import torch
from torch import nn

import striate
from striate.core.errors import SettingError
from striate.core.files import read_csv
from striate.data.batches import Batches
from striate.engine.evaluate import evaluate
from striate.engine.tta import TTA_MODES
from striate.run.recipe import Recipe, make_recipe
from striate.run.yaml_io import read_settings
from striate.workflows.train import auto_settings as auto
from striate.workflows.train.resume import resume
from striate.workflows.train.train import train_recipe


@pytest.fixture(scope="module")
def digits():
    return striate.load_data("digits")


def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
    )


def test_both_are_found_once_and_written_down(digits, tmp_path):
    words = {"data": "digits", "epochs": 1, "batch_size": "auto", "lr": "auto"}
    run = train_recipe(make_recipe(words), data=digits, out=tmp_path / "a", quiet=True)
    kept = read_settings(tmp_path / "a/args.yaml")
    assert kept["batch_size"] == 32
    assert isinstance(kept["lr"], float)
    assert kept["lr"] == run.recipe.rate
    rows = read_csv(tmp_path / "a/lr_range.csv")
    assert float(rows[0]["lr"]) == pytest.approx(1e-5)
    assert (tmp_path / "a/plots/lr_range.png").stat().st_size > 1000
    assert "range test" in (tmp_path / "a/report.html").read_text(encoding="utf-8")
    assert sum("auto" in str(value) for value in (kept["lr"], kept["batch_size"])) == 0
    notes = " ".join(run.manifest["notes"])
    assert "batch size 32" in notes
    assert "learning rate by range test" in notes


def test_finding_out_changes_nothing_else(digits, tmp_path):
    """A run with the rate found equals one that was given it, to the bit."""
    words = {"data": "digits", "epochs": 1, "lr": "auto"}
    found = train_recipe(
        make_recipe(words), data=digits, out=tmp_path / "a", quiet=True
    )
    words["lr"] = found.recipe.rate
    given = train_recipe(
        make_recipe(words), data=digits, out=tmp_path / "b", quiet=True
    )
    files = "weights/best.safetensors", "results.csv", "predictions_test.csv"
    for name in files:
        assert (found.path / name).read_bytes() == (given.path / name).read_bytes()


def test_auto_cannot_come_to_a_run_that_has_begun(digits, tmp_path):
    recipe = Recipe(data="digits", epochs=1)
    train_recipe(recipe, data=digits, out=tmp_path / "a", quiet=True)
    with pytest.raises(SettingError, match="found out before a run learns"):
        resume(tmp_path / "a", lr="auto", epochs=2, quiet=True)


def test_memory_bounds_the_batch(digits, monkeypatch):
    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    model = small()
    whole = auto.decide(recipe, model, digits)
    assert whole.recipe.batch_size == 32
    need = auto._predicted(model, digits, 8)
    monkeypatch.setattr(auto, "available_bytes", lambda: int(need / auto.MEMORY_SHARE))
    less = auto.decide(recipe, model, digits)
    assert less.recipe.batch_size == 8
    assert "not fit" in less.notes[0]
    monkeypatch.setattr(auto, "available_bytes", lambda: 10)
    with pytest.raises(SettingError, match="step of 2 images"):
        auto.decide(recipe, model, digits)


def test_a_trial_step_has_the_last_word(digits, monkeypatch):
    """What the prediction overlooks, the step finds."""

    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            if self.training and len(x) > 4 and not x.is_meta:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return self.inner(x)

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    monkeypatch.setattr(auto, "_predicted", lambda *_: None)
    assert auto.decide(recipe, Greedy(), digits).recipe.batch_size == 4


@pytest.mark.parametrize("size", ["auto", 32])
def test_finding_out_takes_the_pieces_of_the_run(digits, monkeypatch, size):
    """What `--accumulate` makes fit is tried in its pieces: 32 in four of 8."""

    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            if self.training and len(x) > 9:  # one may be left over
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return self.inner(x)

    words = {"data": "digits", "batch_size": size, "lr": "auto", "accumulate": 4}
    asked = []
    monkeypatch.setattr(auto, "_predicted", lambda *given: asked.append(given[2]))
    found = auto.decide(make_recipe(words).resolved(), Greedy(), digits)
    assert found.recipe.batch_size == 32
    assert found.tried
    assert asked == ([8] if size == "auto" else [])


def test_a_network_that_looks_at_values_is_tried_for_real(digits):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            return self.inner(x) * (2.0 if float(x.mean()) > 0 else 1.0)

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    found = auto.decide(recipe, Looks(), digits)
    assert found.recipe.batch_size == 32
    assert "a step was tried" in found.notes[0]


def test_other_errors_of_the_trial_are_told(digits, monkeypatch):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            raise RuntimeError("shapes do not fit")

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    monkeypatch.setattr(auto, "_predicted", lambda *_: None)
    with pytest.raises(RuntimeError, match="shapes"):
        auto.decide(recipe, Broken(), digits)


def test_a_number_is_needed_where_nobody_decides():
    with pytest.raises(SettingError, match="lr is not decided"):
        _ = make_recipe({"data": "digits", "lr": "auto"}).rate
    with pytest.raises(SettingError, match="batch_size is not decided"):
        _ = make_recipe({"data": "digits", "batch_size": "auto"}).images_a_step


@pytest.mark.parametrize("switch", ["dropout", "drop_path"])
def test_a_switch_without_its_layers_is_refused(digits, tmp_path, switch):
    recipe = make_recipe({"data": "digits", "model": "tutorial_gray", switch: 0.1})
    with pytest.raises(SettingError, match="the network has none"):
        train_recipe(recipe, data=digits, out=tmp_path / "a", quiet=True)
    assert not (tmp_path / "a").exists()


def test_dropout_reaches_the_layers(digits, tmp_path):
    words = {"data": "digits", "model": "tutorial_color", "epochs": 1, "dropout": 0.0}
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    del words["model"], words["data"]
    striate.train(model, digits, out=tmp_path / "a", quiet=True, **words)
    assert model[1].p == 0.0


def test_views_and_average_reach_the_judgement(digits, tmp_path):
    """What is written is what the kept weights say about both views."""
    words = {"epochs": 2, "ema": 0.9, "tta": "flip", "lr": 0.01}
    model = small()
    run = striate.train(model, digits, out=tmp_path / "a", quiet=True, **words)
    val = Batches(
        subset=digits.subset("val"),
        preprocess=digits.preprocess,
        batch_size=256,
        shuffle=False,
    )
    both = evaluate(model, val(0), TTA_MODES["flip"])
    assert run.scores["val"]["accuracy"] == pytest.approx(both.accuracy)
    best = max(row["val_accuracy"] for row in run.history)
    assert best == pytest.approx(both.accuracy, abs=1e-6)
    plain = evaluate(model, val(0))
    assert plain.loss != both.loss
