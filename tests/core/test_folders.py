"""Folders are written, deleted and tidied as a whole."""

import os

import pytest

from striate.core.errors import StorageError
from striate.core.files import temporary_name
from striate.core.folders import remove_folder, remove_leftovers, write_folder


def test_a_folder_appears_with_all_files(tmp_path):
    write_folder(tmp_path / "new", [("a", b"1"), ("b", b"22")], size=3)
    contents = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}
    assert contents == {"a": b"1", "b": b"22"}
    assert os.listdir(tmp_path) == ["new"]


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(StorageError, match="new"):
        write_folder(tmp_path / "new", [("a", b"1"), ("no/such/folder", b"2")], size=2)
    assert os.listdir(tmp_path) == []


def test_a_folder_is_deleted_once(tmp_path):
    write_folder(tmp_path / "old", [("a", b"1")], size=1)
    remove_folder(tmp_path / "old")
    remove_folder(tmp_path / "old")  # is not there any more
    assert os.listdir(tmp_path) == []


def test_only_leftovers_are_tidied(tmp_path):
    for name in (temporary_name(tmp_path / "x").name, ".hidden"):
        (tmp_path / name).mkdir()
    temporary_name(tmp_path / "file.json").write_text("half")
    (tmp_path / "kept.json").write_text("whole")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", "kept.json"]
