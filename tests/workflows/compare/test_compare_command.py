"""`striate compare` as typed: what it prints, what it keeps, what it refuses."""

from __future__ import annotations

import re

import pytest

from support.images import snapshot
from support.run_folders import made_run, stop


@pytest.fixture
def runs(tmp_path):
    first = made_run(tmp_path / "runs" / "train" / "first", [False] * 9 + [True] * 31)
    second = made_run(tmp_path / "runs" / "train" / "second", [True] * 40, lr=0.5)
    return first, second


def test_prints_and_changes_nothing(striate, runs, tmp_path):
    before = snapshot(tmp_path)
    said = striate("compare", "first", "second")  # names below runs/train
    assert (said.code, said.err) == (0, "")
    for text in (
        "A  first",
        "lr  0.003  0.5",
        "B classifies 9 images correctly that A gets wrong, and 0 wrong that A gets",
        "+22.5 percentage points (95 % interval",
        "p = 0.0039: B is better.",
        "McNemar's exact test; Tango's score interval.",
        "--html FILE writes a report",
    ):
        assert text in said.out
    assert snapshot(tmp_path) == before


def test_json(striate, runs):
    data = striate("compare", *runs, "--json").json
    assert data["split"] == "test"
    (test,) = data["tests"]
    assert (test["first"], test["second"], test["method"]) == ("A", "B", "mcnemar")
    assert test["p"] == test["p_holm"] == 2 / 2**9
    (pairing,) = test["pairings"]
    counts = [pairing[name] for name in ("both", "gained", "lost", "neither")]
    assert counts == [31, 9, 0, 0]
    assert pairing["classes"]["across"]["gained"] == 5
    assert len(test["flipped_images"]) == 9
    assert test["flipped_images"][0]["correct"] == [0, 1]
    assert data["groups"][0]["runs"][0]["run"] == str(runs[0])
    assert data["setting_differences"][0] == {
        "name": "lr",
        "values": ["0.003", "0.5"],
        "setting": True,
    }


def test_html(striate, runs, tmp_path):
    page = tmp_path / "page.html"
    said = striate("compare", *runs, "--html", page)
    assert said.code == 0
    assert f"report  {page}" in said.out
    assert "B correct, A wrong: 9 images" in page.read_text()
    assert "--html FILE writes" not in said.out
    said = striate("compare", *runs, "--json", "--html", page, "--overwrite")
    assert said.json["split"] == "test"


def test_a_narrow_terminal(striate, runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, to rich
    monkeypatch.setenv("NO_COLOR", "1")
    said = striate("compare", *runs)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said.out)
    assert "\x1b" in said.out
    assert max(map(len, plain.splitlines())) <= 80


def test_the_validation_split(striate, tmp_path):
    runs = [made_run(tmp_path / n, [True] * 9, split="val") for n in ("one", "two")]
    said = striate("compare", *runs)
    assert "the accuracies are optimistic" in " ".join(said.out.split())


@pytest.mark.parametrize("given", [(), ("first",), ("first", "first")])
def test_too_few(striate, runs, given):
    said = striate("compare", *given)
    assert said.code == 2
    assert said.out == ""


def test_one_run_is_refused(striate, runs):
    assert "needs at least two runs, got 1" in striate("compare", "first").err


def test_a_misspelt_run(striate, runs):
    said = striate("compare", "first", "secnd")
    assert said.code == 2
    assert "did you mean second?" in said.err


def test_a_stopped_run(striate, runs):
    stop(runs[1], "the loss became NaN")
    said = striate("compare", *runs)
    assert said.code == 2
    assert "training stopped (the loss became NaN)" in said.err
    assert "remove these runs, or finish their training" in said.err


def test_other_classes(striate, runs, tmp_path):
    other = made_run(tmp_path / "other", [True] * 4, classes=("up", "left"))
    said = striate("compare", runs[0], other)
    assert said.code == 2
    assert "the runs have different classes" in said.err


def test_a_mistake_as_json(striate, runs):
    said = striate("compare", "first", "--json")
    assert (said.code, said.json["error"]) == (2, "SettingError")
