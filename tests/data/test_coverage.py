"""What a split is refused for, and what a user is told of it."""

import pytest

from striate.core.errors import DataError
from striate.core.spec import Labels
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.coverage import check_classes, check_counts, warnings_of
from striate.data.split.split_file import SplitRow


def row(label, split, content="", path="p"):
    return SplitRow(path=path, label=label, split=split, group="", content=content)


def rows(**counts):
    """Rows of `label_part=count`, every image its own."""
    made = []
    for name, count in counts.items():
        label, split = name.split("_")
        made += [row(label, split, f"{name}{i}") for i in range(count)]
    return made


def test_counts():
    check_counts(["a", "b"] * 2)
    with pytest.raises(DataError, match=r"one class only \('a'\)"):
        check_counts(["a"] * 9)
    with pytest.raises(DataError, match="2 of 3 classes have one image: 'b', 'c'"):
        check_counts(["a", "a", "b", "c"])


def test_classes_of_given_splits():
    labels = Labels(("a", "b", "c"))
    found = [row("c", "train"), row("a", "train"), row("a", "val")]
    assert check_classes(found, labels).names == ("a", "c")
    with pytest.raises(DataError, match="the val split has no images") as caught:
        check_classes(found[:2], labels)
    assert "or another split" in str(caught.value)
    with pytest.raises(DataError, match="the val split has classes that training has"):
        check_classes([*found, row("b", "val")], labels)


def test_classes_of_dealt_splits_come_with_the_way_out():
    labels = Labels(("a", "b", "c"))
    with pytest.raises(DataError) as caught:
        check_classes(
            rows(a_train=5, a_val=2, b_val=1, b_test=1, c_test=2), labels, SPLITS[1:]
        )
    assert "no training image falls to 2 of 3 classes: b (2), c (2)" in str(
        caught.value
    )
    assert "striate data split DATA --exact --out split.csv" in str(caught.value)
    with pytest.raises(DataError, match="the val split has no images") as caught:
        check_classes(rows(a_train=5, b_train=2, b_test=1), labels, SPLITS[1:])
    assert "--exact" in str(caught.value)
    # A class that only a given test split shows is not for dealing to mend.
    with pytest.raises(DataError, match="the test split has classes that training has"):
        check_classes(rows(a_train=5, a_val=2, b_test=1), labels, ("val",))


def test_what_is_unseen_small_or_uneven_is_told_with_figures():
    found = rows(a_train=200, a_val=20, a_test=30, b_train=30, b_val=3, c_train=9)
    told = warnings_of([*found, *rows(b_test=2)])
    assert told == (
        "val has no image of 1 of 3 classes and says nothing of them: c (9)",
        "test has no image of 1 of 3 classes and says nothing of them: c (9)",
        "1 classes have under 10 training images: c (9)",
        "uneven classes, 22 to 1: a has 200 training images, c 9; read the balanced "
        "accuracy; --class-weights auto evens them out",
    )
    even = rows(a_train=10, a_val=1, a_test=1, b_train=99, b_val=1, b_test=1)
    assert warnings_of(even) == ()
    assert warnings_of(rows(a_train=10, a_val=1, b_train=10, b_val=1)) == ()


def test_many_classes_are_named_by_the_first():
    found = rows(**{f"{name}_train": 10 for name in "abcdefgh"}, a_val=1)
    (told,) = warnings_of(found)
    assert told.endswith(
        "7 of 8 classes and says nothing of them: b (10), c (10), "
        "d (10), e (10), f (10) …"
    )


def test_leaks_as_given_and_images_left_out():
    found = [
        row("a", "train", "same", "x"),
        row("a", "val", "other"),
        row("a", "test", "same", "y"),
    ]
    twin = Skipped(path="p", reason="twin-in-test", detail="q")
    told = warnings_of(found, [twin])
    assert "1 images of test are also in train, as given: x = y" in told
    assert (
        "images left out, because equal ones of another group are judged on: "
        "1, first p = q"
    ) in told
