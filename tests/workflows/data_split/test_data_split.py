"""`striate data split`: shows what falls where, and writes what training keeps."""

from pathlib import Path

import pytest

from striate.core.files import read_csv
from support.images import write_folder


@pytest.fixture
def photos(tmp_path):
    root = write_folder(tmp_path / "photos", count=30)
    write_folder(root, ("rare",), count=3, seed=3)
    return root


def test_an_exact_split_is_written_and_trained_on(striate, photos):
    said = striate("data", "split", photos, "--exact", "--out", "mine.csv")
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert ["rare", "1", "1", "1"] in lines
    assert ["across", "18", "5", "7"] in lines or ["across", "18", "4", "8"] in lines
    assert "share" in said.out
    assert f"striate train {photos} --split mine.csv" in said.out
    words = ("--split", "mine.csv", "--epochs", "1", "--out", "run")
    assert striate("train", photos, *words).code == 0
    dealt, kept = (
        {row["image_path"]: row["split"] for row in read_csv(Path(path))}
        for path in ("mine.csv", "run/split.csv")
    )
    assert dealt == kept


def test_it_extends_an_earlier_one(striate, photos):
    assert striate("data", "split", photos, "--exact", "--out", "one.csv").code == 0
    write_folder(photos, count=36)
    said = striate("data", "split", photos, "--split", "one.csv", "--out", "two.csv")
    assert "63 images with the earlier split, 12 new images" in said.out
    assert "1 class has fewer than 10 training images: rare (1)" in said.out
    one, two = (
        {row["image_path"]: row["split"] for row in read_csv(Path(path))}
        for path in ("one.csv", "two.csv")
    )
    assert one.items() <= two.items()


def test_json_and_folds(striate, photos):
    found = [
        striate(
            "data", "split", photos, "--exact", "--folds", "3", "--fold", fold, "--json"
        ).json
        for fold in "012"
    ]
    assert [f["classes"]["rare"]["test"] for f in found] == [1, 1, 1]
    assert sum(f["splits"]["test"] for f in found) == 63
    assert all(f["out"] is None for f in found)
    assert sum(f["classes"]["across"]["train"] for f in found) == 2 * 30 - sum(
        f["classes"]["across"]["val"] for f in found
    )


def test_many_classes_show_the_smallest(striate, tmp_path):
    root = write_folder(tmp_path / "many", [f"c{i:02}" for i in range(24)], count=6)
    write_folder(root, ["tiny"], count=3, seed=9)
    said = striate("data", "split", root, "--exact")
    assert "The 20 smallest of 25 classes" in said.out
    assert "tiny" in said.out
    assert "c23" not in said.out


def test_a_file_that_is_there_stays(striate, photos):
    Path("mine.csv").write_text("mine")
    said = striate("data", "split", photos, "--out", "mine.csv")
    assert (said.code, Path("mine.csv").read_text()) == (2, "mine")
    assert "the output file already exists" in said.err
    words = ("--exact", "--out", "mine.csv", "--overwrite")
    assert striate("data", "split", photos, *words).code == 0
    assert len(read_csv(Path("mine.csv"))) == 63


def test_wrong_arguments(striate, photos):
    for words, message in (
        (("--folds", "3"), "must be given together"),
        (("--val-fraction", "0.9"), "no images are left for training"),
        (("--split", "nowhere.csv"), "there is no split file"),
    ):
        said = striate("data", "split", photos, *words)
        assert said.code == 2
        assert message in said.err
