"""An unknown setting is answered with the name that striate uses, if it has one."""

import pytest

from striate.core.synonyms import unknown_setting_error


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("num_epochs", "striate calls it epochs, but it is not a setting here"),
        ("val", "`striate train` evaluates at the end"),
        ("lrr", "lr"),
    ],
)
def test_a_name_that_is_no_setting_here(name, fix):
    error = unknown_setting_error(name, ["lr", "batch_size"])
    assert error.what.startswith(f"no setting is called '{name}'")
    assert fix in error.fix


def test_a_value_and_a_note():
    settings = ["precision", "augment", "flip"]
    assert unknown_setting_error("half", settings).fix.startswith("use precision")
