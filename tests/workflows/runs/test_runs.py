"""`striate runs`: what is listed, in which order, and which damage is named."""

import json
import os
import socket
import subprocess
import sys

import pytest

import striate as st
from striate.cli.main import main
from striate.core.errors import RunError, SettingError
from striate.core.files import read_json, write_json, write_text
from striate.workflows.runs.list_runs import tag_run
from support.images import snapshot
from support.run_folders import made_run


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Three runs in `runs/`: two of training, one of transfer without a test split."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs"
    for place, right, status, changes in (
        ("train/first", [True] * 9 + [False], "done", {}),
        ("train/second", [True] * 10, "done", {}),
        ("transfer/third", [True] * 10, "stopped", {"transfer": {"head": "linear"}}),
    ):
        day = 1 + len(list(folder.glob("*/*")))
        started = f"2026-11-{day:02}T12:00:00+00:00"
        manifest = {"started": started, "status": status, **changes}
        split = "val" if changes else "test"
        made_run(folder / place, right, split=split, manifest=manifest)
        accuracy = sum(right) / len(right)
        score = {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy]}
        write_json(folder / place / "scores.json", {split: score})
    return folder


def names(found):
    return [run.name for run in found]


def test_runs_are_listed_with_their_facts(runs):
    third, second, first = st.list_runs()
    assert (first.name, first.verb, first.data) == ("first", "train", "stripes")
    assert (first.model, first.status) == ("tutorial_gray", "done")
    assert first.test_accuracy == 0.9
    assert first.test_interval == (0.8, 0.9)
    assert second.test_accuracy == 1.0
    assert (third.verb, third.status) == ("transfer", "stopped")
    assert third.test_accuracy is None
    assert third.val_accuracy == 1.0
    assert not any(run.damaged for run in (first, second, third))


def test_the_order_and_the_filter(runs):
    assert names(st.list_runs()) == ["third", "second", "first"]
    assert names(st.list_runs(sort="accuracy")) == ["second", "first", "third"]
    assert names(st.list_runs(sort="name")) == ["first", "second", "third"]
    assert names(st.list_runs(text="TRANSFER")) == ["third"]
    assert names(st.list_runs(runs / "train", text="stripes")) == ["second", "first"]
    assert names(st.list_runs(runs / "train" / "first")) == ["first"]
    with pytest.raises(SettingError, match="sort is 'size'"):
        st.list_runs(sort="size")
    with pytest.raises(RunError, match="does not exist"):
        st.list_runs("nowhere")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{"),
        ("manifest.json", "[1]"),
        ("manifest.json", None),
        ("args.yaml", "a: [1"),
        ("args.yaml", "a: *b"),
        ("args.yaml", None),
        ("scores.json", '{"test": '),
        ("scores.json", None),
        ("tags.json", "no"),
        ("tags.json", '{"tags": 1}'),
    ],
)
def test_damaged_files_are_named_without_a_traceback(runs, capsys, file, content):
    path = runs / "train" / "first" / file
    path.unlink(missing_ok=True)
    if content is not None:
        write_text(path, content)
    (damaged,) = st.list_runs().damaged
    assert damaged.name == "first"
    assert damaged.damaged[0].startswith(file)
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    assert "damaged" in out
    assert f"{os.path.join('runs', 'train', 'first')}: {file}" in out
    assert out.count("done") == 1


@pytest.mark.parametrize(
    "scores", [{"test": 1}, {"test": {"accuracy": "x"}}, {"test": {"accuracy": 0.5}}]
)
def test_scores_of_another_shape_are_no_accuracy(runs, scores):
    write_json(runs / "train" / "first" / "scores.json", scores)
    first = st.list_runs(text="first").runs[0]
    assert first.test_interval is None
    assert first.test_accuracy in (None, 0.5)


def test_folders_of_other_programs_are_no_runs(runs):
    write_json(runs / "web" / "manifest.json", {"name": "app", "icons": []})
    assert len(st.list_runs()) == 3


def test_a_run_whose_process_was_killed_is_interrupted(runs):
    folder = runs / "train" / "first"
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "status": "running"})
    assert st.list_runs(text="first").runs[0].status == "interrupted"
    host = socket.gethostname()
    write_json(folder / ".lock", {"pid": os.getpid(), "host": host})
    assert st.list_runs(text="first").runs[0].status == "running"
    write_json(folder / ".lock", {"pid": 2**22 + 1, "host": host})
    assert st.list_runs(text="first").runs[0].status == "interrupted"
    write_json(folder / ".lock", {"pid": 2**22 + 1, "host": "elsewhere"})
    assert st.list_runs(text="first").runs[0].status == "running"


def test_tags_change_only_their_file(runs, capsys):
    folder = runs / "train" / "first"
    before = snapshot(folder)
    assert main(["runs", "--tag", "base line", "first"]) == 0
    assert main(["runs", "--tag", "b", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "tags": ["base line", "b"]
    }
    assert tag_run("first", "b") == ("base line", "b")  # not twice
    assert names(st.list_runs(text="base line")) == ["first"]
    assert main(["runs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert {run["name"]: run["tags"] for run in listed}["first"] == ["base line", "b"]
    after = snapshot(folder)
    assert {k: after[k] for k in before} == before
    assert len(after) == len(before) + 1
    assert tag_run("first", "b", remove=True) == ("base line",)
    with pytest.raises(SettingError, match="has no tag 'b'"):
        tag_run("first", "b", remove=True)
    with pytest.raises(SettingError, match="the tag is empty"):
        tag_run("first", " ")
    write_text(folder / "tags.json", "{")
    with pytest.raises(RunError, match=r"tags\.json"):
        tag_run("first", "c")
    assert (folder / "tags.json").read_text() == "{"


def test_an_empty_folder_has_no_runs(tmp_path, capsys):
    assert main(["runs", str(tmp_path)]) == 0
    assert "No runs." in capsys.readouterr().out
    assert "No runs." in str(st.list_runs(tmp_path))


def test_runs_are_listed_without_torch(runs):
    code = (
        "import sys, striate.cli.main as m\n"
        "m.main(['runs'])\n"
        "heavy = {'torch', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "third" in done.stdout
