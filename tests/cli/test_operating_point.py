"""`striate evaluate --operating-point` as typed."""

import pytest

from support.images import snapshot


@pytest.fixture
def given(shared_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shared_run.path


def test_it_prints_and_keeps_a_page(striate, given, tmp_path):
    before = snapshot(given)
    said = striate("evaluate", given, "--operating-point", "across", "--recall", "0.8")
    assert (said.code, said.err) == (0, "")
    for text in (
        "Chosen on validation",
        "The unsure band",
        "recall",
        "for 80 % recall",
    ):
        assert text in said.out
    assert f"report  runs/evaluate/{given.name}/report.html" in said.out
    kept = sorted(p.name for p in (tmp_path / "runs/evaluate" / given.name).iterdir())
    assert {"report.html", "detection.json"} <= set(kept)
    assert snapshot(given) == before


def test_json_and_out(striate, given, tmp_path):
    words = ("evaluate", given, "--operating-point", "down", "--json", "--out", "here")
    found = striate(*words).json
    assert (found["class"], found["split"], found["folder"]) == ("down", "test", "here")
    said = striate(*words)
    assert said.code == 2
    assert "exists already" in said.json["what"]
    assert striate(*words, "--overwrite").code == 0


def test_other_images_with_a_bad_one(striate, given, shared_folder, tmp_path):
    other = tmp_path / "other"
    for name in ("across", "down"):
        (other / name).mkdir(parents=True)
        for i, file in enumerate(sorted((shared_folder / name).iterdir())[:6]):
            (other / name / f"{i}.png").write_bytes(file.read_bytes())
    (other / "down" / "bad.png").write_bytes(b"")
    before = snapshot(other)
    said = striate("evaluate", given, "--operating-point", "across", "--data", other)
    assert said.code == 1
    assert "not used: down/bad.png" in said.out
    assert f"come to on {other}" in said.out
    assert snapshot(other) == before


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--recall", "0.9"), "add --operating-point CLASS"),
        (("--overwrite",), "add --operating-point CLASS"),
        (("--operating-point", "acros"), "did you mean across"),
        (("--operating-point", "across", "--part", "val"), "judge test"),
        (("--operating-point", "across", "--by", "kind"), "leave --by out"),
        (("--operating-point", "across", "--recall", "95"), "at most 1"),
    ],
)
def test_refused(striate, given, tmp_path, words, hint):
    before = snapshot(tmp_path)
    said = striate("evaluate", given, *words)
    assert said.code == 2
    assert hint in said.err
    assert snapshot(tmp_path) == before
