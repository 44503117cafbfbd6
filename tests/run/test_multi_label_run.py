"""A run with several labels per image, from training to every later command."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, f1_score
from sklearn.multioutput import MultiOutputClassifier

import striate as st
from striate.core.errors import SettingError
from striate.core.files import read_csv, read_json
from striate.finetune.logistic import fit_logistic, label_strata
from striate.run import notebook_cards
from striate.run.multi_label_predictions import MultiLabelPredictions
from striate.run.multi_label_verdict import conclude_labels, label_facts
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.run.verdict import run_verdict
from striate.run.verdict_rules import (
    ABOVE_BASELINE,
    CLASS_NEVER_PREDICTED,
    NOT_ABOVE_BASELINE,
    TOO_FEW,
)
from striate.workflows.train.train import train_recipe
from support.label_sets import write_label_sets

SETTINGS = {"model": "tutorial_color", "epochs": 14, "batch_size": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("labels")
    table = write_label_sets(root, count=140)
    return train_recipe(
        Recipe(data=str(table), **SETTINGS), out=root / "run", quiet=True
    )


@pytest.fixture(scope="module")
def table(run):
    return run.path.parent / "table.csv"


def files(run, split="test"):
    """True labels, predicted labels and probabilities of the predictions file."""
    rows = read_csv(run.path / f"predictions_{split}.csv")
    names = run.labels.names
    texts = ([row[key].split(";") for row in rows] for key in ("true", "pred"))
    truth, predicted = (
        np.array([[n in t for n in names] for t in each]) for each in texts
    )
    probs = np.array([[float(row[f"p_{name}"]) for name in names] for row in rows])
    return truth, predicted, probs


def test_the_files_have_the_metrics_of_scikit_learn(run):
    for split in ("val", "test"):
        truth, predicted, probs = files(run, split)
        score = run.scores[split]
        assert score["map"] == pytest.approx(average_precision_score(truth, probs))
        for average in ("micro", "macro"):
            expected = f1_score(truth, predicted, average=average, zero_division=0)
            assert score[f"{average}_f1"] == pytest.approx(expected)
        assert score["accuracy"] == (truth == predicted).all(1).mean()
    assert run.scores["test"]["map"] > 0.6
    assert run.manifest["data"]["multi_label"]
    assert read_json(run.path / "classes.json") == ["blue", "green", "red"]


def test_the_best_epoch_has_the_best_map(run):
    values = [row["val_map"] for row in run.history]
    best = max(i for i, row in enumerate(run.history) if row["best"])
    assert values[best] == max(values)
    assert run.manifest["best_epoch"] == best + 1


def test_the_decisions_are_those_of_the_thresholds(run):
    _, predicted, probs = files(run)
    classes = read_json(run.path / "calibration.json")["classes"]
    limits = [classes[name]["threshold"] for name in run.labels.names]
    assert (predicted == (probs >= limits)).all()
    predictions = run.predictions("test")
    assert isinstance(predictions, MultiLabelPredictions)
    assert predictions.thresholds.tolist() == limits
    again = run.predict_subset(run.data.subset("test"))
    assert (again.predicted == predictions.predicted).all()
    assert again.probs == pytest.approx(predictions.probs, abs=1e-6)
    assert run.evaluate().map == pytest.approx(run.scores["test"]["map"], abs=1e-6)


def test_thresholds_have_the_best_f1_on_validation(run):
    truth, predicted, probs = files(run, "val")
    for i in range(3):
        reached = f1_score(truth[:, i], predicted[:, i], zero_division=0)
        levels = probs[:, i].tolist()
        others = [
            f1_score(truth[:, i], probs[:, i] >= t, zero_division=0) for t in levels
        ]
        assert reached >= max(others) - 1e-9


def test_the_report_has_classes_and_errors(run):
    page = (run.path / "report.html").read_text()
    for text in ("test mAP", "F1, micro", "exact match", "By class", "binary cross-"):
        assert text in page
    truth, predicted, _ = files(run)
    for name, false in zip(run.labels.names, (predicted & ~truth).T, strict=True):
        assert (f"False positives of &#x27;{name}&#x27;" in page) == bool(false.any())
    assert "Confusion matrix" not in page


def test_the_commands_speak_of_the_labels(striate, run, table):
    said = striate("evaluate", run.path)
    assert said.code == 0
    assert "test mAP" in said.out
    assert "better than chance" in " ".join(said.out.split())
    found = striate("evaluate", run.path, "--json").json
    assert found["map"] == pytest.approx(run.scores["test"]["map"], abs=1e-6)
    assert found["verdict"]["kind"] in (ABOVE_BASELINE, "overfitting", "splits differ")
    overlap = striate("evaluate", run.path, "--data", table, "--json").json[
        "trained_on"
    ]
    assert overlap["trained_count"] == run.manifest["data"]["splits"]["train"]
    assert overlap["trained_count"] + overlap["other_count"] == len(run.data.rows)
    assert "test mAP" in notebook_cards.run_card(run)
    assert "mAP" in notebook_cards.label_metrics_card(run.evaluate())


def test_predict_writes_the_labels(striate, run, table, tmp_path):
    images = table.parent / "images"
    said = striate(
        "predict", run.path, images, "--out", "p.csv", "--html", "p.html", "--json"
    )
    assert said.code == 0
    rows = {row["image_path"]: row for row in read_csv(tmp_path / "p.csv")}
    _, predicted, probs = files(run)
    for i, path in enumerate(run.predictions("test").paths):
        row = rows[str(table.parent / path)]
        assert row["pred"] == run.labels.decode(predicted[i])
        values = [float(row[f"p_{name}"]) for name in run.labels.names]
        assert values == pytest.approx(probs[i], abs=1e-5)
    first = said.json["predictions"][0]
    assert first["labels"] == [name for name in first["pred"].split(";") if name]
    assert said.json["thresholds"].keys() == set(run.labels.names)
    assert "(none)" in (tmp_path / "p.html").read_text()
    assert "most probable" in striate("predict", run.path, images).out


def test_explain_a_class(striate, run, table):
    image = table.parent / "images/000.png"
    words = "explain", run.path, image, "--method", "gradcam", "--out", "why"
    said = striate(*words, "--target", "red", "--json")
    assert said.code == 0, said.err
    (found,) = said.json["images"]
    assert found["target_text"] == "red"
    probs = {each["class"]: each["probability"] for each in found["predictions"]}
    (predicted,) = run.predict(image).predictions
    assert probs == pytest.approx(predicted.probs, abs=1e-5)
    assert found["pred"] == predicted.pred
    heat = st.explain(run, str(image), target="blue", method="gradcam")
    assert heat.target.text == "blue"
    with pytest.raises(SettingError, match="against needs images with one class"):
        st.explain(run, str(image), target="blue", against="red")


def test_compare_two_runs(striate, run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    with (other / "predictions_test.csv").open() as file:
        header, *rows = csv.reader(file)
    for row in rows[:5]:
        row[2] = "" if row[1] else "red"
    with (other / "predictions_test.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    manifest = read_json(other / "manifest.json")
    (other / "manifest.json").write_text(json.dumps({**manifest, "parameters": 1}))
    result = striate("compare", run.path, other, "--html", "both.html")
    assert result.code == 0, result.err
    assert "mAP" in result.out
    assert "exact match" in result.out
    found = st.compare(run.path, other)
    (test,) = found.tests
    before, after = (r.predictions("test").correct for r in (run, Run(other)))
    assert test.difference == pytest.approx(after.mean() - before.mean())
    shares = dict(test.pairings[0].classes)
    truth, predicted, _ = files(run)
    for i, name in enumerate(run.labels.names):
        hits = predicted[truth[:, i], i]
        pair = shares[name]
        assert pair.both + pair.lost == hits.sum()


def test_what_needs_one_class_is_refused(striate, refused, run, table, tmp_path):
    sampling = refused(
        table, "--class-weights", "sampling", "--model", "tutorial_color"
    )
    assert "use --class-weights auto" in sampling
    image = table.parent / "images/000.png"
    commands = (
        ("evaluate", run.path, "--operating-point", "red"),
        ("predict", run.path, image, "--threshold", "0.5"),
        ("data", "check", table, "--labels"),
        ("data", "curve", table),
        ("data", "augment", run.path),
        ("explain", run.path, image, "--sections", "dataset"),
        ("explain", run.path, image, "--ablate", "conv1 0"),
    )
    for words in commands:
        said = striate(*words)
        assert said.code == 2, words
        assert "not several labels" in said.err
        assert "do:" in said.err
    assert [p.name for p in tmp_path.iterdir()] in ([], ["runs"])
    with pytest.raises(SettingError, match="not confused with one other class"):
        run.most_confused()
    assert run.top_losses(2)[0]["loss"] >= run.top_losses(2)[1]["loss"]


def test_other_commands_take_the_table(striate, table, tmp_path):
    checked = striate("data", "check", table, "--near", "off", "--json")
    assert checked.code in (0, 1)
    assert set(checked.json["classes"]) == {"blue", "green", "red"}
    assert striate("data", "preview", table, "--out", "seen.html").code == 0
    assert striate("data", "augment", table, "--out", "views").code == 0


def test_a_resumed_run_ends_with_the_same_bytes(table, tmp_path, no_report):
    recipe = Recipe(data=str(table), **{**SETTINGS, "epochs": 2}, save_every=0)
    train_recipe(recipe, out=tmp_path / "whole", quiet=True)
    short = Recipe(data=str(table), **{**SETTINGS, "epochs": 2}, save_every=0)
    train_recipe(short, out=tmp_path / "parts", quiet=True)
    st.resume(tmp_path / "parts", epochs=3, quiet=True)
    st.resume(tmp_path / "whole", epochs=3, quiet=True)
    names = ("results.csv", "events.jsonl", "predictions_test.csv", "calibration.json")
    for name in names:
        whole, parts = (tmp_path / run / name for run in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes(), name


def test_class_weights_mixup_and_tracked_norms(table, tmp_path, no_report):
    settings = {**SETTINGS, "epochs": 1, "track_norms": True, "mixup": 0.2}
    recipe = Recipe(data=str(table), **settings, class_weights="auto")
    run = train_recipe(recipe, out=tmp_path / "run", quiet=True)
    assert run.layer_norms
    assert 0 < run.scores["test"]["loss"] < 3


def test_a_logistic_head_of_each_class(run, table, tmp_path, no_report):
    """`striate transfer` fits a logistic regression per class."""
    done = st.transfer(
        table, pretrained=run.path, model="tutorial_color", quiet=True, cache="off"
    )
    assert done.scores["test"]["map"] > 0.6
    assert done.manifest["train_accuracy"]["map"] > 0.6
    assert "val_map" in done.history[0]
    with pytest.raises(SettingError, match="--cut auto needs images with one class"):
        st.transfer(table, pretrained=run.path, model="tutorial_color", cut="auto")


def test_the_logistic_fit_is_that_of_scikit_learn():
    torch.manual_seed(0)
    y = (torch.rand(80, 3) < torch.tensor([0.5, 0.3, 0.2])).long()
    x = torch.randn(80, 4) + y.float() @ torch.randn(3, 4)
    x = (x - x.mean(0)) / x.std(0, correction=0)

    def loss(logits, target):
        losses = torch.nn.functional.binary_cross_entropy_with_logits
        return 3 * losses(logits, target.to(logits.dtype))

    fit = fit_logistic(x, y, 3, penalty=0.1, loss=loss)
    model = MultiOutputClassifier(LogisticRegression(C=1 / (0.1 * 80), tol=1e-8))
    model.fit(x.double().numpy(), y.numpy())
    for i, each in enumerate(model.estimators_):
        assert fit.weight[i].numpy() == pytest.approx(each.coef_[0], abs=1e-3)
        assert fit.bias[i].item() == pytest.approx(each.intercept_[0], abs=1e-3)
    assert label_strata(torch.tensor([[1, 1], [1, 0], [0, 0]])).tolist() == [1, 0, 2]


def changed(run, change):
    """The verdict on predictions of the test split after a change."""
    predictions = run.predictions("test")
    truth, probs = predictions.truth.copy(), predictions.probs.copy()
    decisions = predictions.decisions.copy()
    change(truth, probs, decisions)
    altered = MultiLabelPredictions(
        paths=predictions.paths,
        truth=truth,
        probs=probs,
        losses=predictions.losses,
        labels=predictions.labels,
        decisions=decisions,
        thresholds=predictions.thresholds,
    )
    return conclude_labels(label_facts(run, "test", altered))


def test_the_verdict_in_words(run):
    rng = np.random.default_rng(0)
    kind, sentences = changed(run, lambda truth, probs, _: rng.shuffle(probs))
    assert kind in (NOT_ABOVE_BASELINE, TOO_FEW)
    assert any("better than chance" in s for s in sentences)

    def never_red(truth, probs, decisions):
        decisions[:, 2] = False

    kind, sentences = changed(run, never_red)
    assert any("The class 'red'" in s and "never predicted" in s for s in sentences)
    assert kind in (CLASS_NEVER_PREDICTED, "overfitting", "splits differ")

    def no_labels(truth, probs, decisions):
        truth[:] = 0

    assert changed(run, no_labels)[0] == TOO_FEW
    steps = [step.command for step in run_verdict(run).next_steps]
    for feature in ("--cut auto", "--labels", "data curve"):
        assert not any(feature in command for command in steps)


def test_a_run_without_calibration_has_threshold_half(run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run.path, other)
    (other / "calibration.json").unlink()
    bare = Run(other)
    assert bare.label_calibration.thresholds.tolist() == [0.5] * 3
    assert bare.scaling is None
    image = run.path.parent / "images/000.png"
    assert bare.predict(str(image)).predictions
