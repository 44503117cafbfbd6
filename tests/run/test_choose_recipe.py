"""`striate train DATA` chooses a pretrained backbone, or training from scratch."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from striate.core.files import read_json
from striate.data.dataset_size import DatasetSize, dataset_size
from striate.models import downloading
from striate.models.pretrained_registry import PRETRAINED
from striate.run.choose_recipe import choose_recipe
from striate.run.parse_settings import make_recipe


def write_images(folder, *, side, per_class=4, gray=False, classes=("cat", "dog")):
    """Write noise images of a given side, one folder per class."""
    rng = np.random.default_rng(0)
    shape = (side, side + 8) if gray else (side, side + 8, 3)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 255, shape, np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def choose(data, **settings):
    return choose_recipe(make_recipe({"data": str(data), **settings}), settings)


@pytest.fixture
def no_package(monkeypatch):
    """Hide the Python package that brings the weights; no publisher answers."""
    entry = replace(PRETRAINED["mobilenet_v2"], package="")
    monkeypatch.setitem(PRETRAINED._entries, "mobilenet_v2", entry)
    host = "http://127.0.0.1:9/"  # nothing listens there
    monkeypatch.setattr("striate.models.pretrained_registry._HOST", host)
    return entry


def test_number_and_size_come_from_the_headers(tmp_path):
    folder = write_images(tmp_path / "photos", side=40, gray=True)
    (folder / "cat" / "0.png").write_bytes(b"damaged")
    assert dataset_size(folder) == DatasetSize(images=8, classes=2, side=40)
    assert dataset_size("memory://photos") is None
    (folder / "photos.tar").write_bytes(b"")
    assert dataset_size(folder / "photos.tar") is None


def test_no_readable_header(tmp_path):
    folder = write_images(tmp_path / "photos", side=40, per_class=1)
    for path in folder.rglob("*.png"):
        path.write_bytes(b"damaged")
    assert dataset_size(folder) is None


def test_photographs_get_a_pretrained_backbone(tmp_path):
    choice = choose(write_images(tmp_path / "photos", side=120), seed=3)
    assert choice.transfer == {"head": "logistic"}
    assert choice.recipe.model == choice.recipe.pretrained == "mobilenet_v2"
    assert choice.recipe.seed == 3
    assert "--preset photographs" in choice.text


def test_the_users_settings_are_respected(tmp_path):
    folder = write_images(tmp_path / "photos", side=120)
    assert choose(folder, model="resnet18").transfer is None
    assert choose(folder, model="resnet18").text == ""
    assert choose(folder, pretrained="mobilenet_v2").transfer is None
    trained = choose(folder, epochs=3)
    assert trained.transfer == {"head": "trained"}
    assert "--epochs" in trained.text
    assert choose(folder, augment="flip").transfer == {"head": "logistic", "views": 3}
    for name, value in {"ema": 0.9, "mixup": 0.2, "dropout": 0.1}.items():
        scratch = choose(folder, **{name: value})
        assert scratch.transfer is None
        assert getattr(scratch.recipe, name) == value
        assert scratch.recipe.model == "antialiased_resnet18_slim"
    assert "--ema" in choose(folder, ema=0.9).text
    assert "--ema cannot be used with frozen" in choose(folder, ema=0.9).text


def test_settings_of_speed_and_logs_do_not_change_the_network(tmp_path):
    folder = write_images(tmp_path / "photos", side=120)
    unused = {"tensorboard": True, "precision": "bf16", "compile": "on", "lr": "auto"}
    unused |= {"save_every": 10, "batch_size": "auto"}
    for name, value in unused.items():
        values = {} if name == "tensorboard" else {name: value}
        recipe = make_recipe({"data": str(folder), **values})
        choice = choose_recipe(recipe, [name])
        assert choice.transfer == {"head": "logistic"}
        flag = "--" + name.replace("_", "-")
        assert f"{flag} has no effect on it" in choice.text
        if values:
            usual = getattr(make_recipe({"data": str(folder)}), name)
            assert getattr(choice.recipe, name) == usual
    text = choose(folder, precision="bf16", lr="auto").text
    assert "--lr and --precision have no effect on it" in text


def test_digits_are_trained_from_scratch_as_before():
    choice = choose("digits")
    assert choice.transfer is None
    assert choice.recipe == make_recipe({"data": "digits"})
    assert "images of 8 pixels" in choice.text


def test_small_images_are_trained_from_scratch(tmp_path):
    choice = choose(write_images(tmp_path / "few", side=32), lr=0.5)
    assert choice.transfer is None
    assert choice.recipe.model == "fast_small"
    assert choice.recipe.lr == 0.5
    assert "--preset small-images" in choice.text
    assert choose(write_images(tmp_path / "large", side=48)).transfer is not None


def test_many_small_images_need_fewer_epochs(monkeypatch):
    monkeypatch.setattr("striate.run.choose_recipe.SMALL_SIDE", 8)
    assert choose("digits").recipe.epochs == 40
    monkeypatch.setattr("striate.run.choose_recipe.LARGE_DATASET", 1000)
    assert choose("digits").recipe.model == "fast_small_wide"
    assert choose("digits").recipe.epochs == 8


@pytest.mark.parametrize("offline", [False, True])
def test_without_weights_it_trains_from_scratch(tmp_path, no_package, offline):
    folder = write_images(tmp_path / "photos", side=120)
    choice = choose(folder, offline=offline)
    assert choice.transfer is None
    assert choice.recipe.model == "antialiased_resnet18_slim"
    assert (
        "the pretrained weights are not available (mobilenet_v2-b0353104.pth"
        in choice.text
    )
    assert ("--offline" in choice.text) is offline
    assert ("could not be downloaded" in choice.text) is not offline


def test_weights_in_the_folder_of_torch_hub(tmp_path, no_package, monkeypatch):
    payload = b"weights"
    entry = replace(no_package, sha256=hashlib.sha256(payload).hexdigest())
    path = tmp_path / "torch" / "hub" / "checkpoints" / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(payload)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert downloading.local_file(entry, None, offline=True) == path
    assert downloading.location(entry, None) == "torch.hub"
    path.write_bytes(b"half")
    assert downloading.location(entry, None) == "not downloaded"


def test_the_command(striate, tmp_path):
    folder = write_images(tmp_path / "photos", side=64, per_class=20)
    words = "--image-size", "32", "--quiet"
    said = striate("train", folder, *words)
    assert said.code == 0, said.err
    assert "note: chosen: logistic regression" in said.out
    run = tmp_path / "runs/train/photos-mobilenet_v2"
    manifest = read_json(run / "manifest.json")
    assert manifest["notes"][0].startswith("chosen: logistic regression")
    assert manifest["verb"] == "transfer"
