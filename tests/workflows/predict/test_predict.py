"""`striate predict`: classes and inner outputs of new images."""

import json

import pytest
import torch
from safetensors.torch import load_file

import striate as st
from striate.core.files import read_csv
from support.images import snapshot, write_folder


@pytest.fixture
def fresh(tmp_path):
    return write_folder(tmp_path / "fresh", count=3, seed=9)


def test_predict_inner_outputs(striate, shared_run, fresh, tmp_path):
    """What layers make of a folder, in a file; a wrong name lists the right ones."""
    (fresh / "down" / "broken.png").write_bytes(b"no image")
    out = tmp_path / "rows.safetensors"
    asked = ("predict", shared_run.path, fresh, "--layers", "conv1,pool*", "--out", out)
    said = striate(*asked)
    assert said.code == 1
    assert "conv1" in said.out
    assert "not used" in said.out
    found = striate(*asked, "--json").json
    rows = load_file(out)
    assert {name: list(one.shape) for name, one in rows.items()} == found["layers"]
    assert len(found["images"]) == len(rows["conv1"])
    assert [skip["reason"] for skip in found["skipped"]] == ["not-an-image"]
    again = st.features(shared_run, fresh, "conv1")["conv1"]
    assert torch.equal(again, rows["conv1"])
    wrong = (
        (("--layers", "cnv1", "--out", out), "no layer is called 'cnv1'"),
        (("--layers", "conv1"), "too large to print"),
        (("--layers", "conv1", "--out", tmp_path / "a.csv"), "not '.csv'"),
    )
    for words, message in wrong:
        said = striate("predict", shared_run.path, fresh, *words)
        assert said.code == 2
        assert message in said.err


def test_predict_file_folder_glob(striate, shared_run, fresh):
    one = striate("predict", shared_run.path, fresh / "down/00.png", "--json").json
    assert [p["label"] for p in one["predictions"]] == ["down"]
    assert one["predictions"][0]["score"] > 0.5
    folder = striate("predict", shared_run.path, fresh, "--json").json["predictions"]
    assert [p["label"] for p in folder] == ["across"] * 3 + ["down"] * 3
    pattern = f"{fresh}/*/0[01].png"
    assert (
        len(striate("predict", shared_run.path, pattern, "--json").json["predictions"])
        == 4
    )
    both = striate("predict", shared_run.path, pattern, fresh / "down", "--json").json
    assert len(both["predictions"]) == 7


def test_predict_out(striate, shared_run, fresh, tmp_path):
    said = striate("predict", shared_run.path, fresh, "--out", "a/answers.csv")
    assert said.code == 0
    assert "down" in said.out
    rows = read_csv(tmp_path / "a/answers.csv")
    assert list(rows[0]) == ["path", "pred", "p_across", "p_down"]
    for row in rows:
        assert float(row["p_across"]) + float(row["p_down"]) == pytest.approx(
            1, abs=1e-5
        )
    striate("predict", shared_run.path, fresh, "--out", "answers.json")
    written = json.loads((tmp_path / "answers.json").read_text())
    assert [p["label"] for p in written["predictions"]] == [r["pred"] for r in rows]


def test_predict_with_files_left_out_exits_1(striate, shared_run, fresh):
    (fresh / "down/page.jpg").write_text("<html>")
    (fresh / ".hidden.png").touch()
    before = snapshot(fresh)
    said = striate("predict", shared_run.path, fresh)
    assert said.code == 1
    assert "page.jpg: not-an-image (this is an HTML page)" in said.out
    found = striate("predict", shared_run.path, fresh, "--json")
    assert found.code == 1
    assert [s["reason"] for s in found.json["skipped"]] == ["not-an-image"]
    assert len(found.json["predictions"]) == 6
    assert snapshot(fresh) == before


def test_predict_nothing(striate, shared_run, tmp_path):
    (tmp_path / "zero.png").touch()
    (tmp_path / "empty").mkdir()
    for item in ("gone.png", "*.jpg", "empty"):
        said = striate("predict", shared_run.path, item)
        assert said.code == 2
        assert "no such file" in said.err
    said = striate("predict", shared_run.path, "zero.png")
    assert said.code == 2
    assert "none of 1 files is a usable image" in said.err


def test_long_lists_are_cut_on_screen_only(striate, shared_run, tmp_path):
    write_folder(tmp_path / "many", classes=["x"], count=45)
    said = striate("predict", shared_run.path, "many")
    assert "and 5 more; --out FILE.csv writes all" in said.out


def test_predictions_come_in_batches(striate, shared_run, fresh, monkeypatch):
    from striate.interpret import activations_at as capture

    whole = striate("predict", shared_run.path, fresh, "--json").json
    (fresh / "across/00.png").write_bytes(b"")
    (fresh / "across/01.png").write_bytes(b"")
    monkeypatch.setattr(capture, "MAX_PIXELS", 2 * 8 * 8)
    fresh_only = striate("predict", shared_run.path, fresh, "--json").json
    for mine, theirs in zip(
        fresh_only["predictions"], whole["predictions"][2:], strict=True
    ):
        assert (mine["path"], mine["label"]) == (theirs["path"], theirs["label"])
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-6)
