"""Comparison of runs: pairing of images, tests, conclusions and caveats."""

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
from striate.report.html import render_page
from striate.run.recipe import Recipe
from striate.workflows.compare import flipped_images as flipped
from striate.workflows.compare.conclusion import comparison_caveats
from striate.workflows.compare.difference_tables import (
    class_difference_table,
    difference_table,
)
from striate.workflows.compare.evaluated_run import evaluated_runs
from striate.workflows.compare.pairing import flipped_images, pair_runs
from striate.workflows.train.train import train_recipe
from support.images import snapshot
from support.run_folders import made_run, stop

YES, NO = True, False


def mask(count, wrong):
    """Correctness of `count` predictions; those at `wrong` are wrong."""
    return [i not in set(wrong) for i in range(count)]


def caveats(comparison):
    """All caveats as one text."""
    return "\n".join(prose.text for prose in comparison_caveats(comparison))


def words(comparison):
    """The terminal text in one line."""
    return " ".join(str(comparison).split())


# --- two runs on the same images


@pytest.fixture
def two(tmp_path):
    """Of 40 images, A gets 0–5 wrong and B 5–6."""
    return (
        made_run(tmp_path / "one", mask(40, range(6)), lr=0.01),
        made_run(tmp_path / "two", mask(40, (5, 6)), lr=0.02),
    )


def test_mcnemar_of_two_runs(two):
    (test,) = st.compare(*two).tests
    paired = test.pairings[0].paired
    counts = (paired.both, paired.gained, paired.lost, paired.neither)
    assert counts == (33, 5, 1, 1)
    assert test.method == "mcnemar"
    assert test.difference == pytest.approx(4 / 40)
    assert test.p == pytest.approx(stats.binomtest(1, 6).pvalue)
    assert test.p_holm == test.p
    low, high = test.interval
    assert low < 4 / 40 < high


def test_by_class(two):
    """Odd images are `down`: A has 1, 3, 5 wrong and B 5."""
    (test,) = st.compare(*two).tests
    comparison = dict(test.pairings[0].classes)
    assert (comparison["down"].gained, comparison["down"].lost) == (2, 0)
    assert (comparison["across"].gained, comparison["across"].lost) == (3, 1)
    assert [row[0] for row in class_difference_table(test).rows] == ["across", "down"]


def test_differences_of_balanced_accuracy_and_loss(two):
    (test,) = st.compare(*two).tests
    pairing = test.pairings[0]
    assert pairing.balanced[0] == pytest.approx(0.1)  # classes of equal size
    difference, (low, high) = pairing.loss
    one, two_ = (
        group.runs[0].predictions.losses for group in (test.first, test.second)
    )
    assert difference == pytest.approx(np.mean(two_ - one))
    assert low < difference < high


def test_flipped_images(two):
    comparison = st.compare(*two).flipped_images()
    assert [f.image_path for f in comparison if f.gained] == [
        f"{i:04}.png" for i in range(5)
    ]
    (lost,) = [f for f in comparison if not f.gained]
    assert (lost.image_path, lost.true, lost.pred) == (
        "0006.png",
        "across",
        ("across", "down"),
    )
    assert lost.confidence == pytest.approx((0.9, 0.9))
    assert (lost.correct, lost.pairs) == ((1, 0), 1)


def test_settings_that_differ(two):
    names = [one.name for one in st.compare(*two).setting_differences]
    assert names == ["lr"]


def test_equal_runs(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [3]))
    two = made_run(tmp_path / "two", mask(10, [3]))
    comparison = st.compare(one, two)
    assert comparison.setting_differences == ()
    assert comparison.flipped_images() == ()
    assert comparison.tests[0].p == 1.0
    assert "None: all settings are equal." in str(comparison)
    assert "No image flipped." in render_page(comparison.page)
    assert "another seed gives another model" not in caveats(comparison)


def test_environments_that_differ(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [3]))
    other = {"machine": {"system": "other", "threads": 8}, "versions": {"striate": "9"}}
    two = made_run(tmp_path / "two", mask(10, [3]), manifest=other)
    comparison = st.compare(one, two)
    names = {d.name: d.values for d in comparison.setting_differences}
    assert names["version of striate"] == ("0.1.0", "9")
    assert names["threads"] == ("1", "8")
    assert "different machines: do not compare their times" in caveats(comparison)


# --- which images are the same


def test_images_pair_by_content_not_by_path_or_order(tmp_path):
    one = made_run(tmp_path / "one", mask(8, [0]), images=range(8))
    two = made_run(tmp_path / "two", mask(8, [0]), images=range(7, -1, -1))
    rows = (two / "split.csv").read_text().replace(".png", ".jpg")
    (two / "split.csv").write_text(rows)
    answers = two / "predictions_test.csv"
    answers.write_text(answers.read_text().replace(".png", ".jpg"))
    (test,) = st.compare(one, two).tests
    paired = test.pairings[0].paired
    assert (paired.both, paired.gained, paired.lost, paired.neither) == (6, 1, 1, 0)


def test_only_common_images_are_paired_and_the_rest_is_counted(tmp_path):
    one = made_run(tmp_path / "one", mask(10, []), images=range(10))
    two = made_run(tmp_path / "two", mask(9, [0]), images=range(4, 13), lr=0.5)
    comparison = st.compare(one, two)
    (test,) = comparison.tests
    assert test.pairings[0].count == 6
    assert test.pairings[0].left_out == (4, 3)
    assert test.difference == pytest.approx(-1 / 6)
    assert (
        "A and B have 6 images in common. Left out: 4 only in A, 3 only in B"
        in caveats(comparison)
    )
    assert "The runs used different images or labels." in caveats(comparison)


def test_an_image_with_another_label_is_not_paired(tmp_path):
    labels = ["across"] * 4
    one = made_run(tmp_path / "one", mask(4, []), labels=labels)
    two = made_run(tmp_path / "two", mask(4, []), labels=[*labels[:3], "down"])
    comparison = st.compare(one, two)
    pairing = comparison.tests[0].pairings[0]
    assert (pairing.count, pairing.left_out, pairing.relabeled) == (3, (1, 1), 1)
    assert "1 of them because the labels differ" in caveats(comparison)


def test_copies_pair_one_to_one(tmp_path):
    one = made_run(tmp_path / "one", mask(3, []), images=[0, 1, 2])
    two = made_run(tmp_path / "two", mask(2, []), images=[1, 2])
    for run in (one, two):
        split = run / "split.csv"
        split.write_text(split.read_text().replace(",c2", ",c0"))
    pairing = st.compare(one, two).tests[0].pairings[0]
    assert (pairing.count, pairing.left_out) == (2, (1, 0))


def test_no_common_images(tmp_path):
    one = made_run(tmp_path / "one", mask(4, [0]), images=range(4))
    two = made_run(tmp_path / "two", mask(4, []), images=range(4, 8))
    comparison = st.compare(one, two)
    (test,) = comparison.tests
    assert (test.method, test.p, test.pairings) == ("none", None, ())
    assert test.difference == pytest.approx(0.25)
    assert (
        "The runs have no evaluated image in common, so no test is possible."
        in words(comparison)
    )
    assert "Flipped images" not in render_page(comparison.page)
    assert comparison.as_dict()["tests"][0]["pairings"] == []


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
    paired = pair_runs(*evaluated_runs([one, two], None)).paired
    assert paired.gained == sum(b and not a for a, b in answers)
    assert paired.lost == sum(a and not b for a, b in answers)


def test_classes_are_matched_by_name(tmp_path):
    """The second run's outputs stand in another order."""
    labels = ["a", "b", "c", "a", "b", "c"]
    one = made_run(
        tmp_path / "one", mask(6, [0]), labels=labels, classes=("a", "b", "c")
    )
    two = made_run(
        tmp_path / "two", mask(6, [5]), labels=labels, classes=("c", "a", "b")
    )
    comparison = st.compare(one, two)
    paired = comparison.tests[0].pairings[0].paired
    assert (paired.gained, paired.lost) == (1, 1)
    gained, lost = sorted(
        comparison.flipped_images(), key=lambda image: image.image_path
    )
    assert (gained.true, gained.pred) == ("a", ("b", "a"))
    assert (lost.true, lost.pred) == ("c", ("c", "a"))
    score = comparison.groups[1].runs[0].score
    assert [c.recall for c in score.classes] == [1.0, 1.0, 0.5]


# --- several runs


def test_p_values_of_several_tests_are_corrected(tmp_path):
    one = made_run(tmp_path / "a", mask(60, range(12)))
    two = made_run(tmp_path / "b", mask(60, range(4)), lr=0.1)
    three = made_run(tmp_path / "c", mask(60, range(20)), lr=0.2)
    comparison = st.compare(one, two, three)
    second, third = comparison.tests
    assert second.p == pytest.approx(2 / 2**8)
    assert second.p_holm == pytest.approx(2 * min(second.p, third.p))
    assert third.p_holm == pytest.approx(max(second.p_holm, third.p))
    assert "(corrected for 2 tests): B is better." in words(comparison)
    assert "(corrected for 2 tests): A is better." in words(comparison)
    table = difference_table(comparison.tests)
    assert [column.title for column in table.columns][-2:] == ["p", "p (Holm)"]


def test_many_runs_stand_in_rows(tmp_path):
    runs = [
        made_run(tmp_path / f"r{i}", mask(60, range(12 * i)), lr=0.1 + i)
        for i in range(5)
    ]
    apart = made_run(tmp_path / "apart", mask(5, [0]), images=range(100, 105))
    comparison = st.compare(runs[1], *runs[2:], runs[0], apart)
    text = words(comparison)
    summary = "Better than A: E. Worse than A: B, C, D. Not tested: F. The p-values are"
    assert f"{summary} corrected for 4 tests (Holm)" in text
    assert "Classes and flipped images: see the report" in text
    assert re.search(r"^E  +100\.0 %", str(comparison), re.MULTILINE)
    assert "Comparison of 6 runs" in render_page(comparison.page)


# --- settings over seeds


def seeds(tmp_path, name, wrong, *, images=None, first=0, **settings):
    """One run per seed, with so many wrong predictions of 50."""
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
    comparison = st.compare(*two[:1], *one, *two[1:])
    assert [group.seeds for group in comparison.groups] == [(0, 1, 2), (0, 1, 2)]
    assert comparison.groups[0].name == "two-0 … two-2"
    (test,) = comparison.tests
    assert (test.method, test.overlap, len(test.pairings)) == ("paired_t", 0.0, 3)
    oracle = stats.ttest_rel([10, 12, 9], [6, 7, 4])
    assert test.p == pytest.approx(oracle.pvalue)
    assert test.difference == pytest.approx(-14 / 150)
    assert "over 3 pairs of runs with equal seed" in words(comparison)
    assert "A is better." in words(comparison)
    assert "seed" not in [d.name for d in comparison.setting_differences]


def test_overlapping_training_images_widen_the_interval(tmp_path):
    def test_images(seed):
        return range(50 * seed, 50 * seed + 50)

    same = {"labels": ["across"] * 50, "train": 100}
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1, images=test_images, **same)
    two = seeds(tmp_path, "two", (6, 7, 4), lr=0.2, images=test_images, **same)
    for run in (*one, *two):  # all used the same images, split differently
        everything = [f"{i:04}.png,across,{{}},,c{i}" for i in range(150)]
        seed = int(run.name[-1])
        lines = [
            line.format("test" if i in test_images(seed) else "train")
            for i, line in enumerate(everything)
        ]
        (run / "split.csv").write_text(
            "\n".join(["image_path,label,split,group,content", *lines])
        )
    comparison = st.compare(*one, *two)
    (test,) = comparison.tests
    assert test.overlap == pytest.approx(50 / 100)
    differences = np.array([4, 5, 5]) / 50
    error = differences.std(ddof=1) * np.sqrt(1 / 3 + 0.5)
    expected = 2 * stats.t.sf(differences.mean() / error, 2)
    assert test.p == pytest.approx(expected)
    assert "accounts for this (Nadeau and Bengio 2003)" in words(comparison)


def test_different_seeds_are_compared_unpaired(tmp_path):
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1)
    two = seeds(tmp_path, "two", (6, 7, 4, 5), first=7, lr=0.2)
    comparison = st.compare(*one, *two)
    (test,) = comparison.tests
    assert (test.method, test.pairings) == ("welch", ())
    right = [[40, 38, 41], [44, 43, 46, 45]]
    oracle = stats.ttest_ind(*right, equal_var=False)
    assert test.p == pytest.approx(oracle.pvalue)
    assert "over 3 and 4 seeds" in words(comparison)
    assert class_difference_table(test) is None
    assert "3 and 4 seeds" in json.dumps(difference_table(comparison.tests).rows)
    render_page(comparison.page)


def test_one_seed_against_several_is_not_tested(tmp_path):
    one = seeds(tmp_path, "one", (10, 12, 9), lr=0.1)
    two = seeds(tmp_path, "two", (6,), lr=0.2)
    three = seeds(tmp_path, "three", (20,), first=9, lr=0.3)
    comparison = st.compare(*one, *two, *three)
    second, third = comparison.tests
    assert (second.method, second.p, second.interval) == ("none", None, None)
    assert second.difference == pytest.approx(4 / 50)
    assert third.difference == pytest.approx(-(20 - 31 / 3) / 50)
    assert "B has only one seed, so no test over seeds is possible." in words(
        comparison
    )


def test_equal_differences_over_seeds_are_not_tested(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 8), lr=0.2)
    comparison = st.compare(*one, *two)
    (test,) = comparison.tests
    assert (test.method, test.p, test.interval) == ("paired_t", None, None)
    assert "The difference is the same for all seeds, so no test is possible." in words(
        comparison
    )


def test_a_duplicate_run_is_left_out(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 7), lr=0.2)
    again = shutil.copytree(two[0], tmp_path / "again")
    comparison = st.compare(*one, *two, again)
    assert len(comparison.tests[0].pairings) == 2
    assert "again has the same settings and seed as a run of B" in caveats(comparison)
    assert comparison.as_dict()["groups"][1]["duplicates"] == [str(again)]


def test_runs_that_differ_only_in_seed_stay_single(tmp_path):
    """Then the seeds are compared."""
    comparison = st.compare(*seeds(tmp_path, "one", (10, 12, 9)))
    assert [len(group.runs) for group in comparison.groups] == [1, 1, 1]
    assert [d.name for d in comparison.setting_differences] == ["seed"]
    assert "another seed gives another model" not in caveats(comparison)


def test_the_device_is_no_setting(tmp_path):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6,), lr=0.2)
    three = seeds(tmp_path, "three", (7,), first=1, lr=0.2, device="cpu")
    comparison = st.compare(*one, *two, *three)
    assert [group.seeds for group in comparison.groups] == [(0, 1), (0, 1)]


def test_flipped_images_over_seeds(tmp_path):
    """Image 9 is correct in B with all seeds; 8 with two of three."""
    one = seeds(tmp_path, "one", (10, 10, 10), lr=0.1)
    two = seeds(tmp_path, "two", (9, 8, 8), lr=0.2)
    first, second = st.compare(*one, *two).flipped_images()
    assert (first.image_path, first.correct, first.pairs) == ("0009.png", (0, 3), 3)
    assert (second.image_path, second.correct, second.pred) == (
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
    comparison = st.compare(*one, two)
    chart = next(
        s for s in comparison.page.sections if s.title == "Learning curves"
    ).blocks[0]
    band = chart.series[0]
    assert band.y == pytest.approx((0.6, 0.7))  # as far as both runs went
    assert (band.low, band.high) == ((0.5, 0.6), (0.7, 0.8))
    assert chart.series[1].low is None


# --- the split


def test_validation_is_compared_if_there_is_no_test_split(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [0]), split="val")
    two = made_run(tmp_path / "two", mask(10, [1]), split="val")
    comparison = st.compare(one, two)
    assert comparison.split == "val"
    assert "the accuracies are optimistic" in caveats(comparison)


def test_splits_are_never_mixed(tmp_path):
    one = made_run(tmp_path / "one", mask(10, [0]), split="val")
    two = made_run(tmp_path / "two", mask(10, [1]))
    with pytest.raises(
        RunError, match="1 of 2 runs have no predictions for the test split"
    ):
        st.compare(one, two)
    with pytest.raises(RunError, match="no predictions for the val split") as caught:
        st.compare(one, two, split="val")
    assert "this split does not exist, or its predictions file" in caught.value.what


# --- what cannot be compared


def test_fewer_than_two(two):
    with pytest.raises(SettingError, match="needs at least two runs, got 1"):
        st.compare(two[0])


def test_the_same_run_twice(two):
    with pytest.raises(SettingError, match="given twice"):
        st.compare(two[0], two[1], two[0].parent / "." / two[0].name)


def test_an_unknown_run(two):
    with pytest.raises(RunError, match="the run folder does not exist"):
        st.compare(two[0], "nowhere")


def test_other_classes(tmp_path, two):
    other = made_run(tmp_path / "x", mask(4, []), classes=("across", "up", "left"))
    with pytest.raises(RunError, match="different classes") as caught:
        st.compare(two[0], other)
    assert "down only in one, left, up only in x" in caught.value.what


def test_runs_without_predictions_are_named_with_the_reason(tmp_path, two):
    stopped = stop(made_run(tmp_path / "s", mask(4, [])), "the loss became NaN")
    running = stop(made_run(tmp_path / "g", mask(4, [])), "")
    text = (running / "manifest.json").read_text().replace("stopped", "running")
    (running / "manifest.json").write_text(text)
    with pytest.raises(RunError) as caught:
        st.compare(*two, stopped, running)
    assert f"{stopped}: training stopped (the loss became NaN)" in caught.value.what
    assert f"{running}: training is still running, or was killed" in caught.value.what
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


def test_a_run_without_evaluated_images(two):
    path = two[1] / "predictions_test.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match="has no predictions"):
        st.compare(*two)


def test_macs_of_a_model_given_as_an_object_are_unknown(two, tmp_path):
    args = two[1] / "args.yaml"
    args.write_text(args.read_text().replace("tutorial_gray", "custom:mine.Net"))
    comparison = st.compare(*two).as_dict()
    assert comparison["groups"][0]["runs"][0]["macs"] > 0
    assert comparison["groups"][1]["runs"][0]["macs"] is None


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
    comparison = st.compare(*real)
    page = render_page(comparison.page)
    image = comparison.flipped_images()[0]
    assert not image.gained
    assert f"A: {image.true} → B: {image.pred[1]}" in page
    assert "data:image/png" in page
    assert "could not be read" not in page
    gallery = comparison.page.sections[-1].blocks[-1]
    assert {p.width for p in gallery.images} == {12}  # the larger of the two
    assert [snapshot(run) for run in real] == before


def test_a_gallery_over_seeds(tmp_path, monkeypatch):
    one = seeds(tmp_path, "one", (10, 12), lr=0.1)
    two = seeds(tmp_path, "two", (6, 9), lr=0.2)
    pixels = torch.zeros(50, 8, 8, 1, dtype=torch.uint8)
    monkeypatch.setattr(flipped, "subset_pixels", lambda *_: pixels)
    comparison = st.compare(*one, *two)
    page = render_page(comparison.page)
    assert "A: down → B: across" in page
    assert "90 % → 90 %, correct 0 → 2 of 2 · 0009.png" in page
    assert "accuracy ± 2.83 over 2 seeds" in page
    assert "Correct and wrong predictions" not in page


def test_missing_image_files_are_listed(real, tmp_path, monkeypatch):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in real]
    for run in runs:
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["data"]["source"] = str(tmp_path / "gone")
        (run / "manifest.json").write_text(json.dumps(manifest))
    comparison = st.compare(*runs)
    page = render_page(comparison.page)
    assert "could not be read" in page
    assert comparison.flipped_images()[0].image_path in page
    assert "data:image/png" not in page


def test_long_galleries_and_tables_are_cut(tmp_path, monkeypatch):
    one = made_run(tmp_path / "one", mask(80, range(70)))
    two = made_run(tmp_path / "two", mask(80, [75]), lr=0.5)
    comparison = st.compare(one, two)
    assert "62 more; see the report" in str(comparison)
    gained = comparison.page.sections[-1].blocks[2]
    assert len(gained.rows) == flipped.MAX_FLIPPED_IMAGES
    assert gained.note == "22 more; see the output of --json."
    assert len(flipped_images(comparison.tests[0].pairings)) == 71


def test_only_the_most_changed_of_many_classes_are_shown(tmp_path):
    classes = tuple(f"k{i:02}" for i in range(40))
    one = made_run(tmp_path / "one", mask(80, [39, 79]), classes=classes)
    two = made_run(tmp_path / "two", mask(80, []), classes=classes, lr=0.5)
    table = class_difference_table(st.compare(one, two).tests[0])
    assert table.rows[0][0] == "k39"
    assert len(table.rows) == 30
    assert table.note.startswith("10 classes")


def test_runs_with_one_name_are_shown_with_their_path(tmp_path):
    one = made_run(tmp_path / "x" / "run", mask(9, [0]))
    two = made_run(tmp_path / "y" / "run", mask(9, [1]))
    rows = st.compare(one, two).blocks[0].rows
    assert rows == (("A", str(one)), ("B", str(two)))
