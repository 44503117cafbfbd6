"""Atomic writes of files and folders, and messages of failed writes."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from striate.core import append_log, files, folders
from striate.core.errors import RunError, StorageError


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "the disk reported an input/output error"),
        (errno.EMFILE, "Too many open files"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "write", "open"])
def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch, number, words, call):
    """Without write-beside-and-rename the old content is gone; without the clean-up
    a hidden file stays."""
    path = tmp_path / "weights"
    files.write_bytes(path, b"old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StorageError) as caught:
        files.write_bytes(path, b"x" * 12_345)
    assert f"could not save weights: {words} (12,345 bytes needed, " in str(
        caught.value
    )
    assert " free)" in caught.value.what
    is_full = number in (errno.ENOSPC, errno.EDQUOT)
    space = "free some space or " if is_full else ""
    assert caught.value.fix == f"{space}choose another --out, then run again"
    assert os.listdir(tmp_path) == ["weights"]
    assert path.read_bytes() == b"old"


def test_storage_error_without_errno():
    told = pytest.raises(StorageError, match="odd thing")
    with told, files.storage_errors(files.Path("nowhere/at/all"), 7):
        raise OSError("odd thing")


def test_free_space_unknown(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError(errno.EIO, "x")

    monkeypatch.setattr(files.shutil, "disk_usage", refuse)
    told = pytest.raises(StorageError, match="free space unknown")
    with told, files.storage_errors(tmp_path / "none/file", 7):
        raise OSError(errno.EIO, "x")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StorageError, match="could not save b"):
        files.write_bytes(tmp_path / "taken/b", b"x")
    assert (tmp_path / "taken").read_text() == "mine"


def test_interrupted_write_cleans_up(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_bytes(tmp_path / "a", b"x")
    assert os.listdir(tmp_path) == []


def test_a_real_full_disk(tmp_path):
    """A tmpfs of 64 KiB, where this user may mount one."""
    import subprocess

    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    try:
        subprocess.run(mount, check=True, capture_output=True, timeout=5)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    try:
        path = tmp_path / "weights"
        files.write_bytes(path, b"old" * 1000)
        with pytest.raises(StorageError) as caught:
            files.write_bytes(path, b"x" * 100_000)
        assert "the disk is full (100,000 bytes needed, " in caught.value.what
        assert os.listdir(tmp_path) == ["weights"]
        assert path.read_bytes() == b"old" * 1000
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True, timeout=5)


def test_written_files_can_be_read_by_others(tmp_path):
    files.write_bytes(tmp_path / "a/b/report.html", b"x")
    assert (tmp_path / "a/b/report.html").stat().st_mode & 0o777 == 0o644


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
CELL = TEXT | st.sampled_from(
    ["a\rb", "\r", "\n", '"', ",", "a\r\nb", "", os.fsdecode(b"\xff"), "\u2028"]
)


@given(st.lists(st.tuples(CELL, CELL), max_size=4))
def test_csv_round_trip(tmp_path_factory, rows):
    """Also carriage returns, which Python's writer leaves bare."""
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    files.write_csv(path, ("one", "two"), rows)
    assert [(r["one"], r["two"]) for r in files.read_csv(path)] == rows


def test_a_carriage_return_in_the_header(tmp_path):
    """A class may be called so, and gives a column its name."""
    files.write_csv(tmp_path / "a.csv", ("path", "p_a\rb"), [("x", "0.5")])
    assert files.read_csv(tmp_path / "a.csv") == [{"path": "x", "p_a\rb": "0.5"}]


@given(
    st.recursive(CELL | st.integers(), lambda x: st.lists(x) | st.dictionaries(CELL, x))
)
def test_json_round_trip(tmp_path_factory, value):
    """Also names with bytes that are no text."""
    path = tmp_path_factory.mktemp("json") / "a.json"
    files.write_json(path, value)
    path.read_bytes().decode("utf-8")
    assert files.read_json(path) == value


def test_text_keeps_undecodable_bytes(tmp_path):
    files.write_text(tmp_path / "a", "caf\udce9 é")
    assert (tmp_path / "a").read_bytes() == b"caf\xe9 \xc3\xa9"


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(RunError, match=r"a\.json is missing") as caught:
        files.read_json(tmp_path / "a.json")
    assert "give a run folder" in str(caught.value)
    with pytest.raises(RunError, match=r"a\.csv is missing"):
        files.read_csv(tmp_path / "a.csv")
    for content in (b"{", b"\xff\xfe", b""):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(RunError, match=r"a\.json is not JSON") as caught:
            files.read_json(tmp_path / "a.json")
        assert "restore it from a backup" in str(caught.value)


def test_hashes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.hash_file(tmp_path / "a").startswith("ba7816bf")
    assert files.hash_rows([("a", 1)]) == files.hash_rows([("a", 1)])
    assert files.hash_rows([("a",), ("b",)]) != files.hash_rows([("b",), ("a",)])
    files.hash_rows([("caf\udce9",)])


def test_append_log_closes_a_file_it_cannot_truncate(tmp_path, monkeypatch):
    """Else each attempt would keep a handle open until the process may open no more."""
    path = tmp_path / "log.txt"
    opened = []

    def refuse(handle, size):
        opened.append(handle)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(StorageError, match="input/output error"):
        append_log.AppendLog(path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_removing_a_missing_folder(tmp_path):
    folders.remove_folder(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_file_is_refused(tmp_path):
    path = tmp_path / "a b/새 파일.html"
    files.refuse_existing(path, overwrite=False)
    assert not path.parent.exists()
    files.write_text(path, "old")
    files.refuse_existing(path, overwrite=True)
    with pytest.raises(RunError, match="already exists") as caught:
        files.refuse_existing(path, overwrite=False)
    assert (caught.value.exit_code, "--overwrite" in caught.value.fix) == (2, True)
    path.unlink()
    path.symlink_to("nowhere")  # a write would replace the link
    with pytest.raises(RunError, match="already exists"):
        files.refuse_existing(path, overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(RunError, match="is a folder"):
            files.refuse_existing(tmp_path, overwrite)


def test_an_output_file_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file/a.html", tmp_path / "file/new/a.html"):
        with pytest.raises(StorageError, match="not a writable folder"):
            files.refuse_existing(path, overwrite=True)


def test_an_output_file_in_a_folder_without_permission(tmp_path, monkeypatch):
    """Root may write everywhere, so the answer of the system is replaced."""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: False)
    with pytest.raises(StorageError, match="not a writable folder"):
        files.refuse_existing(tmp_path / "a.html", overwrite=False)


def test_the_next_free_name(tmp_path):
    names = []
    for _ in range(3):
        path = files.next_free_file(tmp_path / "page.html")
        files.write_text(path, "")
        names.append(path.name)
    assert names == ["page.html", "page-2.html", "page-3.html"]
