"""Class names that look the same: told by the data check and by training."""

import unicodedata

import pytest

from striate.data.load import load_data
from striate.data.sources.lookalike_classes import lookalike_warnings
from support.images import write_folder


@pytest.mark.parametrize(
    "names",
    [
        ("Cat", "cat"),
        ("cat", "cat "),
        ("cat", "cat\u200b"),
        ("polar bear", "polar_bear"),
        ("polar bear", "polar-bear"),
        ("Straße", "strasse"),
    ],
)
def test_names_that_look_the_same(names):
    (warning,) = lookalike_warnings([*names, "dog"])
    assert all(repr(name) in warning for name in names)


def test_two_unicode_forms_are_shown_as_codes():
    names = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    (warning,) = lookalike_warnings(names)
    assert "'caf\\xe9', 'cafe\\u0301'" in warning


@pytest.mark.parametrize("names", [("1", "-1"), ("a", "b"), ("C", "C++"), ("1", "01")])
def test_names_that_differ(names):
    assert lookalike_warnings(names) == []


def test_many_groups_are_counted():
    names = [f"{kind}{i}" for i in range(7) for kind in "xX"]
    warnings = lookalike_warnings(names)
    assert len(warnings) == 6
    assert warnings[-1] == "7 groups of class names look the same"


def test_the_data_check_and_training_tell(striate, tmp_path):
    write_folder(tmp_path / "photos", ("cat", "Cat ", "dog"), count=4)
    result = striate("data", "check", tmp_path / "photos")
    assert result.code == 1
    assert "look the same: 'Cat ', 'cat'" in result.out
    assert "look the same" in load_data(tmp_path / "photos").warnings[0]
