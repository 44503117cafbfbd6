"""CSV data sets with several labels per image: reading, splits and warnings."""

import csv
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import striate
from striate.core.errors import DataError
from striate.data.load import load_labeled
from striate.data.sources.source import Record
from striate.data.sources.table import read_table
from striate.data.split.assign import assign_splits
from striate.data.split.exact_counts import exact_split
from striate.data.split.fraction import fraction_mask
from striate.data.split.hash_split import SplitConfig
from striate.data.split.iterative_stratification import (
    iterative_stratification,
    rarest_classes,
)
from support.label_sets import write_label_sets

SHARES = {"train": 0.6, "val": 0.15, "test": 0.25}


def table_of(path, labels, header="image_path,label", more=""):
    lines = [f"{i}.png,{label}{more}" for i, label in enumerate(labels)]
    path.write_text("\n".join([header, *lines, ""]))
    return read_table(path)


@pytest.fixture
def table(tmp_path):
    return write_label_sets(tmp_path, count=80)


def test_labels_with_spaces_repetitions_and_none(tmp_path):
    source = table_of(tmp_path / "t.csv", ["b; a", "a", "", "b;b ;", "a ;b"])
    assert source.labels.names == ("a", "b")
    assert source.labels.multi_label
    assert [r.label for r in source.records] == ["a;b", "a", "", "b", "a;b"]


def test_the_column_labels_declares_several_labels(tmp_path):
    source = table_of(tmp_path / "t.csv", ["b", "a", ""], "image_path,labels")
    assert source.labels.multi_label
    assert [r.label for r in source.records] == ["b", "a", ""]
    assert source.warnings == ()


def test_one_label_each_stays_one_label(tmp_path):
    source = table_of(tmp_path / "t.csv", ["b", "a"])
    assert not source.labels.multi_label
    with pytest.raises(DataError, match="line 3 has no path or no label") as error:
        table_of(tmp_path / "t.csv", ["b", "", "a"])
    assert "name the column 'labels'" in error.value.fix


def test_an_incomplete_row_is_no_empty_label(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_path,label\na.png,x;y\nb.png\n")
    with pytest.raises(DataError, match="line 3 has no path or no label"):
        read_table(path)


def test_two_rows_with_other_labels_of_one_image_are_quarantined(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("image_path,label\na.png,x;y\na.png,y;x\nb.png,x;y\nb.png,x\n")
    source = read_table(path)
    assert [(r.path, r.label) for r in source.records] == [("a.png", "x;y")]
    assert [s.reason for s in source.quarantined] == ["two-labels"]
    assert [s.reason for s in source.ignored] == ["duplicate-row"] * 2


def test_the_loaded_labels_are_multi_hot(table):
    data = striate.load_data(table)
    rows = dict(csv.reader(table.read_text().splitlines()))
    for subset in data.subsets.values():
        assert subset.labels.shape == (len(subset), 3)
        texts = [data.labels.text(row.numpy()) for row in subset.labels]
        expected = [
            ";".join(sorted(filter(None, rows[p].split(";")))) for p in subset.paths
        ]
        assert texts == expected
    assert "several labels per image (multi-label)" in data.notes[0]
    half = data.with_fraction(0.5).subset("train").labels
    assert (half.sum(0) >= data.subset("train").labels.sum(0) // 2 - 2).all()


def test_given_splits_and_absent_classes(tmp_path):
    table = write_label_sets(tmp_path, count=30)
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    lines = [f"{p},{label},train" for p, label in rows[:20]]
    lines += [f"{p},red,val" for p, _ in rows[20:]]
    table.write_text("\n".join(["image_path,label,split", *lines, ""]))
    assert len(striate.load_data(table).subset("val")) == 10
    lines[-1] = lines[-1].replace("red", "red;violet")
    lines[-2] = lines[-2].replace("red", "red;violet")
    table.write_text("\n".join(["image_path,label,split", *lines, ""]))
    with pytest.raises(DataError, match="classes without training images: 'violet'"):
        striate.load_data(table)


def test_a_class_in_every_image_is_a_warning(table):
    rows = list(csv.reader(table.read_text().splitlines()))[1:]
    lines = [f"{path},{label};thing" for path, label in rows]
    table.write_text("\n".join(["image_path,label", *lines, ""]))
    warnings = " ".join(striate.load_data(table).warnings)
    assert "every training image has the class thing" in warnings
    assert "mAP or the macro F1" in warnings or "imbalanced" not in warnings


@pytest.mark.parametrize("label", ["", "x"])
def test_no_labels_at_all_and_one_class(tmp_path, label):
    table = write_label_sets(tmp_path, count=40, column="labels")
    lines = [
        f"{path},{label if i % 2 else ''}"
        for i, (path, _) in enumerate(
            list(csv.reader(table.read_text().splitlines()))[1:]
        )
    ]
    table.write_text("\n".join(["image_path,labels", *lines, ""]))
    if not label:
        with pytest.raises(DataError, match="no image has a label"):
            striate.load_data(table)
        return
    data = striate.load_data(table)  # present or absent: one sigmoid
    assert data.subset("train").labels.shape[1] == 1


def test_other_images_of_a_run_may_lack_the_separator(table, tmp_path):
    data = striate.load_data(table)
    other = tmp_path / "other.csv"
    other.write_text("image_path,label\nimages/000.png,red\nimages/001.png,\n")
    subset, _ = load_labeled(other, data.preprocess, data.labels)
    assert subset.labels.tolist() == [[0, 0, 1], [0, 0, 0]]
    single = striate.load_data("digits")
    with pytest.raises(DataError, match="several labels, and the network predicts one"):
        load_labeled(table, single.preprocess, single.labels)
    other.write_text("image_path,label\nimages/000.png,red;pink\n")
    with pytest.raises(DataError, match="lacks these classes: pink"):
        load_labeled(other, data.preprocess, data.labels)


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    shares = (0.6, 0.3, 0.1, 0.04)
    labels = [
        ";".join(n for n, s in zip("abcd", shares, strict=True) if rng.random() < s)
        for _ in range(count)
    ]
    return labels, [f"{seed}-{i}" for i in range(count)]


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(20, 200))
def test_every_class_has_its_share_in_every_split(seed, count):
    """No class is off by more than a few images, rare ones by less than one."""
    labels, contents = drawn(seed, count)
    splits = iterative_stratification(labels, contents, [None] * count, SHARES, 0)
    for name in "abcd":
        own = [s for s, label in zip(splits, labels, strict=True) if name in label]
        if len(own) >= 10:
            for split, share in SHARES.items():
                assert abs(own.count(split) - share * len(own)) <= 0.08 * len(own) + 2
    for split, share in SHARES.items():
        assert abs(splits.count(split) - share * count) <= 0.05 * count + 3


def test_it_is_closer_than_chance():
    """The mean deviation of rare classes is far below that of a random split."""
    off = {"stratified": [], "random": []}
    for seed in range(20):
        labels, contents = drawn(seed, 150)
        rng = np.random.default_rng(seed)
        ways = {
            "stratified": iterative_stratification(
                labels, contents, [None] * 150, SHARES, seed
            ),
            "random": rng.choice(list(SHARES), 150, p=list(SHARES.values())).tolist(),
        }
        for way, splits in ways.items():
            for name in "cd":
                pairs = zip(splits, labels, strict=True)
                own = Counter(s for s, label in pairs if name in label)
                total = own.total()
                off[way] += [abs(own[s] - p * total) for s, p in SHARES.items()]
    assert np.mean(off["stratified"]) < 0.4 * np.mean(off["random"])


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_copies_and_groups_stay_together(seed):
    labels, contents = drawn(seed, 60)
    rng = np.random.default_rng(seed)
    contents = [contents[i] for i in rng.integers(0, 40, 60)]
    groups = [rng.choice(["g", "h", None], p=[0.1, 0.1, 0.8]) for _ in range(60)]
    splits = iterative_stratification(labels, contents, groups, SHARES, seed)
    for key in (contents, groups):
        places = {}
        for name, split in zip(key, splits, strict=True):
            places.setdefault(name, set()).add(split)
        places.pop(None, None)
        assert all(len(found) == 1 for found in places.values())


def test_order_and_names_change_nothing():
    labels, contents = drawn(0, 50)
    config = SplitConfig(folds=5, fold=1)

    def split(order):
        return dict(
            zip(
                (contents[i] for i in order),
                exact_split(
                    [labels[i] for i in order],
                    [contents[i] for i in order],
                    [None] * 50,
                    config,
                    ("val", "test"),
                    iterative_stratification,
                ),
                strict=True,
            )
        )

    assert split(range(50)) == split(range(49, -1, -1))
    assert sorted(Counter(split(range(50)).values())) == ["test", "train", "val"]


def test_a_fraction_is_stratified_by_the_rarest_class():
    labels, contents = drawn(1, 200)
    strata = rarest_classes(labels)
    counts = {name: sum(name in label for label in labels) for name in "abcd"}
    for label, own in zip(labels, strata, strict=True):
        assert own == min(filter(None, label.split(";")), key=counts.get, default="")
    mask = fraction_mask(strata, contents, [None] * 200, 0.3, 0)
    for name in "abcd":
        inside = sum(name in k for k, m in zip(labels, mask, strict=True) if m)
        assert inside == pytest.approx(0.3 * counts[name], abs=0.12 * counts[name] + 2)


def test_the_split_command_counts_each_class(striate, table):
    said = striate_json(striate, "data", "split", table, "--exact", "--json")
    rows = [label for _, label in csv.reader(table.read_text().splitlines())][1:]
    for name, by_split in said["classes"].items():
        assert sum(by_split.values()) == sum(name in label for label in rows)


def striate_json(command, *words):
    said = command(*words)
    assert said.code == 0, said.err
    return said.json


def test_semicolons_between_columns_and_between_classes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('image_path;label\na.png;"cat;dog"\nb.png;cat\n')
    source = read_table(path)
    assert [r.label for r in source.records] == ["cat;dog", "cat"]
    path.write_text("image_path;label\na.png;dog\nb.png;cat\n")
    assert not read_table(path).labels.multi_label
    path.write_text("Image_Path; Labels\na.png; dog\nb.png; \n")
    assert read_table(path).labels.multi_label
    path.write_text("image_path;label\na.png;cat;dog\n")
    with pytest.raises(DataError, match="line 2 has 3 values for 2 columns"):
        read_table(path)


def test_small_classes_are_in_each_split():
    labels = ["a", "b", "a;b", ""] * 60
    labels[::40] = ["a;rare"] * 6
    contents = [str(i) for i in range(240)]
    images = [Record(path=c, label=n) for c, n in zip(contents, labels, strict=True)]
    result = assign_splits(images, contents, SplitConfig(), multi_label=True)
    counts = Counter(row.split for row in result.rows if "rare" in row.label)
    assert counts == {"train": 4, "val": 1, "test": 1}
    assert "1 class has fewer than 50" in result.notes[0]
    assert result.notes[0].count("rare") == 1
