"""Operating points stored in a run folder, and the files that are refused."""

from dataclasses import replace

import pytest

from striate.core.class_names import ClassNames
from striate.core.errors import RunError, SettingError, UnknownNameError
from striate.core.files import read_json, write_json
from striate.run.review_rule import NEEDS_REVIEW, ReviewRule
from striate.run.stored_operating_point import (
    StoredOperatingPoint,
    load_operating_point,
    store_operating_point,
    weights_hash,
)

CLASSES = ClassNames(("a b", "a-b", "défaut"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my run"
    (path / "weights").mkdir(parents=True)
    (path / "weights/best.safetensors").write_bytes(b"weights")
    return path


def point(folder, target="a b", **changes):
    values = {"temperature": 1.5, "threshold": 0.3, "review_band": (0.2, 0.8)}
    weights = weights_hash(folder)
    return StoredOperatingPoint(
        **{"target": target, "weights": weights, **values, **changes}
    )


def test_stored_and_loaded(folder):
    """Classes with the same safe name have a file each."""
    points = [
        point(folder, name, threshold=0.1 * i) for i, name in enumerate(CLASSES.names)
    ]
    files = {store_operating_point(folder, CLASSES, each) for each in points}
    assert len(files) == 3
    for each in points:
        assert load_operating_point(folder, CLASSES, 1.5, each.target) == each


def test_no_operating_point_names_the_command(folder):
    with pytest.raises(RunError, match="no operating point for class 'a b'") as caught:
        load_operating_point(folder, CLASSES, 1.5, "a b")
    command = f"striate evaluate '{folder}' --operating-point 'a b'"
    assert caught.value.fix == f"run: {command}"


def test_an_unknown_class_lists_similar_names(folder):
    with pytest.raises(UnknownNameError, match="no class is called 'defaut'") as caught:
        load_operating_point(folder, CLASSES, 1.5, "defaut")
    assert "striate evaluate" in caught.value.fix
    assert caught.value.where == "--operating-point"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "0" * 64}, "chosen for other weights"),
        ({"temperature": 1.0}, "temperature 1, and the temperature of the run is 1.5"),
        ({"target": "cat"}, "for class 'cat', and the run has no such class"),
    ],
)
def test_files_of_other_runs_are_refused(folder, tmp_path, changes, message):
    file = tmp_path / "operating_point.json"
    write_json(file, replace(point(folder), **changes).as_dict())
    with pytest.raises(RunError, match=message) as caught:
        load_operating_point(folder, CLASSES, 1.5, file)
    assert str(file) in str(caught.value)
    assert "run: striate evaluate" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no json", "is not JSON"),
        ("[]", "contains no operating point"),
        ("7", "is damaged"),
        ("{}", "contains no operating point"),
        ('{"weights": "x"}', "is damaged"),
        ('{"threshold": 2}', "is damaged"),
        ('{"threshold": "high"}', "is damaged"),
        ('{"review_band": [0.1]}', "is damaged"),
    ],
)
def test_damaged_files_are_named(folder, tmp_path, content, message):
    file = tmp_path / "operating_point.json"
    store_operating_point(folder, CLASSES, point(folder))
    file.write_text(content)
    if content.startswith('{"') and "weights" not in content:
        write_json(file, point(folder).as_dict() | read_json(file))
    with pytest.raises(RunError, match=message) as caught:
        load_operating_point(folder, CLASSES, 1.5, file)
    assert str(file) in str(caught.value)


def test_missing_weights_are_named(folder):
    (folder / "weights/best.safetensors").unlink()
    with pytest.raises(RunError, match="the weights of the run are missing"):
        weights_hash(folder)


def test_review_and_decision():
    band = StoredOperatingPoint(
        target="cat", weights="", temperature=1, threshold=0.3, review_band=(0.2, 0.8)
    )
    rule = ReviewRule(threshold=0.9, operating_point=band, classes=("cat", "dog"))
    marks = {
        p: (rule.review({"cat": p, "dog": 1 - p}), rule.decision({"cat": p}))
        for p in (0.05, 0.15, 0.25, 0.3, 0.5, 0.85, 0.95)
    }
    assert marks == {
        0.05: ("", "dog"),
        0.15: (NEEDS_REVIEW, "dog"),  # below the threshold of 0.9 only
        0.25: (NEEDS_REVIEW, "dog"),
        0.3: (NEEDS_REVIEW, "cat"),
        0.5: (NEEDS_REVIEW, "cat"),
        0.85: (NEEDS_REVIEW, "cat"),
        0.95: ("", "cat"),
    }
    assert rule.overrules("dog", "cat")
    assert not rule.overrules("dog", "dog")
    assert replace(rule, classes=("cat", "dog", "fox")).rest == "not cat"
    assert "between 20.0 % and 80.0 % need review" in " ".join(rule.sentences)


def test_without_a_band_everything_is_reviewed():
    none = StoredOperatingPoint(
        target="cat", weights="", temperature=1, threshold=0.3, review_band=None
    )
    rule = ReviewRule(operating_point=none, classes=("cat", "dog"))
    assert rule.review({"cat": 0.0, "dog": 1.0}) == NEEDS_REVIEW
    assert "all images need review" in " ".join(rule.sentences)


def test_without_a_rule_nothing_is_marked():
    rule = ReviewRule()
    assert not rule.is_active
    assert (rule.review({"cat": 0.5}), rule.decision({"cat": 0.5})) == ("", "")
    assert not rule.overrules("cat", "")
    assert rule.sentences == []


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan")])
def test_a_threshold_is_a_probability(threshold):
    with pytest.raises(SettingError, match="threshold must be above 0"):
        ReviewRule(threshold=threshold)
