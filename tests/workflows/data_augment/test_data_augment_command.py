"""`striate data augment` and the flags of augmentation, as a user types them."""

from __future__ import annotations

import pytest

from striate.core.files import read_json
from striate.run.yaml_io import read_settings
from support.images import write_folder


def test_the_preview_of_a_folder(striate, shared_folder, tmp_path):
    result = striate("data", "augment", shared_folder, "--rotate", "30")
    assert (result.code, result.err) == (0, "")
    for words in ("--rotate", "30", "horizontal", "off", "preview.png", "report.html"):
        assert words in result.out
    folder = tmp_path / "runs/augment/stripes"
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        "preview.png",
        "report.html",
    }
    assert read_json(folder / "manifest.json")["augment"]["rotate"] == 30
    again = striate("data", "augment", shared_folder, "--out", folder)
    assert again.code == 2
    assert "--overwrite" in again.err
    words = ("--out", folder, "--overwrite", "--augment", "flip", "--json")
    third = striate("data", "augment", shared_folder, *words)
    assert third.json["augment"]["rotate"] == 0
    assert third.json["augment"]["flip"] == "horizontal"


def test_a_run_is_tested_for_label_safety(striate, shared_run):
    result = striate("data", "augment", shared_run.path, "--json", "--color", "0")
    assert result.code in (0, 1)
    transforms = {row["transform"] for row in result.json["transforms"]}
    assert transforms == {
        "rotation",
        "shear",
        "elastic deformation",
        "horizontal flip",
        "crop",
    }
    assert result.code == bool(result.json["unsafe"])
    assert result.json["images"] == len(shared_run.data.subset("val"))
    text = striate("data", "augment", shared_run.path)
    assert "End of range" in text.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere"),
        (("digits", "--rotate", "200"), "rotate must be at most 180"),
        (("digits", "--rotate", "far"), "rotate must be float, got 'far'"),
        (("digits", "--augment", "sixx"), "no augment is called 'sixx'"),
        (("digits", "--flip", "left"), "no flip is called 'left'"),
        (("digits", "--epochs", "3"), "has no flag --epochs"),
        ((), "DATA|RUN"),
    ],
)
def test_mistakes_are_reported_and_leave_no_file(striate, tmp_path, words, message):
    result = striate("data", "augment", *words)
    assert (result.code, result.out) == (2, "")
    assert message in result.err
    assert not list(tmp_path.iterdir())


def test_color_images_of_any_size(striate, tmp_path):
    photos = write_folder(tmp_path / "photos", count=6, size=(150, 90), channels=3)
    result = striate(
        "data", "augment", photos, "--image-size", "150x90", "--flip", "both"
    )
    assert result.code == 0
    result = striate("data", "augment", photos, "--augment", "none", "--mixup", "0.5")
    assert result.code == 0


def test_training_with_everything_on(striate, shared_folder, tmp_path):
    words = ("--augment", "six", "--erase", "0.3", "--mixup", "0.2", "--cutmix", "1")
    words += ("--epochs", "2", "--batch-size", "8", "--out", "run", "--quiet")
    assert striate("train", shared_folder, *words).code == 0
    args = read_settings(tmp_path / "run/args.yaml")
    assert (args["augment"], args["rotate"], args["mixup"]) == ("six", 15, 0.2)
    assert (args["flip"], args["border"]) == ("horizontal", "reflect")
    again = ("--config", "run/args.yaml", "--out", "again", "--quiet")
    assert striate("train", *again).code == 0
    first, second = (
        tmp_path / f"{n}/weights/best.safetensors" for n in ("run", "again")
    )
    assert first.read_bytes() == second.read_bytes()
