"""No command replaces a file that the user names, unless `--overwrite` is given."""

import argparse
import shutil
from pathlib import Path

import pytest

from striate.cli.main import build_parser
from striate.core.files import read_csv
from support.images import write_folder

# Flags with a file that the command reads.
INPUTS = {"--config", "--since", "--sign", "--weights"}
# Flags with a file or folder that the command writes.
OUTPUTS = {"--markdown", "--out", "--html", "--csv", "--ranking", "--code"}
OLD = "written by somebody else"


def commands(parser=None, words=()):
    """Yield the words and the parser of every command and subcommand."""
    for action in (parser or build_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield (*words, name), child
                yield from commands(child, (*words, name))


def test_every_flag_with_a_file_is_an_input_or_has_overwrite():
    for words, parser in commands():
        flags = {flag for a in parser._actions for flag in a.option_strings}
        files = {
            a.option_strings[0]
            for a in parser._actions
            if a.metavar in ("FILE", "DIR") and a.option_strings
        }
        assert files <= INPUTS | OUTPUTS, words
        if files & OUTPUTS:
            assert "--overwrite" in flags, words


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("data check photos", "--html"),
        ("data check photos", "--csv"),
        ("data check photos --labels", "--ranking"),
        ("data split photos", "--out"),
        ("data preview photos", "--out"),
        ("summary lenet5", "--html"),
        ("summary lenet5", "--csv"),
        ("summary lenet5", "--code"),
        ("compare one two", "--html"),
    ],
)
def test_an_existing_file_is_refused_before_the_work(striate, tmp_path, words, flag):
    """The data does not exist, and the command does not come to notice that."""
    (tmp_path / "old.txt").write_text(OLD)
    result = striate(*words.split(), flag, "old.txt")
    assert result.code == 2
    assert "the output file already exists" in result.err
    assert "--overwrite" in result.err
    assert (tmp_path / "old.txt").read_text() == OLD
    (tmp_path / "folder").mkdir()
    result = striate(*words.split(), flag, "folder", "--overwrite")
    assert (result.code, "the output file is a folder" in result.err) == (2, True)
    result = striate(*words.split(), flag, "old.txt/a.txt")
    assert (result.code, "not a writable folder" in result.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("data check photos", "--html"),
        ("data check photos", "--csv"),
        ("data split photos", "--out"),
        ("data preview photos", "--out"),
        ("summary lenet5", "--html"),
        ("summary lenet5", "--csv"),
    ],
)
def test_overwrite_replaces_the_file(striate, tmp_path, words, flag):
    write_folder(tmp_path / "photos")
    (tmp_path / "old.txt").write_text(OLD)
    assert striate(*words.split(), flag, "old.txt", "--overwrite").code in (0, 1)
    assert OLD not in (tmp_path / "old.txt").read_text()


def test_one_file_for_two_flags_is_refused(striate):
    result = striate("data", "check", "photos", "--html", "a.txt", "--csv", "./a.txt")
    assert (result.code, "have the same file" in result.err) == (2, True)


def test_the_default_name_of_a_preview_is_always_new(striate, tmp_path):
    write_folder(tmp_path / "photos")
    for name in ("preview.html", "preview-2.html", "preview-3.html"):
        result = striate("data", "preview", "photos")
        assert result.code == 0
        assert f"page  {name}\n" in result.out
        assert Path(name).is_file()


@pytest.mark.parametrize(
    "words",
    [
        "train missing",
        "transfer missing --model tutorial_gray --pretrained missing",
        "explain missing.py:Net a.png",
        "data augment missing",
    ],
)
def test_an_existing_folder_is_refused_before_the_work(striate, tmp_path, words):
    write_folder(tmp_path / "mine")
    result = striate(*words.split(), "--out", "mine")
    assert result.code == 2
    if not words.startswith("explain"):  # a model is built first, which is fast
        assert "the output folder already exists" in result.err
    assert len(list((tmp_path / "mine").rglob("*.png"))) == 24


def test_split_csv_is_data_and_a_split_file(striate, tmp_path):
    write_folder(tmp_path / "photos", count=30)
    split = "photos/split.csv"
    assert striate("data", "split", "photos", "--out", split).code == 0
    rows = read_csv(Path(split))
    assert {"image_path", "label", "split"} < rows[0].keys()
    result = striate("data", "split", split, "--json")
    assert result.json["warnings"] == []
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for row in rows:
        counts[row["split"]] += 1
    assert result.json["splits"] == counts
    shutil.copy(split, "old.csv")
    old = Path("old.csv").read_text().replace("image_path", "path", 1)
    Path("old.csv").write_text(old)
    again = striate("data", "split", "photos", "--split", "old.csv", "--seed", "5")
    assert again.code == 0
    assert "60 images with the earlier split, 0 new images, 0 missing" in again.out
