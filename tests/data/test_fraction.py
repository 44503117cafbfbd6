"""A fraction: exact in every class, nested, in an order that more files keep."""

import math
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

import striate
from striate.core.errors import SettingError
from striate.data.split.fraction import fraction_mask

LABELS = st.lists(st.sampled_from("abc"), min_size=1, max_size=60)
FRACTION = st.floats(0.01, 1)


def kept(labels, fraction, seed=0, groups=None):
    contents = [f"{i}" for i in range(len(labels))]
    groups = groups or [None] * len(labels)
    return fraction_mask(labels, contents, groups, fraction, seed)


@given(LABELS, FRACTION)
def test_exact_in_every_class(labels, fraction):
    counts = Counter(
        label
        for label, stays in zip(labels, kept(labels, fraction), strict=True)
        if stays
    )
    for label, total in Counter(labels).items():
        assert counts[label] == max(1, math.ceil(fraction * total - 1e-9))


@given(LABELS, FRACTION, FRACTION)
def test_a_smaller_fraction_is_a_subset(labels, a, b):
    small, large = (kept(labels, fraction) for fraction in sorted((a, b)))
    assert all(more for less, more in zip(small, large, strict=True) if less)


@pytest.mark.parametrize("tenths", range(1, 11))
def test_tenths_of_thirty_are_threes(tenths):
    """0.1 · 3 = 0.30000000000000004, and still no image more."""
    assert sum(kept(["a"] * 30, tenths * 0.1)) == 3 * tenths


@given(LABELS, st.lists(st.sampled_from("abc"), max_size=9), FRACTION)
def test_more_files_do_not_reorder_the_old(labels, more, fraction):
    """Whoever came first stays first: the old ones kept are a beginning of the old
    order, whatever came between."""
    before = [kept(labels, step / 100) for step in range(1, 101)]
    first = {i: next(s for s in range(100) if before[s][i]) for i in range(len(labels))}
    after = kept([*labels, *more], fraction)[: len(labels)]
    for i in range(len(labels)):
        for j in range(len(labels)):
            if labels[i] == labels[j] and first[i] < first[j]:
                assert after[i] or not after[j]


def test_groups_come_whole_but_for_the_last():
    labels, groups = ["a"] * 60, [f"g{i % 12}" for i in range(60)]
    stays = kept(labels, 0.37, groups=groups)
    inside = defaultdict(list)
    for group, keep in zip(groups, stays, strict=True):
        inside[group].append(keep)
    broken = [group for group, keeps in inside.items() if 0 < sum(keeps) < 5]
    assert sum(stays) == 23
    assert len(broken) == 1


def test_the_training_split_alone_is_cut():
    whole = striate.load_data("digits", seed=4)
    small = striate.load_data("digits", seed=4, fraction=0.1)
    tenth = striate.load_data("digits", seed=4, fraction=0.2).with_fraction(0.1)
    for split in ("val", "test"):
        assert small.subset(split).paths == whole.subset(split).paths
    assert set(small.subset("train").paths) < set(whole.subset("train").paths)
    assert small.num_files == whole.num_files == 1797
    assert small.num_unused == len(whole.subset("train")) - len(small.subset("train"))
    # Cutting what is loaded is loading what is cut, to the last digit of the mean.
    assert tenth.subset("train").paths == small.subset("train").paths
    assert (tenth.subset("train").pixels == small.subset("train").pixels).all()
    assert (tenth.subset("train").labels == small.subset("train").labels).all()
    assert (tenth.preprocess, tenth.rows, tenth.split_config) == (
        small.preprocess,
        small.rows,
        small.split_config,
    )
    assert small.preprocess != whole.preprocess
    with pytest.raises(SettingError, match=r"only 0.1 of the training set is loaded"):
        small.with_fraction(0.2)


@pytest.mark.parametrize(
    "asked", [{"normalize": "none"}, {"mean": [0.2], "std": [0.4]}]
)
def test_cutting_keeps_the_normalization_asked_for(asked):
    whole = striate.load_data("digits", **asked)
    assert whole.with_fraction(0.2).preprocess == whole.preprocess


def test_the_end_of_a_run_can_be_repeated(striate):
    """split.csv says what was unused, and the run finds its own images again."""
    words = ("--epochs", "1", "--fraction", "0.3", "--out", "run", "--json")
    assert striate("train", "digits", *words).code == 0
    run = __import__("striate").load_run("run")
    assert run.recipe.fraction == 0.3
    facts = run.manifest["data"]
    assert facts["used"] + facts["unused"] == facts["seen"] == 1797
    whole = striate("evaluate", "run", "--split", "train", "--json").json["count"]
    assert (
        whole
        == len(run.data.subset("train"))
        == facts["used"] - sum(len(run.data.subset(split)) for split in ("val", "test"))
    )
