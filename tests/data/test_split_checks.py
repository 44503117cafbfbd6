"""Checks of a split: errors and warnings."""

import pytest

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.sources.source import SPLITS, Skipped
from striate.data.split.split_checks import check_classes, check_counts, split_warnings
from striate.data.split.split_file import SplitRow


def row(label, subset, content="", path="p"):
    return SplitRow(path=path, label=label, split=subset, group="", content=content)


def rows(**counts):
    """Rows of `label_part=count`, every image its own."""
    made = []
    for name, count in counts.items():
        label, split = name.split("_")
        made += [row(label, split, f"{name}{i}") for i in range(count)]
    return made


def test_counts():
    check_counts(["a", "b"] * 2)
    with pytest.raises(DataError, match=r"only one class \('a'\)"):
        check_counts(["a"] * 9)
    with pytest.raises(DataError, match=r"only one image \(2 of 3\): 'b', 'c'"):
        check_counts(["a", "a", "b", "c"])


def test_classes_of_given_splits():
    labels = ClassNames(("a", "b", "c"))
    found = [row("c", "train"), row("a", "train"), row("a", "val")]
    assert check_classes(found, labels).names == ("a", "c")
    with pytest.raises(DataError, match="the val split has no images") as caught:
        check_classes(found[:2], labels)
    assert "or use another split" in str(caught.value)
    with pytest.raises(DataError, match="the val split has classes without"):
        check_classes([*found, row("b", "val")], labels)


def test_errors_of_a_new_split_have_a_fix():
    labels = ClassNames(("a", "b", "c"))
    with pytest.raises(DataError) as caught:
        check_classes(
            rows(a_train=5, a_val=2, b_val=1, b_test=1, c_test=2), labels, SPLITS[1:]
        )
    assert "no training images of 2 of 3 classes: b (2), c (2)" in str(caught.value)
    assert "striate data split DATA --exact --out split.csv" in str(caught.value)
    with pytest.raises(DataError, match="the val split has no images") as caught:
        check_classes(rows(a_train=5, b_train=2, b_test=1), labels, SPLITS[1:])
    assert "--exact" in str(caught.value)
    copies = [row("a", "train", "one")] * 20 + [row("b", "test", "two")] * 20
    with pytest.raises(
        DataError,
        match="the val split has no images: the 40 files "
        "are copies of 2 different images",
    ) as caught:
        check_classes(copies, labels, SPLITS[1:])
    assert "add different images" in str(caught.value)
    # A class that only a given test split shows is not for dealing to mend.
    with pytest.raises(DataError, match="the test split has classes without"):
        check_classes(rows(a_train=5, a_val=2, b_test=1), labels, ("val",))


def test_warnings_on_missing_small_and_imbalanced_classes():
    found = rows(a_train=200, a_val=20, a_test=30, b_train=30, b_val=3, c_train=9)
    told = split_warnings([*found, *rows(b_test=2)])
    assert told == (
        "val has no images of 1 of 3 classes (not evaluated): c (9)",
        "test has no images of 1 of 3 classes (not evaluated): c (9)",
        "1 class has fewer than 10 training images: c (9)",
        "imbalanced classes (22:1): a has 200 training images, c 9; use the balanced "
        "accuracy, or train with --class-weights auto",
    )
    even = rows(a_train=10, a_val=1, a_test=1, b_train=99, b_val=1, b_test=1)
    assert split_warnings(even) == ()
    assert split_warnings(rows(a_train=10, a_val=1, b_train=10, b_val=1)) == ()


def test_many_classes_are_named_by_the_first():
    found = rows(**{f"{name}_train": 10 for name in "abcdefgh"}, a_val=1)
    (told,) = split_warnings(found)
    assert told.endswith(
        "7 of 8 classes (not evaluated): b (10), c (10), d (10), e (10), f (10) …"
    )


def test_warnings_on_leaks_and_images_left_out():
    found = [
        row("a", "train", "same", "x"),
        row("a", "val", "other"),
        row("a", "test", "same", "y"),
    ]
    twin = Skipped(path="p", reason="duplicate-in-test", detail="q")
    told = split_warnings(found, [twin])
    assert "1 image of test is also in train (given splits): x = y" in told
    assert (
        "1 image left out, because an equal image of another group is in val or test; "
        "first: p = q"
    ) in told
