"""Class names with several labels per image: texts, counts and multi-hot rows."""

import numpy as np
import pytest

from striate.core.class_names import ClassNames, split_label
from striate.core.errors import SettingError

PETS = ClassNames(("cat", "dog", "emu"), multi_label=True)
SINGLE = ClassNames(("cat", "dog"))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cat;dog", ("cat", "dog")),
        ("dog ; cat", ("cat", "dog")),
        ("dog;dog", ("dog",)),
        ("cat;", ("cat",)),
        ("", ()),
        (" ; ", ()),
        ("10;9", ("9", "10")),
    ],
)
def test_a_label_of_several_classes(text, names):
    assert split_label(text) == names


def test_labels_are_encoded_and_decoded():
    rows = PETS.encode(["emu;cat", "", "dog"])
    assert rows.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert [PETS.text(row) for row in rows] == ["cat;emu", "", "dog"]
    assert SINGLE.encode(["dog", "cat"]).tolist() == [1, 0]
    assert SINGLE.text(np.array(1)) == "dog"
    with pytest.raises(KeyError):
        PETS.encode(["cow"])


def test_images_are_counted_by_class():
    assert PETS.count(["cat;dog", "dog", ""]) == {"cat": 1, "dog": 2}
    assert SINGLE.count(["cat;dog", "dog"]) == {"cat;dog": 1, "dog": 1}
    assert ClassNames.of_several(["dog;cat", "", "emu"]) == PETS


def test_what_needs_one_class_says_so():
    SINGLE.require_one_label("--cut auto", "name a layer")
    with pytest.raises(SettingError, match="needs images with one class each") as error:
        PETS.require_one_label("--cut auto", "name a layer")
    assert error.value.fix == "name a layer"
