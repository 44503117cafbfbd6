"""D4 for photographs: label errors by features of a pretrained network."""

from dataclasses import replace

import numpy as np
import pytest

import striate as api
from striate.data.check.check import check_dataset
from striate.data.check.label_errors import LABEL_ERROR
from striate.data.sources.source import from_arrays
from striate.models.pretrained_registry import PRETRAINED
from striate.run.choose_recipe import BACKBONE
from striate.workflows.data_check import label_errors
from striate.workflows.data_check.as_json import as_dict
from striate.workflows.data_check.label_errors import (
    choose_input,
    find_label_errors,
    pretrained_weights,
)
from support.image_sets import photographs


@pytest.fixture
def no_weights(monkeypatch):
    """Hide the Python package that brings the weights; no publisher answers."""
    entry = replace(PRETRAINED[BACKBONE], package="")
    monkeypatch.setitem(PRETRAINED._entries, BACKBONE, entry)
    host = "http://127.0.0.1:9/"  # nothing listens there
    monkeypatch.setattr("striate.models.pretrained_registry._HOST", host)
    monkeypatch.setenv("TORCH_HOME", "/nonexistent")


def move_labels(root, share=0.05, seed=0):
    """Move some photographs into the folder of another class; return the new paths."""
    rng = np.random.default_rng([9, seed])
    files = sorted(root.rglob("*.jpg"))
    classes = sorted({file.parent for file in files})
    moved = set()
    for i in rng.choice(len(files), round(share * len(files)), replace=False):
        others = [folder for folder in classes if folder != files[i].parent]
        target = others[rng.integers(len(others))] / files[i].name
        moved.add(f"{target.parent.name}/{files[i].rename(target).name}")
    return moved


def small_photographs(root):
    return photographs(root, classes=2, images_per_class=12, difficulty=0.0)


@pytest.fixture(scope="module")
def easy(tmp_path_factory):
    """24 photographs of two objects, one of them in the wrong folder; read only."""
    root = small_photographs(tmp_path_factory.mktemp("easy") / "photos")
    moved = move_labels(root, share=1 / 24)
    return find_label_errors(check_dataset(root, near=False)), moved


def paths(result, positions):
    records = (result.items[i].record.path for i in positions)
    return ["/".join(path.split("/")[-2:]) for path in records]


def test_a_pretrained_network_finds_the_wrong_label(easy):
    result, moved = easy
    first = next(result.label_errors.ranking())
    assert set(paths(result, [first.position])) == moved
    assert first.suspected
    assert (result.label_errors.model, result.label_errors.reason) == (BACKBONE, "")
    assert result.label_errors.unchecked == 0


def test_the_method_is_named(easy):
    result, _ = easy
    [finding] = [f for f in result.findings if f.kind == LABEL_ERROR]
    assert "5 classifiers predicted images that they were not trained on" in finding.why
    assert finding.why.endswith(
        "Used: logistic regression on the features of a frozen mobilenet_v2, "
        "pretrained on ImageNet."
    )
    labels = as_dict(result)["labels"]
    assert (labels["model"], labels["epochs"], labels["folds"]) == (BACKBONE, 0, 5)
    assert labels["method"].startswith("logistic regression")


def test_no_fold_is_predicted_by_a_classifier_fitted_to_it(tmp_path, monkeypatch):
    from striate.workflows.data_check import feature_validation

    sizes = []
    real = feature_validation.fit_logistic

    def fit(x, y, *words, **options):
        sizes.append(len(x))
        return real(x, y, *words, **options)

    monkeypatch.setattr(feature_validation, "fit_logistic", fit)
    root = photographs(tmp_path / "set", classes=2, images_per_class=6)
    ticks = []
    result = find_label_errors(
        check_dataset(root, near=False), tick=lambda *counts: ticks.append(counts)
    )
    assert len(sizes) == 5
    assert sum(12 - size for size in sizes) == 12  # each image is held out once
    assert ticks[-1] == (12, 12)
    assert (result.label_errors.analysis.probs.sum(1) > 0.99).all()


def test_gray_photographs_keep_one_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 60, 70), np.uint8)
    result = check_dataset(from_arrays("gray", pixels, ["a", "b"] * 2), near=False)
    weights, reason = pretrained_weights(result)
    assert reason == ""
    assert str(choose_input(result, weights).spec) == "224×224×1"
    assert find_label_errors(result).label_errors.unchecked == 0


def test_small_images_and_other_channels_are_not_for_it():
    rng = np.random.default_rng(0)
    for shape, reason in (
        ((40, 90, 3), "images of 40 pixels are too small for a pretrained network"),
        ((60, 60, 5), "a pretrained network cannot use 5 channels"),
    ):
        pixels = rng.integers(0, 256, (4, *shape), np.uint8)
        result = check_dataset(from_arrays("x", pixels, ["a", "b"] * 2), near=False)
        assert pretrained_weights(result) == (None, reason)


def test_without_weights_small_networks_are_trained(
    striate, tmp_path, monkeypatch, no_weights
):
    monkeypatch.setattr(label_errors, "EPOCHS", (1, 1))
    root = small_photographs(tmp_path / "photos")
    words = ("data", "check", root, "--near", "off", "--labels")
    output = striate(*words, "--offline")
    text = " ".join(output.out.split())
    assert "the network tutorial_color, 1 epoch each, because the pretrained" in text
    assert "is not on this machine, and --offline is set" in text
    assert "could not be downloaded" in " ".join(striate(*words).out.split())
    result = api.check_data(root, near=False, labels=True, offline=True)
    assert result.label_errors.model == "tutorial_color"
    assert "--offline is set" in result.label_errors.reason


@pytest.mark.slow
def test_moved_photographs(tmp_path):
    """Twice 300 photographs of four objects, 15 of them in the wrong folder."""
    in_top, false = 0, 0
    for seed in (0, 1):
        root = photographs(tmp_path / f"photos{seed}", seed=seed)
        moved = move_labels(root, seed=seed)
        result = find_label_errors(check_dataset(root, near=False))
        suspected = set(paths(result, result.label_errors.analysis.suspected))
        order = [row.position for row in result.label_errors.ranking()]
        in_top += len(moved & set(paths(result, order[:30])))
        false += len(suspected - moved)
    assert in_top >= 0.8 * 30  # D4
    assert false <= 0.05 * 600
