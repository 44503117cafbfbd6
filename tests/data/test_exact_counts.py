"""Shares to the image, for splits that are kept in a file."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.split.exact_counts import (
    exact_split,
    indivisible_groups,
    quotas,
    stratify,
)
from striate.data.split.hash_split import SplitConfig

SHARES = [
    {"train": 0.6, "val": 0.15, "test": 0.25},
    {"train": 0.75, "val": 0.25},
    {"train": 0.9, "val": 0.1, "test": 0.0},
    {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3},
]

LABELS = st.sampled_from("abc")
CONTENT = st.integers(0, 30).map(str)
GROUP = st.none() | st.sampled_from(["g1", "g2", "g3", "g4"])
IMAGES = st.lists(st.tuples(LABELS, CONTENT, GROUP), min_size=1, max_size=60)
PLAIN = st.lists(LABELS, min_size=1, max_size=120)


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.sampled_from(SHARES), st.integers(0, 5))
def test_groups_and_duplicates_never_straddle(images, shares, seed):
    labels, contents, groups = zip(*images, strict=True)
    splits = stratify(labels, contents, groups, shares, seed)
    assert len(splits) == len(images)
    assert set(splits) <= {split for split, share in shares.items() if share}
    where = defaultdict(set)
    for content, group, split in zip(contents, groups, splits, strict=True):
        where["content", content].add(split)
        if group:
            where["group", group].add(split)
    assert all(len(found) == 1 for found in where.values())


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.sampled_from(SHARES), st.integers(0, 5))
def test_shares_hold_to_the_image(labels, shares, seed):
    contents = [str(i) for i in range(len(labels))]
    splits = stratify(labels, contents, [None] * len(labels), shares, seed)
    counts = Counter(zip(labels, splits, strict=True))
    kept = {split: share for split, share in shares.items() if share}
    for label, total in Counter(labels).items():
        due = quotas(total, kept)
        assert sum(due.values()) == pytest.approx(total)
        for split in kept:
            assert abs(counts[label, split] - due[split]) < 1
            # Everyone gets one, the training split first.
            assert counts[label, split] or list(kept).index(split) >= total


@given(st.integers(4, 500), st.sampled_from(SHARES))
def test_quotas_are_shares_where_they_reach_one(count, shares):
    kept = {split: share for split, share in shares.items() if share}
    due = quotas(count, kept)
    assert min(due.values()) > 1 - 1e-9
    if min(kept.values()) * count >= 1:
        assert due == {split: share * count for split, share in kept.items()}


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.sampled_from(SHARES), st.randoms(use_true_random=False))
def test_the_order_of_files_changes_nothing(images, shares, random):
    """Files of one content lie together, so the part belongs to the content."""

    def dealt(shown):
        labels, contents, groups = zip(*shown, strict=True)
        splits = stratify(labels, contents, groups, shares, 0)
        return dict(zip(contents, splits, strict=True))

    shuffled = list(images)
    random.shuffle(shuffled)
    assert dealt(shuffled) == dealt(images)


def test_another_seed_deals_another_split():
    contents = [str(i) for i in range(40)]
    dealt = [
        stratify(["a"] * 40, contents, [None] * 40, SHARES[0], s) for s in (0, 0, 1)
    ]
    assert dealt[0] == dealt[1] != dealt[2]


@pytest.mark.parametrize("splits", [("val", "test"), ("val",)])
@pytest.mark.parametrize("sizes", [(50, 23, 4), (3,) * 40])
def test_folds_are_even_in_every_class_and_in_all(sizes, splits):
    labels = [f"c{k}" for k, size in enumerate(sizes) for _ in range(size)]
    contents, groups = [str(i) for i in range(len(labels))], [None] * len(labels)
    judged: Counter[str] = Counter()
    for fold in range(5):
        split_config = SplitConfig(val=0.2, folds=5, fold=fold)
        dealt = exact_split(labels, contents, groups, split_config, splits)
        here = Counter(
            label
            for label, split in zip(labels, dealt, strict=True)
            if split == splits[-1]
        )
        for k, size in enumerate(sizes):
            assert size // 5 <= here[f"c{k}"] <= -(-size // 5)
        assert abs(here.total() - len(labels) / 5) <= 1
        if len(splits) == 2:
            assert abs(dealt.count("val") - 0.2 * len(labels)) <= len(sizes)
        judged += here
    assert judged == Counter(labels)


def test_units_join_what_shares_content_or_group():
    contents = ["x", "y", "x", "z", "z", "w"]
    groups = ["a", None, "b", "b", "c", None]
    assert indivisible_groups(contents, groups) == [[0, 2, 3, 4], [1], [5]]
