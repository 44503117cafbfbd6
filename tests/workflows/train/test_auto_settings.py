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
from striate.run.parse_settings import make_recipe
from striate.run.recipe import Recipe
from striate.run.yaml_io import read_settings
from striate.workflows.train import auto_settings, training_forecast
from striate.workflows.train.resume import resume
from striate.workflows.train.train import train_recipe


@pytest.fixture(scope="module")
def digits():
    return striate.load_data("digits")


def small():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 10)
    )


def test_automatic_batch_size_and_learning_rate_are_recorded(digits, tmp_path):
    words = {"data": "digits", "epochs": 1, "batch_size": "auto", "lr": "auto"}
    run = train_recipe(make_recipe(words), data=digits, out=tmp_path / "a", quiet=True)
    kept = read_settings(tmp_path / "a/args.yaml")
    assert kept["batch_size"] == 32
    assert isinstance(kept["lr"], float)
    assert kept["lr"] == run.recipe.max_lr
    rows = read_csv(tmp_path / "a/lr_range.csv")
    assert float(rows[0]["lr"]) == pytest.approx(1e-5)
    assert (tmp_path / "a/plots/lr_range.png").stat().st_size > 1000
    assert "range test" in (tmp_path / "a/report.html").read_text(encoding="utf-8")
    assert sum("auto" in str(value) for value in (kept["lr"], kept["batch_size"])) == 0
    notes = " ".join(run.manifest["notes"])
    assert "batch size 32" in notes
    assert "learning rate by range test" in notes


def test_an_automatic_learning_rate_equals_a_given_one(digits, tmp_path):
    """A run with an automatic rate is bit-identical to one with the same given rate."""
    words = {"data": "digits", "epochs": 1, "lr": "auto"}
    found = train_recipe(
        make_recipe(words), data=digits, out=tmp_path / "a", quiet=True
    )
    words["lr"] = found.recipe.max_lr
    given = train_recipe(
        make_recipe(words), data=digits, out=tmp_path / "b", quiet=True
    )
    files = "weights/best.safetensors", "results.csv", "predictions_test.csv"
    for name in files:
        assert (found.path / name).read_bytes() == (given.path / name).read_bytes()


def test_auto_is_refused_on_resume(digits, tmp_path):
    recipe = Recipe(data="digits", epochs=1)
    train_recipe(recipe, data=digits, out=tmp_path / "a", quiet=True)
    with pytest.raises(
        SettingError, match="chosen automatically only at the start of a run"
    ):
        resume(tmp_path / "a", lr="auto", epochs=2, quiet=True)


def test_free_memory_limits_the_batch_size(digits, monkeypatch):
    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    model = small()
    whole = auto_settings.resolve_auto_settings(recipe, model, digits)
    assert whole.recipe.batch_size == 32
    need = auto_settings._peak_bytes(model, digits, 8)
    monkeypatch.setattr(
        training_forecast,
        "available_bytes",
        lambda: int(need / auto_settings.MEMORY_SHARE),
    )
    less = auto_settings.resolve_auto_settings(recipe, model, digits)
    assert less.recipe.batch_size == 8
    assert "not fit" in less.notes[0]
    monkeypatch.setattr(training_forecast, "available_bytes", lambda: 10)
    with pytest.raises(SettingError, match="batch of 2 images"):
        auto_settings.resolve_auto_settings(recipe, model, digits)


def test_a_trial_step_overrides_the_prediction(digits, monkeypatch):
    """The step finds what the prediction misses."""

    class Greedy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            if self.training and len(x) > 4 and not x.is_meta:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return self.inner(x)

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    monkeypatch.setattr(auto_settings, "_peak_bytes", lambda *_: None)
    assert (
        auto_settings.resolve_auto_settings(recipe, Greedy(), digits).recipe.batch_size
        == 4
    )


@pytest.mark.parametrize("size", ["auto", 32])
def test_auto_settings_use_the_micro_batches_of_the_run(digits, monkeypatch, size):
    """With `--accumulate` micro-batches are tested: 32 images as four times 8."""

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
    monkeypatch.setattr(
        auto_settings, "_peak_bytes", lambda *given: asked.append(given[2])
    )
    found = auto_settings.resolve_auto_settings(
        make_recipe(words).resolved(), Greedy(), digits
    )
    assert found.recipe.batch_size == 32
    assert found.lr_range
    assert asked == ([8] if size == "auto" else [])


def test_a_model_that_needs_real_values_is_tested_with_a_step(digits):
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            return self.inner(x) * (2.0 if float(x.mean()) > 0 else 1.0)

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    found = auto_settings.resolve_auto_settings(recipe, Looks(), digits)
    assert found.recipe.batch_size == 32
    assert "one step was tested" in found.notes[0]


def test_other_errors_of_the_trial_step_are_raised(digits, monkeypatch):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            raise RuntimeError("shapes do not fit")

    recipe = make_recipe({"data": "digits", "batch_size": "auto"}).resolved()
    monkeypatch.setattr(auto_settings, "_peak_bytes", lambda *_: None)
    with pytest.raises(RuntimeError, match="shapes"):
        auto_settings.resolve_auto_settings(recipe, Broken(), digits)


def test_an_unresolved_auto_setting_is_an_error():
    with pytest.raises(SettingError, match="lr must be a number, got auto"):
        _ = make_recipe({"data": "digits", "lr": "auto"}).max_lr
    with pytest.raises(SettingError, match="batch_size must be a number, got auto"):
        _ = make_recipe({"data": "digits", "batch_size": "auto"}).images_per_step


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        ("dropout", "the network has no dropout layer"),
        ("drop_path", "drops residual branches, but the network has none"),
    ],
)
def test_a_rate_without_such_layers_is_refused(digits, tmp_path, switch, message):
    recipe = make_recipe({"data": "digits", "model": "tutorial_gray", switch: 0.1})
    with pytest.raises(SettingError, match=message):
        train_recipe(recipe, data=digits, out=tmp_path / "a", quiet=True)
    assert not (tmp_path / "a").exists()


def test_dropout_reaches_the_layers(digits, tmp_path):
    words = {"data": "digits", "model": "tutorial_color", "epochs": 1, "dropout": 0.0}
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    del words["model"], words["data"]
    striate.train(model, digits, out=tmp_path / "a", quiet=True, **words)
    assert model[1].p == 0.0


def test_ema_and_tta_are_used_in_evaluation(digits, tmp_path):
    """The recorded scores are those of the saved weights with both views."""
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
