"""Temperature scaling after training: fitted on validation, or left out and said."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import striate as st
from striate.core.class_names import ClassNames
from striate.core.errors import RunError
from striate.core.files import read_json, write_json
from striate.engine.evaluate import Outputs
from striate.metrics.temperature import apply_temperature, log_losses
from striate.run.calibration import fit_scaling, read_scaling, save_evaluation
from striate.run.predictions import Predictions
from striate.run.run import Run
from striate.workflows.explain.explain import explain_images
from striate.workflows.explain.load_model import load_model
from support.images import write_folder
from support.run_folders import made_run

CLASSES = ("a", "b", "c")


def predictions(count, scale=1.0, seed=0, spread=2.0):
    """Predictions of a network whose logits are `scale` times the calibrated ones."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(count, 3)) * spread
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = (probs.cumsum(1) > draw.random((count, 1))).argmax(1)
    x, labels = torch.tensor(logits * scale), torch.tensor(truth)
    losses = torch.nn.functional.cross_entropy(x, labels, reduction="none")
    outputs = Outputs(logits=x, labels=labels, losses=losses)
    names = [f"{i}.png" for i in range(count)]
    return Predictions.of(names, outputs, ClassNames(CLASSES))


@pytest.mark.parametrize("scale", [0.4, 3.0])
def test_a_known_temperature_is_found(scale):
    scaling = fit_scaling(predictions(1000, scale))
    assert scaling.used
    assert scaling.temperature == pytest.approx(scale, rel=0.15)
    assert scaling.log_loss_after < scaling.log_loss_before
    assert scaling.ece_after < scaling.ece_before
    assert f"T = {scaling.temperature:.3g}" in scaling.sentence
    assert "1,000 validation images" in scaling.sentence


def test_scaling_that_does_not_help_is_left_out():
    """The network is calibrated; the reason has both log losses."""
    scaling = fit_scaling(predictions(60, seed=1))
    assert not scaling.used
    assert scaling.temperature == 1
    assert scaling.log_loss_cross_validated > scaling.log_loss_before
    assert "does not improve the cross-validated log loss" in scaling.sentence
    assert f"{scaling.log_loss_before:.4f} without it" in scaling.reason


@pytest.mark.parametrize(("count", "fitted"), [(1, False), (19, False), (20, True)])
def test_few_images_are_too_few(count, fitted):
    scaling = fit_scaling(predictions(count, 0.1, spread=9.0))
    assert scaling.used == fitted
    assert ("too few to fit a temperature" in scaling.reason) != fitted
    assert scaling.images == count


def test_without_errors_the_prior_decides():
    """Always correct, and underconfident: T falls, but not to its limit."""
    correct = predictions(40, 0.1, spread=9.0)
    correct = replace(
        correct,
        truth=correct.predicted,
        losses=log_losses(correct.probs, correct.predicted),
    )
    scaling = fit_scaling(correct)
    assert scaling.used
    assert 0.1 < scaling.temperature < 0.9


def test_no_validation_split():
    scaling = fit_scaling(None)
    assert (scaling.temperature, scaling.used) == (1.0, False)
    assert scaling.sentence.endswith("the run has no validation split.")


def test_files_have_scaled_probabilities_and_losses(tmp_path):
    folder = made_run(tmp_path / "run", [True] * 30, classes=CLASSES)
    raw = {"val": predictions(200, 3.0), "test": predictions(100, 3.0, seed=5)}
    save_evaluation(folder, raw)
    run = Run(folder)
    values = read_json(folder / "calibration.json")
    assert values["temperature"] == run.temperature > 2
    assert list(values)[:4] == ["temperature", "used", "reason", "split"]
    for split, before in raw.items():
        after = run.predictions(split)
        expected = apply_temperature(before.probs, run.temperature)
        assert np.allclose(after.probs, expected, rtol=1e-6)
        assert np.allclose(after.losses, log_losses(expected, before.truth), rtol=1e-5)
        assert (after.predicted == before.predicted).all()
        loss = run.scores[split]["loss"]
        assert loss == pytest.approx(after.losses.mean(), rel=1e-5)
        assert loss < before.losses.mean()


def test_predictions_of_earlier_versions_are_read(tmp_path):
    """Their columns are `path` and `label`, and there is no calibration.json."""
    folder = made_run(tmp_path / "run", [True] * 30)
    path = folder / "predictions_test.csv"
    new = Run(folder).predictions("test")
    path.write_text(path.read_text().replace("image_path,true,", "path,label,", 1))
    run = Run(folder)
    old = run.predictions("test")
    assert (old.paths, run.temperature, run.scaling) == (new.paths, 1.0, None)
    assert np.array_equal(old.truth, new.truth)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"temperature": "warm", "used": true}',
        '{"temperature": 0, "used": true}',
        '{"temperature": -1.5, "used": true}',
        '{"temperature": NaN, "used": true}',
        '{"temperature": null}',
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(RunError, match=r"calibration\.json is"):
        read_scaling(tmp_path)


@pytest.fixture
def hot_run(shared_run, tmp_path):
    """A copy of a run with a temperature of 2.5."""
    shutil.copytree(shared_run.path, tmp_path / "hot")
    write_json(tmp_path / "hot/calibration.json", {"temperature": 2.5, "used": True})
    return Run(tmp_path / "hot")


def test_all_commands_use_the_same_temperature(hot_run, shared_folder, tmp_path):
    """evaluate, predict and explain print the probabilities of softmax(logits / T)."""
    subset = hot_run.data.subset("test")
    raw = hot_run.predict_subset(subset, scaled=False)
    expected = apply_temperature(raw.probs, 2.5)
    assert not np.allclose(expected, raw.probs, atol=0.01)
    assert np.allclose(hot_run.predict_subset(subset).probs, expected)
    loss = log_losses(expected, raw.truth).mean()
    assert hot_run.evaluate("test").loss == pytest.approx(loss)
    others, *_ = hot_run.subset_for(str(shared_folder))
    other = hot_run.predict_subset(others, scaled=False)
    loss = log_losses(apply_temperature(other.probs, 2.5), other.truth).mean()
    assert hot_run.evaluate(data=str(shared_folder)).loss == pytest.approx(loss)
    paths = [shared_folder / path for path in subset.paths[:3]]
    predicted = hot_run.predict(paths)
    assert predicted.temperature == 2.5
    for i, prediction in enumerate(predicted.predictions):
        assert np.allclose([*prediction.probs.values()], expected[i], atol=1e-6)
    loaded = load_model(str(hot_run.path))
    explanation = explain_images(loaded, paths[:1], out=tmp_path / "page")
    facts = explanation.data["images"][0]
    assert facts["predictions"][0]["probability"] == pytest.approx(
        expected[0].max(), abs=1e-6
    )
    assert facts["pred"] == predicted.predictions[0].pred


def test_the_model_of_a_run_returns_raw_logits(hot_run, shared_run):
    x = torch.rand(3, *shared_run.preprocess.spec.shape)
    with torch.no_grad():
        assert torch.equal(hot_run.model(x), Run(shared_run.path).model(x))


def test_unused_temperature_is_not_applied(hot_run):
    values = {"temperature": 2.5, "used": False, "reason": "it does not help"}
    write_json(hot_run.path / "calibration.json", values)
    assert Run(hot_run.path).temperature == 1.0


def test_test_time_augmentation_comes_before_scaling(tmp_path):
    """The mean of the logits of both views is divided by the temperature."""
    root = write_folder(tmp_path / "photos", count=40)
    data = st.load_data(root)
    model = st.create_model("tutorial_gray", num_classes=2, in_chans=1, image_size=8)
    run = st.train(model, data, epochs=2, tta="flip", quiet=True)
    assert run.scaling.images == len(data.subset("val"))
    raw = run.predict_subset(data.subset("val"), scaled=False)
    expected = apply_temperature(raw.probs, run.temperature)
    assert np.allclose(run.predictions("val").probs, expected, rtol=1e-5)


def test_a_resumed_run_gets_a_new_temperature(tmp_path):
    root = write_folder(tmp_path / "photos", count=40)
    model = st.create_model("tutorial_gray", num_classes=2, in_chans=1, image_size=8)
    run = st.train(model, st.load_data(root), epochs=1, out="run", quiet=True)
    before = read_json(run.path / "calibration.json")
    again = st.resume(run.path, epochs=4, model=model, quiet=True)
    after = read_json(again.path / "calibration.json")
    assert after["log_loss_before"] < before["log_loss_before"]
    val = again.predict_subset(again.data.subset("val"), scaled=False)
    assert after["log_loss_before"] == pytest.approx(val.losses.mean(), rel=1e-5)
