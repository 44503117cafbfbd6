"""`striate predict`: classes and inner outputs of new images."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import striate as st
from striate.core.errors import DataError, RunError
from striate.core.files import read_csv, read_json, write_json
from striate.report.html import render_page
from striate.run.run import Run
from striate.run.stored_operating_point import StoredOperatingPoint, weights_hash
from striate.workflows.predict import page as predict_page
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
    found = striate(*asked, "--json", "--overwrite").json
    rows = load_file(out)
    assert {name: list(one.shape) for name, one in rows.items()} == found["layers"]
    assert len(found["images"]) == len(rows["conv1"])
    assert [skip["reason"] for skip in found["skipped"]] == ["not-an-image"]
    again = st.features(shared_run, fresh, "conv1")["conv1"]
    assert torch.equal(again, rows["conv1"])
    wrong = (
        (
            ("--layers", "cnv1", "--out", out, "--overwrite"),
            "no layer is called 'cnv1'",
        ),
        (("--layers", "conv1"), "too large to print"),
        (("--layers", "conv1", "--out", tmp_path / "a.csv"), "not '.csv'"),
    )
    for words, message in wrong:
        said = striate("predict", shared_run.path, fresh, *words)
        assert said.code == 2
        assert message in said.err


def test_predict_file_folder_glob(striate, shared_run, fresh):
    one = striate("predict", shared_run.path, fresh / "down/00.png", "--json").json
    assert [p["pred"] for p in one["predictions"]] == ["down"]
    assert one["predictions"][0]["probability"] > 0.5
    folder = striate("predict", shared_run.path, fresh, "--json").json["predictions"]
    assert [p["pred"] for p in folder] == ["across"] * 3 + ["down"] * 3
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
    assert list(rows[0]) == ["image_path", "pred", "probability", "p_across", "p_down"]
    for row in rows:
        assert float(row["p_across"]) + float(row["p_down"]) == pytest.approx(
            1, abs=1e-5
        )
    striate("predict", shared_run.path, fresh, "--out", "answers.json")
    written = json.loads((tmp_path / "answers.json").read_text())
    assert [p["pred"] for p in written["predictions"]] == [r["pred"] for r in rows]


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
    messages = {
        "gone.png": "no such file",
        "*.jpg": "no file matches this pattern",
        "empty": "the folder contains no files",
    }
    for item, message in messages.items():
        said = striate("predict", shared_run.path, item)
        assert said.code == 2
        assert message in said.err
    said = striate("predict", shared_run.path, "zero.png")
    assert said.code == 2
    assert "none of 1 file is a usable image" in said.err


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
        assert (mine["image_path"], mine["pred"]) == (
            theirs["image_path"],
            theirs["pred"],
        )
        assert mine["probability"] == pytest.approx(theirs["probability"], abs=1e-6)


def test_top_classes_are_printed(striate, shared_run, fresh):
    said = striate("predict", shared_run.path, fresh / "down/00.png")
    (line,) = [line for line in said.out.splitlines() if "00.png" in line]
    assert "across (" in line.partition(" %")[2]
    said = striate("predict", shared_run.path, fresh / "down/00.png", "--top", "1")
    assert "across (" not in said.out
    assert "down" in said.out
    said = striate("predict", shared_run.path, fresh, "--top", "0")
    assert said.code == 2
    assert "--top must be at least 1" in said.err


def test_top_is_at_most_the_number_of_classes(shared_run, fresh):
    (prediction,) = shared_run.predict(fresh / "down/00.png").predictions
    assert [name for name, _ in prediction.top()] == ["down", "across"]
    assert prediction.top()[0] == (prediction.pred, prediction.probability)
    assert prediction.top(1) == prediction.top()[:1]


def test_threshold_marks_for_review(striate, shared_run, fresh, tmp_path):
    """In the terminal, the CSV and the JSON: the same images."""
    plain = shared_run.predict(fresh)
    probs = sorted(each.probability for each in plain.predictions)
    threshold = (probs[2] + probs[3]) / 2
    words = ("predict", shared_run.path, fresh, "--threshold", str(threshold))
    said = striate(*words, "--out", "a.csv")
    assert "Marked for review: 3 of 6 images." in said.out
    assert said.out.count("needs review") == 3
    rows = read_csv(tmp_path / "a.csv")
    assert list(rows[0])[:4] == ["image_path", "pred", "probability", "review"]
    marked = {row["image_path"] for row in rows if row["review"] == "needs review"}
    assert marked == {
        each.image_path for each in plain.predictions if each.probability < threshold
    }
    data = striate(*words, "--json").json
    assert {p["image_path"] for p in data["predictions"] if p["review"]} == marked
    assert data["threshold"] == threshold
    assert "review" not in striate("predict", shared_run.path, fresh, "--json").out
    said = striate("predict", shared_run.path, fresh, "--threshold", "1.5")
    assert said.code == 2
    assert "threshold must be above 0" in said.err


def test_operating_point_of_evaluate(striate, shared_run, fresh, tmp_path):
    copy = tmp_path / "copy of run"
    shutil.copytree(shared_run.path, copy)
    words = ("predict", copy, fresh, "--operating-point", "down")
    said = striate(*words)
    assert said.code == 2
    command = f"striate evaluate '{copy}' --operating-point down"
    assert f"run: {command}" in said.err
    said = striate(*shlex.split(command)[1:])
    assert said.code == 0
    assert "stored for: striate predict" in said.out
    data = striate(*words, "--json").json
    point = data["operating_point"]
    assert point["class"] == "down"
    report = read_json(tmp_path / "runs/evaluate/copy-of-run/operating_point.json")
    assert point["threshold"] == report["threshold"]
    band = point["review_band"]
    for each in data["predictions"]:
        prob = each["probabilities"]["down"]
        assert (each["decision"] == "down") == (prob >= point["threshold"])
        review = bool(band) and band["from"] < prob < band["to"]
        assert (each["review"] == "needs review") == review
    said = striate(*words[:3], "--operating-point", "runs/evaluate/copy-of-run")
    assert said.code == 0
    with (copy / "weights/best.safetensors").open("ab") as file:
        file.write(b" ")
    said = striate(*words)
    assert said.code == 2
    assert "other weights" in said.err
    assert command in said.err
    said = striate(*words[:3], "--operating-point", "dawn")
    assert said.code == 2
    assert "did you mean down" in said.err


def test_html_page(striate, shared_run, fresh, tmp_path):
    (fresh / "down/page.jpg").write_text("<html>")
    plain = shared_run.predict(fresh)
    by_confidence = sorted(plain.predictions, key=lambda each: each.probability)
    threshold = (by_confidence[1].probability + by_confidence[2].probability) / 2
    words = ("predict", shared_run.path, fresh, "--html", "page.html")
    said = striate(*words, "--threshold", str(threshold))
    assert said.code == 1
    assert "page  page.html" in said.out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<bdi>⚑ needs review") == 2
    heads = [page.index(f">{title}</h2>") for title in ("Needs review", "Predictions")]
    marks = [found.start() for found in re.finditer("⚑", page)]
    assert heads[0] < marks[0] < marks[-1] < heads[1]
    assert "page.jpg" in page
    assert "this is an HTML page" in page
    assert page.count('role="img"') == 6
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert striate(*words).code == 2
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    striate(*words, "--overwrite")
    assert "⚑" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_html_page_of_a_class(striate, shared_run, fresh, tmp_path, monkeypatch):
    """A decision that differs from the most probable class; too many images."""
    run = Run(shared_run.path)
    point = StoredOperatingPoint(
        target="down",
        weights=weights_hash(run.path),
        temperature=run.temperature,
        threshold=0.0,
        review_band=(0.5, 0.5),
    )
    write_json(tmp_path / "operating_point.json", point.as_dict())
    result = run.predict([fresh], operating_point=tmp_path)
    assert {each.decision for each in result.predictions} == {"down"}
    monkeypatch.setattr(predict_page, "MAX_THUMBNAILS", 4)
    (fresh / "down/00.png").unlink()  # after the prediction
    page = render_page(predict_page.predictions_page(run, result))
    assert page.count("<bdi>decision (operating point): down") == 3
    assert page.count('role="img"') == 4
    assert "This page shows 4 of 6 images" in page


def test_existing_files_are_kept(striate, shared_run, fresh, tmp_path):
    """Also the CSV that belongs to a file of features."""
    for name in ("a.csv", "page.html", "rows.csv"):
        (tmp_path / name).write_text("years of work")
    before = snapshot(tmp_path)
    for words in (
        ("--out", "a.csv"),
        ("--html", "page.html"),
        ("--layers", "conv1", "--out", "rows.npy"),
    ):
        said = striate("predict", shared_run.path, fresh, *words)
        assert said.code == 2
        assert "add --overwrite" in said.err
    assert snapshot(tmp_path) == before
    same = ("--out", "b.csv", "--html", "b.csv")
    assert "same file" in striate("predict", shared_run.path, fresh, *same).err
    with pytest.raises(RunError, match="already exists"):
        shared_run.predict([fresh]).save("a.csv")
    said = striate("predict", shared_run.path, fresh, "--out", "a.csv", "--overwrite")
    assert said.code == 0
    assert len(read_csv(tmp_path / "a.csv")) == 6


@pytest.mark.parametrize("flag", ["--top", "--threshold", "--html"])
def test_flags_of_classes_are_refused_for_layers(striate, shared_run, fresh, flag):
    words = ("--layers", "conv1", "--out", "rows.npy", flag, "1")
    said = striate("predict", shared_run.path, fresh, *words)
    assert said.code == 2
    assert f"{flag} has no effect with --layers" in said.err


def test_narrow_terminal_shows_two_lines(shared_run, fresh):
    result = shared_run.predict([fresh], threshold=1.0)
    lines = result.lines()
    assert len(lines) == 2 * 6 + 2
    assert lines[0].endswith(str(fresh / "across/00.png"))
    assert "needs review" in lines[0]
    assert lines[1].strip().startswith("other: ")


def test_a_result_is_plain_text(shared_run, fresh):
    """A path, a list of paths, a method of the run and a function: the same."""
    (fresh / "down/page.jpg").write_text("<html>")
    result = shared_run.predict(str(fresh))
    assert "not used: " in str(result)
    assert "image_path" in str(result).splitlines()[0]
    assert result == st.predict(shared_run, [fresh]) == shared_run.predict([fresh])


def test_what_cannot_be_read_is_listed(striate, shared_run, fresh, monkeypatch):
    """A dangling link, a pipe, and a folder without permission: not left out silently.

    A linked folder is read like any other.
    """
    (fresh / "down/gone.png").symlink_to("nowhere.png")
    os.mkfifo(fresh / "down/pipe.png")
    (fresh / "locked").mkdir()
    write_folder(fresh.parent / "elsewhere", ("more",), count=2)
    (fresh / "linked").symlink_to(fresh.parent / "elsewhere")
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, denied(getattr(os, name), fresh / "locked"))
    found = striate("predict", shared_run.path, fresh, "--json").json
    reasons = {Path(s["image_path"]).name: s["reason"] for s in found["skipped"]}
    assert reasons == {
        "gone.png": "missing",
        "pipe.png": "not-a-file",
        "locked": "unreadable",
    }
    paths = [p["image_path"] for p in found["predictions"]]
    assert len(paths) == 8
    assert str(fresh / "linked/more/00.png") in paths


def denied(real, folder):
    def deny(path="."):
        if os.fspath(path) == os.fspath(folder):
            raise PermissionError(13, "Permission denied")
        return real(path)

    return deny


def test_an_array_is_refused_in_one_line(shared_run):
    """The whole array was printed."""
    array = np.zeros((300, 300, 3), np.uint8)
    for use, images in ((st.predict, [array]), (st.explain, array)):
        with pytest.raises(DataError, match="paths of files, got: ndarray") as caught:
            use(shared_run, images)
        assert len(str(caught.value)) < 300
