"""Paths with spaces and Korean letters, and folders without write permission."""

import os
import re
import shlex
import shutil
from contextlib import contextmanager

import pytest

from striate.core.files import read_json
from support.images import snapshot, write_folder

NAME = "내 사진 (1)"


@pytest.fixture
def run(shared_run, tmp_path):
    """A run folder with such a name."""
    shutil.copytree(shared_run.path, tmp_path / NAME / "실행 1")
    return f"{NAME}/실행 1"


def test_train(striate, tmp_path):
    data = write_folder(tmp_path / NAME / "사진", classes=("가 나", "down"))
    out = f"{NAME}/실행 1"
    said = striate("train", data, "--epochs", "1", "--out", out)
    assert said.code == 0
    assert out in said.out
    assert read_json(tmp_path / out / "classes.json") == ["down", "가 나"]
    assert striate("report", out).out.strip() == f"{out}/report.html"
    assert striate("evaluate", out, "--json").code == 0


def test_predict(striate, run, shared_folder, tmp_path):
    shutil.copytree(shared_folder, tmp_path / NAME / "사진")
    out = f"{NAME}/결과 1.csv"
    said = striate("predict", run, f"{NAME}/사진", "--out", out)
    assert said.code == 0
    lines = (tmp_path / out).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 41
    assert lines[1].startswith(f"{NAME}/사진/across/")


def test_data_check(striate, shared_folder, tmp_path):
    shutil.copytree(shared_folder, tmp_path / NAME / "사진")
    out = f"{NAME}/검사 1.html"
    said = striate("data", "check", f"{NAME}/사진", "--html", out)
    assert said.code in (0, 1)
    assert out in said.out
    assert "사진" in (tmp_path / out).read_text(encoding="utf-8")


def test_compare(striate, run, shared_run, tmp_path):
    out = f"{NAME}/비교 1.html"
    assert striate("compare", run, shared_run.path, "--html", out).code == 0
    assert (tmp_path / out).is_file()


def test_printed_commands_quote_the_paths(striate, run, shared_folder, tmp_path):
    """With a space, the shell would read two paths."""
    shutil.copytree(shared_folder, tmp_path / NAME / "사진")
    data, out = f"{NAME}/사진", f"{NAME}/나누기 1.csv"
    said = striate("data", "split", data, "--out", out).out
    command = said.rpartition("use it:\n")[2].strip()
    assert shlex.split(command) == ["striate", "train", data, "--split", out]
    (tmp_path / run / "predictions_train.csv").unlink(missing_ok=True)
    said = striate("evaluate", run, "--split", "train")
    if said.code:
        assert f"striate evaluate {shlex.quote(run)}" in said.err


# --- no permission to write


@contextmanager
def without_permission(folder):
    """Be a user who may not write in a folder; root may write everywhere."""
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    before, user = snapshot(folder), os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)
        after = snapshot(folder)
        for path in folders:
            path.chmod(0o755)
    assert after == before


@pytest.fixture
def places(tmp_path, shared_run, shared_folder, monkeypatch):
    """Two folders, each with a run, and a folder with images."""
    for name in ("free", "locked"):
        shutil.copytree(shared_run.path, tmp_path / name / "run")
    shutil.copytree(shared_run.path, tmp_path / "other")
    shutil.copytree(shared_folder, tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    for path in (tmp_path, tmp_path / "cache"):
        path.chmod(0o777)
    return tmp_path


REFUSED = "permission denied|is not a writable folder"
COMMANDS = (
    "train data --epochs 1 --out locked/new",
    "predict other data --out locked/new.csv",
    "predict other data --out locked/new.json",
    "evaluate other --operating-point down --out locked/new",
    "report locked/run",
    "data check digits --near off --html locked/new.html",
    "data split data --out locked/new.csv",
    "data preview data --out locked/new.html",
    "compare other locked/run --html locked/new.html",
    "summary lenet5 --html locked/new.html",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_without_permission(striate, places, command):
    assert striate(*command.replace("locked", "free").split()).code == 0
    with without_permission(places / "locked"):
        said = striate(*command.split())
    assert said.code == 2
    assert re.search(REFUSED, said.err)
    assert "where: locked" in said.err


def test_a_working_folder_without_permission(striate, places, monkeypatch):
    for command in ("train ../data --epochs 1", "data preview ../data"):
        monkeypatch.chdir(places / "free")
        assert striate(*command.split()).code == 0
        monkeypatch.chdir(places / "locked")
        with without_permission(places / "locked"):
            said = striate(*command.split())
        assert said.code == 2
        assert re.search(REFUSED, said.err)


def test_evaluate_only_reads(striate, places):
    words = ("evaluate", "locked/run", "--data", "data")
    expected = striate(*words)
    with without_permission(places / "locked"):
        assert striate(*words) == expected
    assert expected.code == 0
