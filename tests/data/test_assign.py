"""Assignment of splits: a function of content or group, and the seed.

Each promise was seen to break without its guard: a draw that takes in the number of
images, or their order, moves old ones; without `_duplicates_to_leave_out`, equal images
of two groups straddle; a hash of content alone splits groups.
"""

import math
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import count, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.core.errors import SettingError
from striate.data.sources.source import SPLITS, Record
from striate.data.split import assign as assign_module
from striate.data.split.assign import assign_splits, held_out_splits
from striate.data.split.hash_split import (
    SPAN,
    SplitConfig,
    hash_number,
    split_of_number,
)
from striate.data.split.split_file import SplitRow

HASH = {"exact_below": 0}  # by hash alone, however small a class is
DEALS = [
    SplitConfig(**HASH),
    SplitConfig(val=0.25, test=0.0, **HASH),
    SplitConfig(val=0.1, test=0.1, seed=5, **HASH),
    SplitConfig(val=1 / 3, test=1 / 3, **HASH),
    SplitConfig(folds=5, fold=3, **HASH),
    SplitConfig(val=0.3, folds=3, fold=0, seed=2, **HASH),
]
NUMBERS = st.integers(0, SPAN - 1)


def made(draws, size, groups, contents):
    """Images of few contents and groups, so that duplicates and groups collide."""
    names = draws.integers(1 << 60, size=size).tolist()
    chosen = draws.integers(0, groups + 1, size).tolist()
    shown = draws.integers(0, contents, size).tolist()
    records = [
        Record(path=f"{n}", label="abc"[c % 3], group=f"g{g}" if g < groups else None)
        for n, g, c in zip(names, chosen, shown, strict=True)
    ]
    return records, [f"{c}" for c in shown]


def outcome(records, contents, split_config):
    """Part by path; None for an image left out."""
    results = assign_splits(records, contents, split_config).results
    return {
        record.path: result.split if isinstance(result, SplitRow) else None
        for record, result in zip(records, results, strict=True)
    }


def check_promises(seed, size, groups, contents, split_config):
    draws = np.random.default_rng(seed)
    records, hashes = made(draws, size, groups, contents)
    before = outcome(records, hashes, split_config)

    # Nothing that belongs together is torn apart.
    where = defaultdict(set)
    for record, content in zip(records, hashes, strict=True):
        if split := before[record.path]:
            where["content", content].add(split)
            where["group", record.group or record.path].add(split)
    assert all(len(splits) == 1 for splits in where.values())

    # Shares hold as far as chance allows: Hoeffding's bound, broken once in 10⁹.
    units = {r.group or c for r, c in zip(records, hashes, strict=True)}
    placed = [
        split_of_number(
            hash_number(split_config.seed, "split", u, u if u[0] == "g" else None),
            split_config,
            SPLITS[1:],
        )
        for u in units
    ]
    slack = math.sqrt(math.log(2e9) / (2 * len(units)))
    for split, share in split_config.shares.items():
        assert abs(placed.count(split) / len(units) - share) <= slack

    # A tenth more files, in any order: no old one moves, and no test one goes.
    more, more_hashes = made(draws, -(-size // 10), groups + 1, contents + 2)
    order = draws.permutation(size + len(more)).tolist()
    together, all_hashes = [*records, *more], [*hashes, *more_hashes]
    after = outcome(
        [together[i] for i in order], [all_hashes[i] for i in order], split_config
    )
    for path, split in before.items():
        if after[path] != split:
            assert after[path] is None
            assert split in ("train", "val")


cases = given(
    st.integers(0, 2**32),
    st.integers(1, 30),
    st.integers(0, 9),
    st.integers(1, 45),
    st.sampled_from(DEALS),
)


@settings(max_examples=300)
@cases
def test_the_promises(seed, size, groups, contents, split_config):
    check_promises(seed, size, groups, contents, split_config)


@pytest.mark.slow
@settings(max_examples=2500)
@cases
def test_the_promises_in_ten_thousand_sets(seed, size, groups, contents, split_config):
    for extra in range(4):
        check_promises(seed + extra, size, groups, contents, split_config)


SEEN = count()


def by_count(deal_seed, purpose, content, group=None):
    return next(SEEN) * (SPAN // 7) % SPAN


def by_content_alone(seed, purpose, content, group=None):
    return hash_number(seed, purpose, content)


@pytest.mark.parametrize(
    ("guard", "without"),
    [
        ("hash_number", by_count),
        ("hash_number", by_content_alone),
        ("_duplicates_to_leave_out", lambda pool, splits, records, contents: {}),
    ],
)
def test_each_guard_is_needed(monkeypatch, guard, without):
    monkeypatch.setattr(assign_module, guard, without)
    with pytest.raises(AssertionError):
        check_many()


def check_many():
    for seed in range(50):
        check_promises(seed, 40, 4, 30, SplitConfig(**HASH))


# --- shares


@given(NUMBERS, st.integers(2, 12), st.booleans())
def test_folds_contain_every_image_once(number, folds, own_test):
    """Edges are whole numbers: rounded ones could overlap, or leave a gap."""
    splits = ("val",) if own_test else ("val", "test")
    judged = "val" if own_test else "test"
    deals = [SplitConfig(val=0.1, folds=folds, fold=i) for i in range(folds)]
    places = [split_of_number(number, split_config, splits) for split_config in deals]
    assert places.count(judged) == 1
    if not own_test:
        assert places.count("val") <= -(-folds // 10) + 1


@pytest.mark.parametrize("folds", [2, 3, 7, 10])
def test_the_edges_of_folds(folds):
    edges = [i * SPAN // folds for i in range(1, folds)]
    for number in [
        0,
        SPAN - 1,
        *edges,
        *(e - 1 for e in edges),
        *(e + 1 for e in edges),
    ]:
        deals = [SplitConfig(val=0.05, folds=folds, fold=i) for i in range(folds)]
        assert [split_of_number(number, d, SPLITS[1:]) for d in deals].count(
            "test"
        ) == 1


@given(NUMBERS, st.floats(0.01, 0.45), st.floats(0.01, 0.45), st.floats(0.0, 0.5))
def test_another_share_of_validation_moves_nothing_into_the_test(number, a, b, test):
    small, large = sorted((a, b))
    few, many = (SplitConfig(val=val, test=test) for val in (small, large))
    places = (
        split_of_number(number, few, SPLITS[1:]),
        split_of_number(number, many, SPLITS[1:]),
    )
    assert (places[0] == "test") == (places[1] == "test")
    assert places[0] != "val" or places[1] == "val"
    # Where the test is given, the same images validate.
    assert (split_of_number(number, few, ("val",)) == "val") == (places[0] == "val")


def test_shares_in_large_numbers():
    split_config = SplitConfig(val=0.15, test=0.25)
    places = [
        split_of_number(hash_number(0, "split", f"{i}"), split_config, SPLITS[1:])
        for i in range(40_000)
    ]
    for split, share in split_config.shares.items():
        off = abs(places.count(split) / 40_000 - share)
        assert off < 4 * math.sqrt(share * (1 - share) / 40_000)


def test_places_are_frozen():
    """An image's place must be the same in every later version."""
    assert hash_number(0, "split", "abc") == FROZEN[0]
    assert hash_number(0, "split", "abc", "patient 7") == FROZEN[1]
    places = [
        split_of_number(hash_number(0, "split", f"{i}"), SplitConfig(), SPLITS[1:])[1]
        for i in range(20)
    ]
    assert "".join(places) == FROZEN[2]


FROZEN = (7426660094745113573, 8820042319352463617, "ereeareeaerrerrrraar")


def test_another_seed_deals_another_split():
    dealt = [
        [hash_number(seed, "split", f"{i}") for i in range(9)] for seed in (0, 0, 1)
    ]
    assert dealt[0] == dealt[1] != dealt[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"val": 0, "test": 0.2},
            "no images are left for training; validation + test is 0 + 0.2",
        ),
        ({"val": 1, "test": 0}, "no images are left for training"),
        (
            {"val": 0.5, "test": 0.5},
            "no images are left for training; validation + test is 0.5 + 0.5",
        ),
        ({"val": -0.1}, "no images are left for training"),
        ({"test": -0.1}, "no images are left for training"),
        (
            {"val": 0.6, "folds": 2, "fold": 0},
            "no images are left for training; validation + test is 0.6 + 0.5",
        ),
        ({"folds": 5}, "for example --folds 5 --fold 0"),
        ({"fold": 1}, "must be given together"),
        ({"folds": 1, "fold": 0}, "folds must be at least 2, got 1"),
        ({"folds": 5, "fold": 5}, "there is no fold 5 among 5 folds"),
        ({"folds": 5, "fold": -1}, "folds count from 0 to 4"),
        ({"fraction": 0}, "fraction must be above 0 and at most 1, got 0"),
        ({"fraction": 1.5}, "fraction must be above 0 and at most 1, got 1.5"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(SettingError) as caught:
        SplitConfig(**settings)
    assert message in str(caught.value)


# --- given parts


def test_images_without_a_split_beside_some_with_one_are_training():
    given_splits = ["train", None, "val", "test"] * 3
    records = [
        Record(path=f"{i}", label="ab"[i % 2], split=split)
        for i, split in enumerate(given_splits)
    ]
    assigned = assign_splits(records, [str(i) for i in range(12)], SplitConfig())
    assert [r.split for r in assigned.rows] == [
        split or "train" for split in given_splits
    ]
    assert assigned.held_out == ()


def test_validation_is_taken_from_given_training_images():
    records = [
        Record(path=f"{i}", label="ab"[i % 2], split=("train", "test")[i % 5 == 0])
        for i in range(200)
    ]
    rows = assign_splits(
        records, [str(i) for i in range(200)], SplitConfig(val=0.25)
    ).rows
    splits = [row.split for row in rows]
    assert [splits[i] for i in range(0, 200, 5)] == ["test"] * 40
    assert 20 < splits.count("val") < 60
    folds = [
        assign_splits(
            records, [str(i) for i in range(200)], SplitConfig(folds=4, fold=fold)
        ).rows
        for fold in range(4)
    ]
    judged = [{row.path for row in rows if row.split == "val"} for rows in folds]
    assert len(set().union(*judged)) == sum(map(len, judged)) == 160
    for rows in folds:
        assert sum(row.split == "test" for row in rows) == 40


def test_held_out_splits():
    assert held_out_splits({"train", "val", "test"}) == ()
    assert held_out_splits({"train"}) == ("val", "test")


def test_a_copy_in_another_group_leaves_training_not_the_test():
    """Two patients share an image: neither moves, and the lesser copy goes."""
    groups = {}
    for i in range(100):
        split = split_of_number(
            hash_number(0, "split", "", f"p{i}"), SplitConfig(), SPLITS[1:]
        )
        groups.setdefault(split, []).append(f"p{i}")
    for lesser, better in pairwise(SPLITS):
        a, b = groups[lesser][0], groups[better][0]
        records = [
            Record(path="one", label="x", group=a),
            Record(path="two", label="x", group=b),
            Record(path="three", label="x", group=a),
        ]
        hashes = ["same", "same", "other"]
        assigned = assign_splits(records, hashes, SplitConfig(**HASH))
        assert [(r.path, r.split) for r in assigned.rows] == [
            ("two", better),
            ("three", lesser),
        ]
        (twin,) = assigned.left_out
        assert (twin.path, twin.reason, twin.detail) == (
            "one",
            f"duplicate-in-{better}",
            "two",
        )


# --- small classes


def labeled(**counts):
    """Records of each class, and a content for each."""
    names = [(label, i) for label, count in counts.items() for i in range(count)]
    records = [Record(path=f"{label}/{i}", label=label) for label, i in names]
    return records, [f"{label}{i}" for label, i in names]


def counts_of(assigned):
    return Counter((row.label, row.split) for row in assigned.rows)


@pytest.mark.parametrize("seed", range(20))
def test_twelve_images_have_every_class_in_every_split(seed):
    """By hash, most seeds leave a class without validation or test images."""
    records, contents = labeled(cat=6, dog=6)
    counts = counts_of(assign_splits(records, contents, SplitConfig(seed=seed)))
    for label in ("cat", "dog"):
        assert counts[label, "train"] in (3, 4)
        assert counts[label, "val"] == 1
        assert counts[label, "test"] in (1, 2)


@pytest.mark.parametrize("size", [2, 3, 10, 20, 49])
def test_small_classes_get_exact_counts_and_a_note(size):
    records, contents = labeled(a=size, b=200)
    assigned = assign_splits(records, contents, SplitConfig())
    counts = counts_of(assigned)
    if size > 3:
        for split, share in SplitConfig().shares.items():
            assert abs(counts["a", split] - share * size) <= 1
    assert counts["a", "train"]
    assert counts["a", "val"]
    assert counts["a", "test"] or size == 2
    (note,) = assigned.notes
    assert note.startswith("1 class has fewer than 50 different images")
    assert "--split" in note


def test_large_classes_beside_small_ones_are_split_by_hash():
    records, contents = labeled(a=5, b=60)
    rows = assign_splits(records, contents, SplitConfig()).rows
    by_hash = assign_splits(records, contents, SplitConfig(**HASH)).rows
    assert [r for r in rows if r.label == "b"] == [r for r in by_hash if r.label == "b"]
    assert assign_splits(*labeled(a=50, b=60), SplitConfig()).notes == ()


def test_copies_count_once_and_groups_too():
    """60 images of three patients are a small class: three units."""
    records, contents = labeled(a=60, b=60)
    copies = [content if content[0] == "b" else "same" for content in contents]
    assert "1 class has" in assign_splits(records, copies, SplitConfig()).notes[0]
    grouped = [replace(r, group=f"{r.label}{i % 3}") for i, r in enumerate(records)]
    assigned = assign_splits(grouped, contents, SplitConfig())
    assert set(counts_of(assigned)) == {(c, s) for c in "ab" for s in SPLITS}
    splits = {(row.group, row.split) for row in assigned.rows}
    assert len(splits) == 6


@given(
    st.integers(0, 2**32),
    st.integers(1, 60),
    st.integers(0, 9),
    st.integers(1, 45),
    st.integers(0, 9),
)
def test_small_sets_keep_copies_and_groups_together(seed, size, groups, contents, s):
    draws = np.random.default_rng(seed)
    records, hashes = made(draws, size, groups, contents)
    config = SplitConfig(seed=s)
    splits = outcome(records, hashes, config)
    where = defaultdict(set)
    for record, content in zip(records, hashes, strict=True):
        if split := splits[record.path]:
            where["content", content].add(split)
            where["group", record.group or record.path].add(split)
    assert all(len(parts) == 1 for parts in where.values())
    order = draws.permutation(size).tolist()
    again = outcome([records[i] for i in order], [hashes[i] for i in order], config)
    assert again == splits


def test_folds_of_a_small_set_are_disjoint_and_even():
    records, contents = labeled(a=10, b=10)
    tests = []
    for fold in range(5):
        config = SplitConfig(folds=5, fold=fold)
        rows = assign_splits(records, contents, config).rows
        tests.append({row.path for row in rows if row.split == "test"})
        assert {row.label for row in rows if row.split == "val"} == {"a", "b"}
    assert [len(paths) for paths in tests] == [4] * 5
    assert len(set().union(*tests)) == 20


def test_small_fractions_make_large_classes_small():
    """Of 100 images, 2 % by hash would be no image with probability 13 %."""
    counts = counts_of(assign_splits(*labeled(a=100, b=100), SplitConfig(val=0.02)))
    assert counts["a", "val"] == counts["b", "val"] == 2
