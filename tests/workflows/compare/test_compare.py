"""Comparing runs: which images are paired, what is tested, what is said."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy import stats

import striate as st
from striate.core.errors import RunError, SettingError
from striate.report.html import render
from striate.run.recipe import Recipe
from striate.workflows.compare import flipped_images as flipped
from striate.workflows.compare.difference_tables import class_table, differences_table
from striate.workflows.compare.evaluated_run import contenders
from striate.workflows.compare.pairing import flips, pair
from striate.workflows.compare.verdict import remarks
from striate.workflows.train.train import train_recipe
from support.images import snapshot
from support.run_folders import made_run, stop

YES, NO = True, False


def mask(count, wrong):
    """Answers to `count` images, those at `wrong` being wrong."""
    return [i not in set(wrong) for i in range(count)]


def told(found):
    """Everything that limits the figures, as one text."""
    return "\n".join(p.text for p in remarks(found.sides, found.matches, found.split))


def words(found):
    return " ".join(str(found).split())


# --- two runs on the same images


@pytest.fixture
def two(tmp_path):
    """Of 40 images, A gets 0–5 wrong and B 5–6."""
    return (
        made_run(tmp_path / "one", mask(40, range(6)), lr=0.01),
        made_run(tmp_path / "two", mask(40, (5, 6)), lr=0.02),
    )


def test_the_counts_and_their_test(two):
    (match,) = st.compare(*two).matches
    paired = match.pairings[0].paired
    counts = (paired.both, paired.gained, paired.lost, paired.neither)
    assert counts == (33, 5, 1, 1)
    assert match.how == "images"
    assert match.difference == pytest.approx(4 / 40)
    assert match.p == pytest.approx(stats.binomtest(1, 6).pvalue)
    assert match.corrected == match.p
    low, high = match.interval
    assert low < 4 / 40 < high


def test_by_class(two):
    """Odd images are `down`: A has 1, 3, 5 wrong and B 5."""
    (match,) = st.compare(*two).matches
    found = dict(match.pairings[0].classes)
    assert (found["down"].gained, found["down"].lost) == (2, 0)
    assert (found["across"].gained, found["across"].lost) == (3, 1)
    assert [row[0] for row in class_table(match).rows] == ["across", "down"]


def test_other_measures(two):
    (match,) = st.compare(*two).matches
    pairing = match.pairings[0]
    assert pairing.balanced[0] == pytest.approx(0.1)  # classes of equal size
    difference, (low, high) = pairing.loss
    one, two_ = (
        side.runs[0].predictions.losses for side in (match.first, match.second)
    )
    assert difference == pytest.approx(np.mean(two_ - one))
    assert low < difference < high


def test_the_flips(two):
    found = st.compare(*two).flips()
    assert [f.path for f in found if f.gained] == [f"{i:04}.png" for i in range(5)]
    (lost,) = [f for f in found if not f.gained]
    assert (lost.path, lost.label, lost.said) == (
        "0006.png",
        "across",
        ("across", "down"),
    )
    assert lost.sure == pytest.approx((0.9, 0.9))
    assert (lost.right, lost.times) == ((1, 0), 1)


def test_what_differs_and_nothing_else(two):
    names = [one.name for one in st.compare(*two).differing]
    assert names == ["lr"]


def test_equal_runs(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [3]))
    two = made_run(tmp_path / "two", mask(10, [3]))
    found = st.compare(one, two)
    assert found.differing == ()
    assert found.flips() == ()
    assert found.matches[0].p == 1.0
    assert "Nothing: all settings are equal." in str(found)
    assert "No image changed sides." in render(found.page)
    assert "another seed gives other networks" not in told(found)


def test_circumstances_are_told(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [3]))
    other = {"machine": {"system": "other", "threads": 8}, "versions": {"striate": "9"}}
    two = made_run(tmp_path / "two", mask(10, [3]), manifest=other)
    found = st.compare(one, two)
    names = {d.name: d.values for d in found.differing}
    assert names["version of striate"] == ("0.1.0", "9")
    assert names["threads"] == ("1", "8")
    assert "different machines: do not compare their times" in told(found)


# --- which images are the same


def test_images_pair_by_content_not_by_name_or_place(tmp_path):
    one = made_run(tmp_path / "one", mask(8, [0]), images=range(8))
    two = made_run(tmp_path / "two", mask(8, [0]), images=range(7, -1, -1))
    rows = (two / "split.csv").read_text().replace(".png", ".jpg")
    (two / "split.csv").write_text(rows)
    answers = two / "predictions_test.csv"
    answers.write_text(answers.read_text().replace(".png", ".jpg"))
    (match,) = st.compare(one, two).matches
    paired = match.pairings[0].paired
    assert (paired.both, paired.gained, paired.lost, paired.neither) == (6, 1, 1, 0)


def test_only_common_images_are_paired_and_the_rest_is_told(tmp_path):
    one = made_run(tmp_path / "one", mask(10, []), images=range(10))
    two = made_run(tmp_path / "two", mask(9, [0]), images=range(4, 13), lr=0.5)
    found = st.compare(one, two)
    (match,) = found.matches
    assert match.pairings[0].count == 6
    assert match.pairings[0].left_out == (4, 3)
    assert match.difference == pytest.approx(-1 / 6)
    assert "A and B share 6 images; 4 only of A and 3 only of B are left" in told(found)
    assert "not use the same images and labels altogether" in told(found)


def test_a_image_of_another_label_is_no_pair(tmp_path):
    labels = ["across"] * 4
    one = made_run(tmp_path / "one", mask(4, []), labels=labels)
    two = made_run(tmp_path / "two", mask(4, []), labels=[*labels[:3], "down"])
    found = st.compare(one, two)
    pairing = found.matches[0].pairings[0]
    assert (pairing.count, pairing.left_out, pairing.relabeled) == (3, (1, 1), 1)
    assert "1 of them because their labels differ" in told(found)


def test_copies_pair_one_to_one(tmp_path):
    one = made_run(tmp_path / "one", mask(3, []), images=[0, 1, 2])
    two = made_run(tmp_path / "two", mask(2, []), images=[1, 2])
    for run in (one, two):
        split = run / "split.csv"
        split.write_text(split.read_text().replace(",c2", ",c0"))
    pairing = st.compare(one, two).matches[0].pairings[0]
    assert (pairing.count, pairing.left_out) == (2, (1, 0))


def test_nothing_in_common(tmp_path):
    one = made_run(tmp_path / "one", mask(4, [0]), images=range(4))
    two = made_run(tmp_path / "two", mask(4, []), images=range(4, 8))
    found = st.compare(one, two)
    (match,) = found.matches
    assert (match.how, match.p, match.pairings) == ("none", None, ())
    assert match.difference == pytest.approx(0.25)
    assert "No image was judged by both, so nothing can be tested." in words(found)
    assert "Flipped" not in render(found.page)
    assert found.as_dict()["matches"][0]["pairings"] == []


@settings(max_examples=20)
@given(
    some.lists(some.tuples(some.booleans(), some.booleans()), min_size=1, max_size=12),
    some.randoms(use_true_random=False),
)
def test_the_order_of_images_does_not_matter(tmp_path_factory, answers, random):
    tmp_path = tmp_path_factory.mktemp("order")
    numbers = list(range(len(answers)))
    shuffled = random.sample(numbers, len(numbers))
    one = made_run(tmp_path / "one", [a for a, _ in answers])
    two = made_run(tmp_path / "two", [answers[i][1] for i in shuffled], images=shuffled)
    paired = pair(*contenders([one, two], None)).paired
    assert paired.gained == sum(b and not a for a, b in answers)
    assert paired.lost == sum(a and not b for a, b in answers)


def test_classes_meet_by_name(tmp_path):
    """The second run's outputs stand in another order."""
    labels = ["a", "b", "c", "a", "b", "c"]
    one = made_run(
        tmp_path / "one", mask(6, [0]), labels=labels, classes=("a", "b", "c")
    )
    two = made_run(
        tmp_path / "two", mask(6, [5]), labels=labels, classes=("c", "a", "b")
    )
    found = st.compare(one, two)
    paired = found.matches[0].pairings[0].paired
    assert (paired.gained, paired.lost) == (1, 1)
    gained, lost = sorted(found.flips(), key=lambda flip: flip.path)
    assert (gained.label, gained.said) == ("a", ("b", "a"))
    assert (lost.label, lost.said) == ("c", ("c", "a"))
    score = found.sides[1].runs[0].score
    assert [c.recall for c in score.classes] == [1.0, 1.0, 0.5]


# --- several runs


def test_many_tests_are_corrected(tmp_path):
    one = made_run(tmp_path / "a", mask(60, range(12)))
    two = made_run(tmp_path / "b", mask(60, range(4)), lr=0.1)
    three = made_run(tmp_path / "c", mask(60, range(20)), lr=0.2)
    found = st.compare(one, two, three)
    second, third = found.matches
    assert second.p == pytest.approx(2 / 2**8)
    assert second.corrected == pytest.approx(2 * min(second.p, third.p))
    assert third.corrected == pytest.approx(max(second.corrected, third.p))
    assert "(corrected for 2 tests): B is better." in words(found)
    assert "(corrected for 2 tests): A is better." in words(found)
    table = differences_table(found.matches)
    assert [column.title for column in table.columns][-2:] == ["p", "p, Holm"]


def test_many_runs_stand_below_each_other(tmp_path):
    runs = [
        made_run(tmp_path / f"r{i}", mask(60, range(12 * i)), lr=0.1 + i)
        for i in range(5)
    ]
    apart = made_run(tmp_path / "apart", mask(5, [0]), images=range(100, 105))
    found = st.compare(runs[1], *runs[2:], runs[0], apart)
    text = words(found)
    told = "Better than A: E. Worse than A: B, C, D. Not tested: F. The p-values are"
    assert f"{told} corrected for 4 tests (Holm)" in text
    assert "Classes and flipped images: in the page" in text
    assert re.search(r"^E  +100\.0 %", str(found), re.MULTILINE)
    assert "6 runs compared" in render(found.page)


# --- settings over seeds


def seeds(tmp_path, name, wrong, *, images=None, first=0, **settings):
    """One run a seed, with so many wrong answers of 50."""
    return [
        made_run(
            tmp_path / f"{name}-{first + i}",
            mask(50, range(count)),
            images=images(first + i) if images else None,
            seed=first + i,
            **settings,
        )
        for i, count in enumerate(wrong)
    ]


def test_settings_are_tested_over_seeds(tmp_path):
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1)
    two = seeds(tmp_path, "two", (6, 7, 4), lr=0.2)
    found = st.compare(*two[:1], *one, *two[1:])
    assert [side.seeds for side in found.sides] == [(0, 1, 2), (0, 1, 2)]
    assert found.sides[0].name == "two-0 … two-2"
    (match,) = found.matches
    assert (match.how, match.overlap, len(match.pairings)) == ("seeds", 0.0, 3)
    oracle = stats.ttest_rel([10, 12, 9], [6, 7, 4])
    assert match.p == pytest.approx(oracle.pvalue)
    assert match.difference == pytest.approx(-14 / 150)
    assert "over 3 seeds, each against its twin" in words(found)
    assert "A is better." in words(found)
    assert "seed" not in [d.name for d in found.differing]


def test_seeds_that_share_training_images_are_worth_less(tmp_path):
    def dealt(seed):
        return range(50 * seed, 50 * seed + 50)

    same = {"labels": ["across"] * 50, "train": 100}
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1, images=dealt, **same)
    two = seeds(tmp_path, "two", (6, 7, 4), lr=0.2, images=dealt, **same)
    for run in (*one, *two):  # all used the same images, dealt differently
        everything = [f"{i:04}.png,across,{{}},,c{i}" for i in range(150)]
        seed = int(run.name[-1])
        lines = [
            line.format("test" if i in dealt(seed) else "train")
            for i, line in enumerate(everything)
        ]
        (run / "split.csv").write_text(
            "\n".join(["path,label,split,group,content", *lines])
        )
    found = st.compare(*one, *two)
    (match,) = found.matches
    assert match.overlap == pytest.approx(50 / 100)
    differences = np.array([4, 5, 5]) / 50
    error = differences.std(ddof=1) * np.sqrt(1 / 3 + 0.5)
    expected = 2 * stats.t.sf(differences.mean() / error, 2)
    assert match.p == pytest.approx(expected)
    assert "allows for that (Nadeau and Bengio 2003)" in words(found)


def test_seeds_that_do_not_match_are_compared_unpaired(tmp_path):
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1)
    two = seeds(tmp_path, "two", (6, 7, 4, 5), first=7, lr=0.2)
    found = st.compare(*one, *two)
    (match,) = found.matches
    assert (match.how, match.pairings) == ("unpaired", ())
    right = [[40, 38, 41], [44, 43, 46, 45]]
    oracle = stats.ttest_ind(*right, equal_var=False)
    assert match.p == pytest.approx(oracle.pvalue)
    assert "over 3 and 4 seeds" in words(found)
    assert class_table(match) is None
    assert "3 and 4 seeds" in json.dumps(differences_table(found.matches).rows)
    render(found.page)


def test_one_seed_against_several_tests_nothing(tmp_path):
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1)
    two = seeds(tmp_path, "two", (6,), lr=0.2)
    three = seeds(tmp_path, "three", (20,), first=9, lr=0.3)
    found = st.compare(*one, *two, *three)
    second, third = found.matches
    assert (second.how, second.p, second.interval) == ("none", None, None)
    assert second.difference == pytest.approx(4 / 50)
    assert third.difference == pytest.approx(-(20 - 31 / 3) / 50)
    assert "B has one seed, so no test over seeds is possible." in words(found)


def test_seeds_that_agree_to_the_image_test_nothing(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 8), lr=0.2)
    found = st.compare(*one, *two)
    (match,) = found.matches
    assert (match.how, match.p, match.interval) == ("seeds", None, None)
    assert "The seeds do not differ at all, so no test is possible." in words(found)


def test_a_repeated_run_is_no_evidence(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 7), lr=0.2)
    again = shutil.copytree(two[0], tmp_path / "again")
    found = st.compare(*one, *two, again)
    assert len(found.matches[0].pairings) == 2
    assert "again repeats a setting and seed of B" in told(found)
    assert found.as_dict()["sides"][1]["repeats"] == [str(again)]


def test_seeds_alone_stay_apart(tmp_path):
    """Runs that differ in nothing but the seed: the seed is the question."""
    found = st.compare(*seeds(tmp_path, "one", (10, 12, 9)))
    assert [len(side.runs) for side in found.sides] == [1, 1, 1]
    assert [d.name for d in found.differing] == ["seed"]
    assert "another seed gives other networks" not in told(found)


def test_the_device_makes_no_other_setting(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6,), lr=0.2)
    three = seeds(tmp_path, "three", (7,), first=1, lr=0.2, device="cpu")
    found = st.compare(*one, *two, *three)
    assert [side.seeds for side in found.sides] == [(0, 1), (0, 1)]


def test_flips_over_seeds(tmp_path):
    """Image 9 is right in B with all seeds; 8 with two of three."""
    one = seeds(tmp_path, "one", (10, 10, 10), lr=0.1)
    two = seeds(tmp_path, "two", (9, 8, 8), lr=0.2)
    first, second = st.compare(*one, *two).flips()
    assert (first.path, first.right, first.times) == ("0009.png", (0, 3), 3)
    assert (second.path, second.right, second.said) == (
        "0008.png",
        (0, 2),
        ("down", "across"),
    )


def test_curves_over_seeds_have_a_band(tmp_path):
    one = [
        made_run(tmp_path / f"one-{s}", mask(9, [s]), seed=s, accuracies=line)
        for s, line in enumerate([(0.5, 0.6, 0.7), (0.7, 0.8)])
    ]
    two = made_run(tmp_path / "two", mask(9, []), lr=0.5)
    found = st.compare(*one, two)
    chart = next(s for s in found.page.sections if s.title == "Learning").blocks[0]
    band = chart.series[0]
    assert band.y == pytest.approx((0.6, 0.7))  # as far as both runs went
    assert (band.low, band.high) == ((0.5, 0.6), (0.7, 0.8))
    assert chart.series[1].low is None


# --- the part


def test_the_validation_split_where_a_test_split_is_missing(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [0]), split="val")
    two = made_run(tmp_path / "two", mask(10, [1]), split="val")
    found = st.compare(one, two)
    assert found.split == "val"
    assert "the accuracies are optimistic" in told(found)


def test_splits_are_never_mixed(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [0]), split="val")
    two = made_run(tmp_path / "two", mask(10, [1]))
    with pytest.raises(
        RunError, match="1 of 2 runs have no answers about a test split"
    ):
        st.compare(one, two)
    with pytest.raises(RunError, match="no answers about a val split") as caught:
        st.compare(one, two, split="val")
    assert "it has no such split, or the file is gone" in caught.value.what


# --- what cannot be compared


def test_fewer_than_two(two):
    with pytest.raises(SettingError, match="two runs, got 1"):
        st.compare(two[0])


def test_the_same_run_twice(two):
    with pytest.raises(SettingError, match="given twice"):
        st.compare(two[0], two[1], two[0].parent / "." / two[0].name)


def test_an_unknown_run(two):
    with pytest.raises(RunError, match="no run folder is there"):
        st.compare(two[0], "nowhere")


def test_other_classes(tmp_path, two):
    other = made_run(tmp_path / "x", mask(4, []), classes=("across", "up", "left"))
    with pytest.raises(RunError, match="different classes") as caught:
        st.compare(two[0], other)
    assert "down only in one, left, up only in x" in caught.value.what


def test_runs_without_answers_are_named_with_the_reason(tmp_path, two):
    stopped = stop(made_run(tmp_path / "s", mask(4, [])), "the loss became NaN")
    going = stop(made_run(tmp_path / "g", mask(4, [])), "")
    text = (going / "manifest.json").read_text().replace("stopped", "running")
    (going / "manifest.json").write_text(text)
    with pytest.raises(RunError) as caught:
        st.compare(*two, stopped, going)
    assert f"{stopped}: it stopped (the loss became NaN)" in caught.value.what
    assert f"{going}: it is still running, or was killed" in caught.value.what
    assert "2 of 4 runs" in caught.value.what


def test_a_long_list_of_them_is_cut(tmp_path, two):
    lost = [stop(made_run(tmp_path / f"s{i}", [YES]), "x") for i in range(7)]
    with pytest.raises(RunError, match="and 2 more"):
        st.compare(two[0], *lost)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("predictions_test.csv", "p_down", "p_up"),
        ("predictions_test.csv", "0.9", "most"),
        ("predictions_test.csv", "across", "sideways"),
        ("split.csv", "content", "size"),
        ("split.csv", "0003.png", "0099.png"),
        ("results.csv", "val_accuracy", "accuracy"),
        ("results.csv", "0.75", "most"),
        ("results.csv", ",0.75,0.01,true", ""),
    ],
)
def test_a_damaged_file_is_named(two, file, before, after):
    path = two[1] / file
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(RunError) as caught:
        st.compare(*two)
    assert str(path) in str(caught.value)


def test_a_short_row_is_damage(two):
    path = two[1] / "predictions_test.csv"
    path.write_text(path.read_text().rpartition(",")[0])
    with pytest.raises(RunError, match="damaged"):
        st.compare(*two)


def test_a_run_that_judged_nothing(two):
    path = two[1] / "predictions_test.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match="judged no image of the test split"):
        st.compare(*two)


def test_a_network_that_has_no_name(two, tmp_path):
    args = two[1] / "args.yaml"
    args.write_text(args.read_text().replace("tutorial_gray", "custom:mine.Net"))
    found = st.compare(*two).as_dict()
    assert found["sides"][0]["runs"][0]["macs"] > 0
    assert found["sides"][1]["runs"][0]["macs"] is None


# --- pages, of real runs


@pytest.fixture(scope="module")
def real(shared_folder, tmp_path_factory):
    """Two trained runs, the second at a larger size and hardly trained."""
    place = tmp_path_factory.mktemp("real")
    for name, chosen in (
        ("good", {"epochs": 4}),
        ("bad", {"epochs": 1, "lr": 1e-6, "image_size": 12}),
    ):
        recipe = Recipe(data=str(shared_folder), batch_size=8, **chosen)
        train_recipe(recipe, out=place / name, quiet=True)
    return place / "good", place / "bad"


def test_the_page_shows_the_flipped_images(real):
    before = [snapshot(run) for run in real]
    found = st.compare(*real)
    page = render(found.page)
    flip = found.flips()[0]
    assert not flip.gained
    assert f"A: {flip.label} → B: {flip.said[1]}" in page
    assert "data:image/png" in page
    assert "could not be read again" not in page
    gallery = found.page.sections[-1].blocks[-1]
    assert {p.width for p in gallery.images} == {12}  # the larger of the two
    assert [snapshot(run) for run in real] == before


def test_a_gallery_over_seeds(tmp_path, monkeypatch):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 9), lr=0.2)
    pixels = torch.zeros(50, 8, 8, 1, dtype=torch.uint8)
    monkeypatch.setattr(flipped, "subset_pixels", lambda *_: pixels)
    found = st.compare(*one, *two)
    page = render(found.page)
    assert "A: down → B: across" in page
    assert "90 % → 90 %, right 0 → 2 of 2 · 0009.png" in page
    assert "accuracy ± 2.83 over 2 seeds" in page
    assert "Right and wrong" not in page


def test_images_that_are_gone_are_listed(real, tmp_path, monkeypatch):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in real]
    for run in runs:
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["data"]["source"] = str(tmp_path / "gone")
        (run / "manifest.json").write_text(json.dumps(manifest))
    found = st.compare(*runs)
    page = render(found.page)
    assert "could not be read again" in page
    assert found.flips()[0].path in page
    assert "data:image/png" not in page


def test_long_galleries_and_lists_are_cut_and_say_so(tmp_path, monkeypatch):
    one = made_run(tmp_path / "one", mask(80, range(70)))
    two = made_run(tmp_path / "two", mask(80, [75]), lr=0.5)
    found = st.compare(one, two)
    assert "62 more are in the page" in str(found)
    gained = found.page.sections[-1].blocks[2]
    assert len(gained.rows) == flipped.IMAGES_SHOWN
    assert gained.note == "22 more stand in --json."
    assert len(flips(found.matches[0].pairings)) == 71


def test_of_many_classes_the_most_changed_are_shown(tmp_path):
    classes = tuple(f"k{i:02}" for i in range(40))
    one = made_run(tmp_path / "one", mask(80, [39, 79]), classes=classes)
    two = made_run(tmp_path / "two", mask(80, []), classes=classes, lr=0.5)
    table = class_table(st.compare(one, two).matches[0])
    assert table.rows[0][0] == "k39"
    assert len(table.rows) == 30
    assert table.note.startswith("10 classes")


def test_runs_of_one_name_are_told_apart_by_path(tmp_path):
    one = made_run(tmp_path / "x" / "run", mask(9, [0]))
    two = made_run(tmp_path / "y" / "run", mask(9, [1]))
    rows = st.compare(one, two).blocks[0].rows
    assert rows == (("A", str(one)), ("B", str(two)))
