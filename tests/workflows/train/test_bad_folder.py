"""`striate train` on unusable folders: a message, exit code 2, files unchanged.

`refused` asserts all of that but the message. Each guard was taken out once to see
its test go red (a traceback, another message, or a trained run).
"""

import os
import shutil

import numpy as np
import pytest

from striate.run.create_model import create_model
from support.images import pil_image, write_folder


def test_a_missing_path_suggests_the_nearest(refused, tmp_path):
    write_folder(tmp_path / "photos")
    message = refused("photso")
    assert "no such file, folder or data set: photso" in message
    assert "did you mean photos?" in message
    assert "named data sets: digits, fashion-mnist, trashnet" in message


def test_a_misspelled_name_of_a_set(refused):
    assert "did you mean digits?" in refused("digit")


def test_path_too_long_for_the_system(refused):
    assert "cannot read this path: File name too long" in refused("x" * 5000)


def test_an_unsupported_file(refused, tmp_path):
    (tmp_path / "list.txt").write_text("a.png")
    message = refused("list.txt")
    assert "'list.txt' is not a supported data layout" in message
    assert "use a folder of class folders, a .csv, IDX files" in message


def test_empty_folder(refused, tmp_path):
    (tmp_path / "photos").mkdir()
    message = refused("photos")
    assert "the folder is empty" in message
    assert "FOLDER/<class>/*.jpg, or FOLDER/train/<class>/*.jpg" in message


def test_class_folders_without_files(refused, tmp_path):
    (tmp_path / "photos/cats").mkdir(parents=True)
    assert "the class folders are empty" in refused("photos")


def test_no_class_folders(refused, tmp_path):
    shutil.copytree(write_folder(tmp_path / "photos") / "across", tmp_path / "loose")
    message = refused("loose")
    assert "no class folders, but 12 files directly in the folder" in message


def test_one_class(refused, tmp_path):
    write_folder(tmp_path / "photos", classes=["cats"])
    message = refused("photos")
    assert "only one class ('cats'): a classifier needs at least two" in message
    assert "add images of a second class" in message


def test_a_class_with_one_image(refused, tmp_path):
    write_folder(tmp_path / "photos", classes=["cats", "dogs"])
    write_folder(tmp_path / "photos", classes=["newt"], count=1, seed=5)
    message = refused("photos")
    assert "classes with only one image (1 of 3): 'newt'" in message
    assert "train and val need at least one image each" in message


def test_a_warning_about_a_class_with_two_images(striate, tmp_path):
    write_folder(tmp_path / "photos", count=30)
    write_folder(tmp_path / "photos", classes=["newt"], count=2, seed=5)
    result = striate("train", "photos", "--epochs", "1")
    assert result.code == 0
    assert "1 class has fewer than 10 training images: newt (" in result.out


def test_no_usable_images(refused, tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "photos" / name / f"{i}.jpg").write_bytes(b"")
    message = refused("photos")
    assert "no usable images among 6 files: 6 not-an-image" in message
    assert f"the first: a{os.sep}0.jpg (the file is empty)" in message


def test_a_folder_of_two_images(refused, tmp_path):
    write_folder(tmp_path / "photos", count=1)
    message = refused("photos")
    assert "classes with only one image (2 of 2): 'across', 'down'" in message
    assert "add images or remove the class" in message


def constant(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    pil_image(np.full((8, 8, 1), level, np.uint8)).save(path)


def test_all_images_are_the_same(refused, tmp_path):
    """A classifier cannot be trained on copies of one image, whatever their class."""
    for i, name in enumerate(["a", "b"] * 20):
        constant(tmp_path / f"photos/{name}/{i}.png", 99)
    message = refused("photos")
    assert "no usable images among 40 files: 40 two-labels" in message
    assert "every image is in several classes: keep each image in one class" in message
    for i, name in enumerate(["a", "b"] * 20):
        constant(tmp_path / f"flat/{name}/{i}.png", 99 if name == "a" else 150)
    message = refused("flat")
    assert (
        "split has no images: the 40 files are copies of 2 different images" in message
    )
    assert "`striate data check DATA` lists the copies" in message


def test_images_of_one_gray_level_each(striate, tmp_path):
    """All pixels of an image are equal, and the level does not depend on the class."""
    for i in range(120):
        constant(tmp_path / f"photos/{'ab'[i * 7919 % 11 % 2]}/{i}.png", 40 + i)
    result = striate("train", "photos", "--epochs", "2", "--json")
    assert result.code == 0
    verdict = result.json["verdict"]
    assert verdict["kind"] == "not above baseline"
    assert verdict["next_steps"][0]["command"] == "striate data check photos --labels"


def test_classes_in_test_that_training_has_not(refused, tmp_path):
    write_folder(tmp_path / "photos/train", classes=["cats", "dogs"])
    write_folder(tmp_path / "photos/test", classes=["cats", "newts"], seed=1)
    message = refused("photos")
    assert "the test split has classes without training images: 'newts'" in message
    assert "add training images, rename the classes, or remove them" in message


def test_a_split_folder_beside_another_folder(refused, tmp_path):
    """Without the check `train` and `test` would be learned as classes."""
    write_folder(tmp_path / "photos/train")
    write_folder(tmp_path / "photos/test", seed=1)
    write_folder(tmp_path / "photos/unsorted", seed=2)
    message = refused("photos")
    assert "some folders are not train, val or test: unsorted" in message


def test_a_class_named_train(striate, tmp_path):
    write_folder(tmp_path / "vehicles", classes=["bus", "train"])
    result = striate("train", "vehicles", "--epochs", "1")
    assert result.code == 0
    assert "2 classes: bus, train" in result.out


SMALLEST = {"lenet5": 16, "lenet5_modern": 12, "tutorial_gray": 4, "tutorial_color": 8}


@pytest.mark.parametrize("model", SMALLEST)
@pytest.mark.parametrize("narrow", ["height", "width"])
def test_image_smaller_than_the_network_needs(refused, tmp_path, model, narrow):
    least = SMALLEST[model]
    write_folder(tmp_path / "photos")
    short = (least - 1, 32) if narrow == "height" else (32, least - 1)
    size = f"{short[0]}x{short[1]}"
    message = refused("photos", "--model", model, "--image-size", size)
    assert "a window of size" in message
    assert "layer " in message
    assert f"image height or width {least - 1}" in message
    assert f"use images of at least {least}×{least}" in message
    assert f"--image-size {least}" in message


@pytest.mark.parametrize("model", SMALLEST)
def test_the_smallest_image_fits(model):
    create_model(model, image_size=SMALLEST[model], num_classes=2, in_chans=1)


def test_the_layer_and_both_sizes_are_named(refused, tmp_path):
    write_folder(tmp_path / "photos", size=(8, 8))
    message = refused("photos", "--model", "lenet5")
    assert "layer c3: a window of size 5 does not fit an input of size 2" in message


def test_run_folder_that_exists(refused, shared_folder, tmp_path):
    """The folder's files are the user's, whether or not it is a run."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/diary.txt").write_text("mine")
    message = refused(shared_folder, "--out", "kept")
    assert "the output folder already exists" in message
    assert message.endswith("choose another --out, or add --overwrite\n")


def test_overwrite_keeps_other_folders(refused, shared_folder, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/manifest.json").write_text('{"name": "a web app"}')
    message = refused(shared_folder, "--out", "site", "--overwrite")
    assert "the output folder exists and is not a run folder" in message
    assert "--overwrite replaces only run folders" in message


@pytest.mark.parametrize("text", ["", "[1]", '{"versions": 3}', "\xff"])
def test_overwrite_keeps_other_manifests(refused, shared_folder, tmp_path, text):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/manifest.json").write_text(text, encoding="latin-1")
    message = refused(shared_folder, "--out", "site", "--overwrite")
    assert "the output folder exists and is not a run folder" in message


def test_out_is_a_file(refused, shared_folder, tmp_path):
    (tmp_path / "notes").write_text("mine")
    assert "already exists" in refused(shared_folder, "--out", "notes")
    assert "not a run folder" in refused(shared_folder, "--out", "notes", "--overwrite")
    below = refused(shared_folder, "--out", "notes/run")
    assert "Not a directory" in below


def test_runs_is_a_file(refused, shared_folder, tmp_path):
    (tmp_path / "runs").write_text("mine")
    assert "could not save" in refused(shared_folder)


def test_overwrite_replaces_a_run_folder(striate, shared_folder, tmp_path):
    words = ("train", shared_folder, "--epochs", "1", "--out", "run")
    assert striate(*words).code == 0
    (tmp_path / "run/old.txt").write_text("of the first run")
    assert striate(*words, "--overwrite").code == 0
    assert not (tmp_path / "run/old.txt").exists()


def test_without_out_the_next_free_name_is_taken(striate, shared_folder, tmp_path):
    for _ in range(2):
        assert striate("train", shared_folder, "--epochs", "1").code == 0
    runs = {path.name for path in (tmp_path / "runs/train").iterdir()}
    assert runs == {"stripes-tutorial_gray", "stripes-tutorial_gray-2"}


def test_odd_channels(refused, tmp_path):
    write_folder(tmp_path / "photos", channels=3)
    message = refused("photos", "--in-chans", "2")
    assert "images have 3 channels, the network takes 2" in message
    assert "use --in-chans 3" in message


def test_a_batch_larger_than_memory(refused, tmp_path):
    write_folder(tmp_path / "photos")
    message = refused("photos", "--image-size", "1000000")
    assert (
        "a batch of 32 images of 1000000×1000000×1 does not fit into memory" in message
    )
    assert "931.3 GiB each" in message
    assert "choose a smaller --image-size" in message
