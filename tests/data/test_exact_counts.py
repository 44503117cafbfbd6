"""Shares to the image, for splits that are kept in a file."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.data.split.exact_counts import deal_exactly, hold, quotas, units
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
    parts = hold(labels, contents, groups, shares, seed)
    assert len(parts) == len(images)
    assert set(parts) <= {part for part, share in shares.items() if share}
    where = defaultdict(set)
    for content, group, part in zip(contents, groups, parts, strict=True):
        where["content", content].add(part)
        if group:
            where["group", group].add(part)
    assert all(len(found) == 1 for found in where.values())


@settings(max_examples=150, deadline=None)
@given(PLAIN, st.sampled_from(SHARES), st.integers(0, 5))
def test_shares_hold_to_the_image(labels, shares, seed):
    contents = [str(i) for i in range(len(labels))]
    parts = hold(labels, contents, [None] * len(labels), shares, seed)
    counts = Counter(zip(labels, parts, strict=True))
    kept = {part: share for part, share in shares.items() if share}
    for label, total in Counter(labels).items():
        due = quotas(total, kept)
        assert sum(due.values()) == pytest.approx(total)
        for part in kept:
            assert abs(counts[label, part] - due[part]) < 1
            # Everyone gets one, the training part first.
            assert counts[label, part] or list(kept).index(part) >= total


@given(st.integers(4, 500), st.sampled_from(SHARES))
def test_quotas_are_shares_where_they_reach_one(count, shares):
    kept = {part: share for part, share in shares.items() if share}
    due = quotas(count, kept)
    assert min(due.values()) > 1 - 1e-9
    if min(kept.values()) * count >= 1:
        assert due == {part: share * count for part, share in kept.items()}


@settings(max_examples=150, deadline=None)
@given(IMAGES, st.sampled_from(SHARES), st.randoms(use_true_random=False))
def test_the_order_of_files_changes_nothing(images, shares, random):
    """Files of one content lie together, so the part belongs to the content."""

    def dealt(shown):
        labels, contents, groups = zip(*shown, strict=True)
        parts = hold(labels, contents, groups, shares, 0)
        return dict(zip(contents, parts, strict=True))

    shuffled = list(images)
    random.shuffle(shuffled)
    assert dealt(shuffled) == dealt(images)


def test_another_seed_deals_another_split():
    contents = [str(i) for i in range(40)]
    dealt = [hold(["a"] * 40, contents, [None] * 40, SHARES[0], s) for s in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


@pytest.mark.parametrize("parts", [("val", "test"), ("val",)])
@pytest.mark.parametrize("sizes", [(50, 23, 4), (3,) * 40])
def test_folds_are_even_in_every_class_and_in_all(sizes, parts):
    labels = [f"c{k}" for k, size in enumerate(sizes) for _ in range(size)]
    contents, groups = [str(i) for i in range(len(labels))], [None] * len(labels)
    judged: Counter[str] = Counter()
    for fold in range(5):
        deal = SplitConfig(val=0.2, folds=5, fold=fold)
        dealt = deal_exactly(labels, contents, groups, deal, parts)
        here = Counter(
            label
            for label, part in zip(labels, dealt, strict=True)
            if part == parts[-1]
        )
        for k, size in enumerate(sizes):
            assert size // 5 <= here[f"c{k}"] <= -(-size // 5)
        assert abs(here.total() - len(labels) / 5) <= 1
        if len(parts) == 2:
            assert abs(dealt.count("val") - 0.2 * len(labels)) <= len(sizes)
        judged += here
    assert judged == Counter(labels)


def test_units_join_what_shares_content_or_group():
    contents = ["x", "y", "x", "z", "z", "w"]
    groups = ["a", None, "b", "b", "c", None]
    assert units(contents, groups) == [[0, 2, 3, 4], [1], [5]]
