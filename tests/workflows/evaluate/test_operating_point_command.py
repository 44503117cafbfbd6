"""`striate evaluate --operating-point` as typed."""

import shutil

import pytest

from striate.core.files import read_json
from support.images import snapshot


@pytest.fixture
def run_path(shared_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shared_run.path, tmp_path / "run")
    return tmp_path / "run"


def test_prints_tables_and_writes_the_report(striate, run_path, tmp_path):
    before = snapshot(run_path)
    said = striate(
        "evaluate", run_path, "--operating-point", "across", "--recall", "0.8"
    )
    assert (said.code, said.err) == (0, "")
    for text in (
        "Chosen on validation",
        "Review band",
        "recall",
        "for 80 % recall",
    ):
        assert text in said.out
    assert f"report  runs/evaluate/{run_path.name}/report.html" in said.out
    files = sorted(
        p.name for p in (tmp_path / "runs/evaluate" / run_path.name).iterdir()
    )
    assert {"report.html", "operating_point.json"} <= set(files)
    stored = run_path / "operating_points/0-across.json"
    text = f"stored for: striate predict {run_path} IMAGE --operating-point across"
    assert text in said.out
    assert read_json(stored)["class"] == "across"
    shutil.rmtree(stored.parent)  # nothing else was written
    assert snapshot(run_path) == before


def test_json_and_out(striate, run_path, tmp_path):
    words = (
        "evaluate",
        run_path,
        "--operating-point",
        "down",
        "--json",
        "--out",
        "here",
    )
    data = striate(*words).json
    assert (data["class"], data["split"], data["folder"]) == ("down", "test", "here")
    said = striate(*words)
    assert said.code == 2
    assert "already exists" in said.json["what"]
    assert striate(*words, "--overwrite").code == 0


def test_other_images_with_a_bad_one(striate, run_path, shared_folder, tmp_path):
    other = tmp_path / "other"
    for name in ("across", "down"):
        (other / name).mkdir(parents=True)
        for i, file in enumerate(sorted((shared_folder / name).iterdir())[:6]):
            (other / name / f"{i}.png").write_bytes(file.read_bytes())
    (other / "down" / "bad.png").write_bytes(b"")
    before = snapshot(other)
    said = striate("evaluate", run_path, "--operating-point", "across", "--data", other)
    assert said.code == 1
    assert "not used: down/bad.png" in said.out
    assert f"of the thresholds on {other}" in said.out
    assert snapshot(other) == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--recall", "0.9"), "add --operating-point CLASS"),
        (("--overwrite",), "add --operating-point CLASS"),
        (("--operating-point", "acros"), "did you mean across"),
        (("--operating-point", "across", "--split", "val"), "use --split test"),
        (("--operating-point", "across", "--by", "kind"), "remove --by"),
        (("--operating-point", "across", "--recall", "95"), "at most 1"),
    ],
)
def test_refused(striate, run_path, tmp_path, words, hint):
    before = snapshot(tmp_path)
    said = striate("evaluate", run_path, *words)
    assert said.code == 2
    assert hint in said.err
    assert snapshot(tmp_path) == before
