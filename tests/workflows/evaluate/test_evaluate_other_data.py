"""`striate evaluate --data`: other images, moved images, images of the training."""

import shutil
from pathlib import Path

import pytest

import striate as st
from striate.core.files import read_csv, read_json
from striate.run.run import Run
from support.images import pil_image, stripes, write_folder


@pytest.fixture
def run(shared_run, tmp_path):
    """A copy of the run, which may be changed."""
    shutil.copytree(shared_run.path, tmp_path / "run")
    return Run(tmp_path / "run")


def test_a_folder_test_with_class_folders(striate, run, tmp_path):
    """It was taken for a class called `test`."""
    write_folder(tmp_path / "set/test", count=6, seed=5)
    found = striate("evaluate", run.path, "--data", tmp_path / "set", "--json").json
    assert found["count"] == 12
    assert found["trained_on"] is None
    same = striate("evaluate", run.path, "--data", tmp_path / "set/test", "--json").json
    assert same["accuracy"] == found["accuracy"]
    words = ("--data", tmp_path / "set", "--split", "test", "--json")
    assert striate("evaluate", run.path, *words).json["count"] == 12


def test_one_more_folder_around_the_classes(striate, run, tmp_path):
    write_folder(tmp_path / "set/photos", count=3)
    said = striate("evaluate", run.path, "--data", tmp_path / "set")
    assert said.code == 2
    assert f"use {tmp_path}/set/photos: the class folders are there" in said.err


def test_training_images_are_told(striate, run, shared_folder, tmp_path):
    """Their accuracy was mixed into the result without a word."""
    root = tmp_path / "mixed"
    shutil.copytree(shared_folder, root)
    for kind, name in enumerate(("across", "down")):
        for i in range(5):
            pil_image(stripes(kind, 900 + i)).save(root / name / f"new{i}.png")
    rows = read_csv(run.path / "split.csv")
    trained = sum(row["split"] == "train" for row in rows)
    facts = striate("evaluate", run.path, "--data", root, "--json").json["trained_on"]
    assert (facts["trained_count"], facts["other_count"]) == (trained, 50 - trained)
    subset, *_ = run.subset_for(str(root))
    predictions = run.predict_subset(subset)
    correct = dict(
        zip(subset.paths, predictions.predicted == predictions.truth, strict=True)
    )
    seen = {row["image_path"] for row in rows if row["split"] == "train"}
    others = [correct[path] for path in correct if path not in seen]
    assert facts["other_accuracy"] == pytest.approx(sum(others) / len(others))
    said = striate("evaluate", run.path, "--data", root)
    text = f"{trained} images of 50 also in the training split, with accuracy"
    assert text in said.out
    assert f"accuracy on the {50 - trained} other images:" in said.out


def test_only_training_images(striate, run, shared_folder, tmp_path):
    for row in read_csv(run.path / "split.csv"):
        if row["split"] == "train":
            target = tmp_path / "only" / row["image_path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(shared_folder / row["image_path"], target)
    said = striate("evaluate", run.path, "--data", tmp_path / "only")
    assert "which says nothing about new images" in said.out
    assert "accuracy on the" not in said.out


def test_a_moved_data_folder(striate, tmp_path):
    """The new place is recorded, so that all commands find the images again."""
    root = write_folder(tmp_path / "photos", count=20)
    recipe = st.Recipe(data=str(root), epochs=1, batch_size=8)
    st.train_recipe(recipe, out=Path("run"), quiet=True)
    before = striate("evaluate", "run", "--json").json
    root.rename(tmp_path / "moved")
    said = striate("evaluate", "run")
    assert said.code == 2
    assert "striate evaluate run --data NEW_FOLDER" in said.err
    other = write_folder(tmp_path / "other", count=4, seed=3)
    assert striate("evaluate", "run", "--data", other, "--json").json["count"] == 8
    (tmp_path / "moved/across/00.png").unlink()
    pil_image(stripes(0, 99)).save(tmp_path / "moved/across/01.png")
    said = striate("evaluate", "run", "--data", "moved")
    assert said.code in (0, 1)
    assert "the data of the run was moved to moved (same hashes)" in said.out
    facts = read_json(tmp_path / "run/manifest.json")["data"]
    assert facts["source"] == str(tmp_path / "moved")
    assert facts["moved_from"] == str(root)
    after = striate("evaluate", "run", "--json").json
    assert after["split"] == before["split"]
    assert after["count"] <= before["count"]
    assert {s.path for s in Run("run").data.quarantined} == {
        "across/00.png",
        "across/01.png",
    }
