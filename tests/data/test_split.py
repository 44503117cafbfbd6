"""The split: every picture in one part, nothing that belongs together torn apart."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.core.errors import DataError, SettingError
from striate.core.spec import Labels
from striate.data.assign import SplitRow, assign, check_classes, check_fractions
from striate.data.sources.source import Record
from striate.data.split import split, units

SHARES = [
    {"train": 0.6, "val": 0.15, "test": 0.25},
    {"train": 0.75, "val": 0.25},
    {"train": 0.9, "val": 0.1, "test": 0.0},
    {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3},
]

LABELS = st.sampled_from("abc")
CONTENT = st.integers(0, 30).map(str)
GROUP = st.none() | st.sampled_from(["g1", "g2", "g3", "g4"])
PICTURES = st.lists(st.tuples(LABELS, CONTENT, GROUP), min_size=1, max_size=60)
PLAIN = st.lists(LABELS, min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(PICTURES, st.sampled_from(SHARES), st.integers(0, 5))
def test_groups_and_duplicates_never_straddle(pictures, shares, seed):
    labels, contents, groups = zip(*pictures, strict=True)
    parts = split(labels, contents, groups, shares, seed)
    assert len(parts) == len(pictures)
    assert set(parts) <= {part for part, share in shares.items() if share}
    where = defaultdict(set)
    for content, group, part in zip(contents, groups, parts, strict=True):
        where["content", content].add(part)
        if group:
            where["group", group].add(part)
    assert all(len(found) == 1 for found in where.values())


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.sampled_from(SHARES), st.integers(0, 5))
def test_fractions_hold_to_the_nearest_picture(labels, shares, seed):
    contents = [str(i) for i in range(len(labels))]
    parts = split(labels, contents, [None] * len(labels), shares, seed)
    counts = Counter(zip(labels, parts, strict=True))
    for label, total in Counter(labels).items():
        for part, share in shares.items():
            assert abs(counts[label, part] - share * total) < 1


@settings(max_examples=150, deadline=None)
@given(PICTURES, st.sampled_from(SHARES), st.randoms(use_true_random=False))
def test_the_order_of_files_changes_nothing(pictures, shares, random):
    """Files of one content lie together, so the part belongs to the content."""

    def dealt(shown):
        labels, contents, groups = zip(*shown, strict=True)
        parts = split(labels, contents, groups, shares, 0)
        return dict(zip(contents, parts, strict=True))

    shuffled = list(pictures)
    random.shuffle(shuffled)
    assert dealt(shuffled) == dealt(pictures)


def test_another_seed_deals_another_split():
    contents = [str(i) for i in range(40)]
    dealt = [split(["a"] * 40, contents, [None] * 40, SHARES[0], s) for s in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_names_change_nothing():
    def parts(prefix):
        records = [Record(path=f"{prefix}{i}", label="ab"[i % 2]) for i in range(40)]
        contents = [str(i) for i in range(40)]
        return [row.part for row in assign(records, contents, SHARES[0], 0)]

    assert parts("a") == parts("zzz")


def test_units_join_what_shares_content_or_group():
    contents = ["x", "y", "x", "z", "z", "w"]
    groups = ["a", None, "b", "b", "c", None]
    assert units(contents, groups) == [[0, 2, 3, 4], [1], [5]]


@pytest.mark.parametrize(
    ("val", "test"), [(0, 0.2), (1, 0), (0.5, 0.5), (-0.1, 0.2), (0.2, -0.1)]
)
def test_impossible_fractions(val, test):
    with pytest.raises(SettingError, match="must leave some to train on") as caught:
        check_fractions(val, test)
    assert "--val-fraction 0.15 --test-fraction 0.25" in str(caught.value)


def row(label, part):
    return SplitRow(path="p", label=label, part=part, group="", content="c")


def test_classes_of_the_parts():
    labels = Labels(("a", "b", "c"))
    rows = [row("c", "train"), row("a", "train"), row("a", "val")]
    assert check_classes(rows, labels).names == ("a", "c")
    with pytest.raises(DataError, match="the val part has no pictures"):
        check_classes(rows[:2], labels)
    with pytest.raises(DataError, match="the val part has classes that training has"):
        check_classes([*rows, row("b", "val")], labels)


def test_pictures_without_a_part_beside_some_with_one_are_training():
    given_parts = ["train", None, "val", "test"] * 3
    records = [
        Record(path=f"{i}", label="ab"[i % 2], part=part)
        for i, part in enumerate(given_parts)
    ]
    rows = assign(records, [str(i) for i in range(12)], SHARES[0], 0)
    assert [r.part for r in rows] == [part or "train" for part in given_parts]
