"""Presets are valid settings, and the user can give other data."""

import pytest

from striate.models.catalogue import model_entry
from striate.run.parse_settings import make_recipe
from striate.run.presets import PRESETS


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_a_recipe_with_its_result(name):
    preset = PRESETS[name]
    recipe = make_recipe({"data": "photos"}, preset.settings)
    assert model_entry(recipe.model).name == recipe.model
    assert any(letter.isdigit() for letter in preset.claim)


def test_photographs_take_a_folder_and_flags(striate, shared_folder, tmp_path):
    flags = ("--epochs", "2", "--image-size", "48", "--flip", "none")
    words = ("--preset", "photographs", *flags, "--out", "run", "--quiet")
    assert striate("train", shared_folder, *words).code == 0
    args = (tmp_path / "run/args.yaml").read_text()
    for line in (
        "model: antialiased_resnet18_slim",
        "progressive_resize: 0.5",
        "epochs: 2",
        "image_size:\n- 48\n- 48",
        "flip: none",
        "mixup: 0.2",
        "schedule: cosine",
    ):
        assert f"{line}\n" in args
    assert f"data: {shared_folder}\n" in args
    notes = (tmp_path / "run/manifest.json").read_text()
    assert "progressive resizing: 32×32 in epoch 1, 48×48 in epoch 2" in notes


def test_photographs_without_a_folder(striate):
    said = striate("train", "--preset", "photographs")
    assert said.code == 2
    assert "no data set is given" in said.err


def test_given_data_wins_over_the_preset(shared_folder):
    recipe = make_recipe(PRESETS["fashion-best"].settings, {"data": str(shared_folder)})
    assert recipe.data == str(shared_folder)
