"""The verdict on a run: its kind, its sentences and the next steps."""

import json
import re
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from striate.core.files import write_csv, write_json
from striate.report.terminal import blocks_text
from striate.run import verdict_rules as rules
from striate.run.next_steps import MAX_STEPS
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.run.train_accuracy import CorrectCount
from striate.run.verdict import run_verdict
from striate.run.verdict_facts import ClassCount, VerdictFacts, is_rising
from striate.run.verdict_findings import verdict_blocks
from striate.run.verdict_rules import conclude, has_train_gap, is_above_majority
from striate.workflows.train.train import train_recipe
from support.image_sets import random_folder
from support.images import write_folder
from support.run_folders import made_run

KINDS = {
    *(rules.TOO_FEW, rules.ONE_CLASS, rules.NOT_ABOVE_BASELINE, rules.SPLITS_DIFFER),
    *(rules.OVERFITTING, rules.CLASS_NEVER_PREDICTED, rules.CLOSE_TO_BASELINE),
    rules.ABOVE_BASELINE,
}


def facts_of(correct, images, *, split="test", predicted=None, **more):
    """Facts with these correct predictions and images of each class."""
    predicted = predicted or images
    classes = tuple(
        ClassCount(name=f"c{i}", images=n, correct=k, predicted=p)
        for i, (k, n, p) in enumerate(zip(correct, images, predicted, strict=True))
        if n
    )
    names = tuple(f"c{i}" for i, p in enumerate(predicted) if p)
    return VerdictFacts(split=split, classes=classes, predicted_classes=names, **more)


def plain(sentences):
    return " ".join(sentences).replace("\u00a0", " ")


def judged(*counts, **more):
    kind, sentences = conclude(facts_of(*counts, **more))
    return kind, plain(sentences)


# --- the rules


def test_the_first_hour_of_a_new_user():
    """300 photographs in four classes, trained from scratch: 21.1 %."""
    kind, text = judged(
        [4, 4, 4, 4], [19] * 4, train=CorrectCount(180, 180), train_counts={"c0": 180}
    )
    assert kind == "not above baseline"
    first, second = text.split(". ", 1)
    answer = (
        "is not significantly better than always predicting 'c0' (25.0 %, p = 0.82)"
    )
    assert first == f"The test accuracy (21.1 %) {answer}"
    assert "100.0 % on training images and 21.1 % on test images" in second


def test_a_little_above_the_majority_is_not_enough():
    kind, text = judged([13, 13, 0, 0], [19] * 4, predicted=[38, 38, 0, 0])
    assert kind == "not above baseline"
    assert "(34.2 %) is not significantly better than always predicting 'c0'" in text


def test_one_class_for_every_image():
    kind, text = judged([0, 20], [30, 20], predicted=[0, 50])
    assert kind == "not above baseline"
    assert text.startswith("The network predicts 'c1' for every image: the test")
    answer = (
        "is not significantly better than always predicting 'c0' (60.0 %, p = 1.00)"
    )
    assert f"(40.0 %) {answer}" in text


def test_overfitting():
    kind, text = judged([30, 30], [50, 50], train=CorrectCount(300, 300))
    assert kind == "not above baseline"  # p = 0.028
    kind, text = judged([35, 35], [50, 50], train=CorrectCount(300, 300))
    assert kind == "overfitting"
    expected = "Overfitting: the accuracy is 100.0 % on training images and 70.0 % on "
    assert text.startswith(f"{expected}test images.")
    assert "70.0 %, 95 % interval 60.4–78.1 %) is clearly better than" in text


def test_a_small_or_uncertain_gap_is_no_overfitting():
    full = CorrectCount(300, 300)
    assert judged([44, 44], [50, 50], train=full)[0] == "above baseline"  # 12 points
    assert (
        judged([9, 8, 8], [10, 10, 10], train=full)[0] == "above baseline"
    )  # 25 of 30
    assert judged([40, 40], [50, 50], train=full)[0] == "overfitting"


def test_the_gap_of_a_linear_head_is_a_fact_and_no_fault():
    more = {"train": CorrectCount(300, 300)}
    kind, text = judged([40, 40], [50, 50], cross_validated=0.82, **more)
    assert kind == "above baseline"
    assert "Cross-validation on the training images gave 82.0 %, so" in text
    assert "the gap is not overfitting: a linear head often fits" in text
    # Worse than cross-validation foretold: not usual.
    kind, _ = judged([40, 40], [50, 50], cross_validated=0.95, **more)
    assert kind == "overfitting"


def test_too_few_evaluated_images():
    kind, text = judged([4, 5], [6, 6])
    assert kind == "too few images"
    limits = "the 95 % interval of the accuracy is 46.8–91.1 %"
    assert text.startswith(f"There are only 12 test images: {limits}.")
    assert "always predicting" not in text  # nothing is concluded from so few
    # All of 18 right is enough, and so are 19 wrong ones.
    assert judged([9, 9], [9, 9])[0] == "above baseline"
    assert judged([0, 0], [10, 9])[0] == "not above baseline"


def test_a_wide_interval_is_mentioned_after_the_verdict():
    kind, text = judged([20, 18], [25, 25])
    assert (kind, "only" in text) == ("above baseline", False)
    kind, text = judged([11, 11, 11], [17, 17, 16])
    assert kind == "above baseline"
    assert "There are only 50 test images: the 95 % interval" in text


def test_too_few_training_images():
    counts = {"c0": 4, "c1": 5, "c2": 3}
    kind, text = judged([10] * 3, [30] * 3, train_counts=counts)
    assert kind == "too few images"
    expected = "All classes have fewer than 10 training images: 'c2' (3), 'c0' (4), "
    assert text.startswith(expected)
    # Few images of one class are only mentioned.
    counts = {"c0": 400, "c1": 5, "c2": 300}
    kind, text = judged([25] * 3, [30] * 3, train_counts=counts)
    assert kind == "above baseline"
    assert "The class 'c1' has only 5 training images." in text
    kind, text = judged([25] * 3, [30] * 3, train_counts={"c0": 5, "c1": 9, "c2": 99})
    assert "2 of 3 classes have fewer than 10 training images: 'c0' (5)" in text


def test_validation_and_test_differ():
    more = {"reference": CorrectCount(57, 60), "reference_split": "val"}
    kind, text = judged([36, 36], [50, 50], **more)
    assert kind == "splits differ"
    assert "is 95.0 % on validation images but 72.0 % on test images. A" in text
    assert "is unlikely by chance (Fisher's exact test, p = 0.0003)." in text
    assert judged([43, 43], [50, 50], **more)[0] == "above baseline"  # 9 points
    few = {"reference": CorrectCount(10, 10), "reference_split": "val"}
    assert judged([40, 40], [50, 50], **few)[0] == "above baseline"
    sure = {"reference": CorrectCount(100, 100), "reference_split": "val"}
    assert "p < 0.0001)" in judged([36, 36], [50, 50], **sure)[1]


def test_a_class_that_is_never_predicted():
    kind, text = judged([30, 30, 0], [30, 30, 10], predicted=[35, 35, 0])
    assert kind == "class never predicted"
    assert text.startswith("The class 'c2' (10 images) is never predicted.")
    _, text = judged([30, 30, 0], [30, 30, 10], predicted=[30, 35, 5])
    assert "The class 'c2' (10 images) is never predicted correctly." in text
    _, text = judged([90, 90, 0, 0], [90, 90, 10, 10], predicted=[95, 95, 5, 5])
    assert "2 of 4 classes are never predicted correctly: 'c2', 'c3'." in text
    # Chance explains three images, and no image of a class says nothing.
    assert (
        judged([30, 30, 0], [30, 30, 3], predicted=[32, 31, 0])[0] == "above baseline"
    )
    assert judged([30, 30, 0], [30, 30, 0])[0] == "above baseline"


def test_close_to_the_majority():
    kind, text = judged([8950, 200], [9000, 1000])
    assert kind == "close to baseline"
    assert "(91.5 %) is only 1.5 points above always predicting 'c0' (90.0 %)" in text
    assert "the balanced accuracy is 59.7 %." in text
    kind, text = judged([800, 70], [900, 100])
    assert kind == "close to baseline"
    assert "(87.0 %) is not significantly better than always predicting 'c0'" in text
    assert "Only the balanced accuracy (79.4 %) is better than chance (50.0 %)" in text
    assert judged([890, 80], [900, 100])[0] == "above baseline"


def test_images_of_one_class():
    kind, text = judged([28, 0], [30, 0], split="new images", predicted=[28, 2])
    assert kind == "one class"
    expected = "All 30 images in 'new images' have the class 'c0'; its recall is 93.3 %"
    assert expected in text
    assert judged([9, 0], [10, 0])[0] == "too few images"


def test_other_images_are_named():
    more = {"split": "Photos 2", "train": CorrectCount(99, 100)}
    kind, text = judged([30, 30], [40, 40], **more)
    assert kind == "overfitting"
    assert "on training images and 75.0 % on 'Photos 2'" in text
    assert "The accuracy on 'Photos 2' (75.0 %, 95 % interval" in text


def test_a_low_training_accuracy():
    _, text = judged([10] * 4, [25] * 4, train=CorrectCount(90, 200))
    assert "The training accuracy is only 45.0 %: the network did not learn" in text
    _, text = judged([24] * 4, [25] * 4, train=CorrectCount(180, 200))
    assert "training accuracy" not in text


def test_a_rising_validation_accuracy():
    more = {"is_rising": True, "epochs": 5}
    _, text = judged([20] * 4, [25] * 4, train=CorrectCount(160, 200), **more)
    assert "The validation accuracy was still rising after 5 epochs." in text
    _, text = judged([20] * 4, [25] * 4, train=CorrectCount(200, 200), **more)
    assert "rising" not in text


def test_rising_is_more_than_one_standard_error():
    val = CorrectCount(70, 100)

    def history(*values):
        last = len(values) - 1
        return [
            {"val_accuracy": v, "best": float(i == last)} for i, v in enumerate(values)
        ]

    assert is_rising(history(0.3, 0.4, 0.5, 0.7), val)
    assert not is_rising(history(0.3, 0.4, 0.67, 0.7), val)
    assert not is_rising(history(0.7), val)
    assert not is_rising(history(0.3, 0.7), None)
    falling = [*history(0.3, 0.4, 0.5, 0.7), {"val_accuracy": 0.6, "best": 0.0}]
    assert not is_rising(falling, val)


# --- properties


@st.composite
def some_facts(draw):
    size = draw(st.integers(1, 6))
    images = draw(st.lists(st.integers(1, 60), min_size=size, max_size=size))
    correct = [draw(st.integers(0, n)) for n in images]
    predicted = [max(k, draw(st.integers(0, 60))) for k in correct]
    pairs = st.integers(1, 300).flatmap(
        lambda n: st.tuples(st.integers(0, n), st.just(n))
    )
    train, reference = draw(st.none() | pairs), draw(st.none() | pairs)
    return facts_of(
        correct,
        images,
        predicted=predicted,
        split=draw(st.sampled_from(["test", "val", "photos/2"])),
        train=train and CorrectCount(*train),
        reference=reference and CorrectCount(*reference),
        reference_split="val",
        cross_validated=draw(st.none() | st.floats(0, 1)),
        train_counts={f"c{i}": draw(st.integers(1, 99)) for i in range(size)},
        is_rising=draw(st.booleans()),
    )


@settings(max_examples=40)
@given(some_facts())
def test_every_run_has_a_verdict_in_short_sentences(facts):
    kind, sentences = conclude(facts)
    assert kind in KINDS
    for sentence in chain(*(re.split(r"(?<=\.) (?=[A-Z])", s) for s in sentences)):
        assert sentence.endswith(".")
        words = plain([sentence.replace("\u00a0%", "")]).split()
        assert len(words) <= 25, sentence
    assert (kind == rules.ABOVE_BASELINE) <= is_above_majority(facts)


@settings(max_examples=40)
@given(some_facts())
def test_better_is_the_exact_test(facts):
    evaluated, share = facts.evaluated, facts.majority_share
    p = binomtest(evaluated.correct, evaluated.count, share, "greater").pvalue
    assert is_above_majority(facts) == (p < rules.MAJORITY_ALPHA)


@settings(max_examples=40)
@given(some_facts(), st.integers(0, 100))
def test_the_gap_grows_with_the_training_accuracy(facts, correct):
    gaps = [
        has_train_gap(
            facts_of(
                [c.correct for c in facts.classes],
                [c.images for c in facts.classes],
                train=CorrectCount(k, 100),
            )
        )
        for k in sorted((correct, 100))
    ]
    assert gaps == sorted(gaps)


# --- runs


@pytest.fixture
def photos(tmp_path):
    """Two classes of 64×64 images, as the data of made runs."""
    return write_folder(tmp_path / "my photos", count=2, size=(64, 64))


def run_of(path, right, data=None, train_accuracy=1.0, side=64, **options):
    """A made run on `data` with its verdict's files."""
    source = str(data) if data else ""
    manifest = {
        "data": {"name": "photos", "source": source, "splits": {"train": 20}},
        "train_accuracy": {
            "accuracy": train_accuracy,
            "interval": [0, 1],
            "count": 200,
        },
        **options.pop("manifest", {}),
    }
    made_run(path, right, manifest=manifest, **options)
    preprocess = {"channels": 1, "height": side, "width": side, "mean": [0], "std": [1]}
    write_json(path / "preprocess.json", preprocess)
    if data:
        args = path / "args.yaml"
        args.write_text(args.read_text().replace("data: stripes", f"data: {data}"))
    return Run(path)


def commands(verdict):
    return [step.command for step in verdict.next_steps]


HALF, MOST, ALL = (
    [True, True, False, False] * 20,
    [True] * 60 + [False] * 20,
    [True] * 80,
)


def test_steps_at_chance_from_scratch(photos):
    verdict = run_verdict(run_of(Path("run"), HALF, photos))
    assert verdict.kind == "not above baseline"
    folder = f"'{photos}'"
    assert commands(verdict) == [
        f"striate data check {folder} --labels",
        f"striate transfer {folder}",
        "striate train --config run/args.yaml --augment six",
    ]
    assert all(step.purpose for step in verdict.next_steps)


def test_steps_of_an_overfitting_run(photos):
    verdict = run_verdict(run_of(Path("run"), MOST, photos))
    assert verdict.kind == "overfitting"
    texts = commands(verdict)
    assert texts[1] == "striate train --config run/args.yaml --augment six"
    assert "collect more images" in verdict.next_steps[2].purpose  # 20 are too few
    # With augmentation it is not recommended again.
    again = run_verdict(run_of(Path("again"), MOST, photos, flip="horizontal"))
    assert not any("--augment" in text for text in commands(again))


def test_small_images_are_not_for_pretrained_networks(photos):
    verdict = run_verdict(run_of(Path("run"), MOST, photos, side=8))
    assert not any("transfer" in text for text in commands(verdict))


def test_steps_of_a_fine_run(photos):
    verdict = run_verdict(run_of(Path("run"), ALL, photos))
    assert verdict.kind == "above baseline"
    assert commands(verdict) == [
        "striate predict run IMAGE_OR_FOLDER",
        "striate explain run",
    ]


def test_steps_of_a_run_in_memory():
    """Without files there is nothing that a command could read again."""
    verdict = run_verdict(run_of(Path("run"), HALF))
    assert commands(verdict) == []
    fine = run_verdict(run_of(Path("fine"), MOST, train_accuracy=0.8))
    assert commands(fine) == [
        "striate predict fine IMAGE_OR_FOLDER",
        "striate explain fine",
    ]


LINEAR = {"transfer": {"head": "logistic", "penalty": 0.1}}


def linear_run(photos, path="run", facts=LINEAR, **options):
    run = run_of(
        Path(path), MOST, photos, manifest=facts, pretrained="mobilenet_v2", **options
    )
    write_csv(
        run.path / "penalties.csv", ("penalty", "loss", "accuracy"), [(0.1, 1, 0.74)]
    )
    return run


def test_steps_of_a_linear_head(photos):
    verdict = run_verdict(linear_run(photos))
    assert verdict.kind == "above baseline"
    assert "gave 74.0 %" in plain(verdict.sentences)
    texts = commands(verdict)
    flags = "--model tutorial_gray --pretrained mobilenet_v2"
    assert f"striate train '{photos}' {flags}" in texts
    assert not any(text.endswith(f"transfer '{photos}'") for text in texts)
    planned = {"transfer": {**LINEAR["transfer"], "plan": {}}}
    verdict = run_verdict(linear_run(photos, "planned", planned))
    assert not any("--pretrained" in text for text in commands(verdict))


def test_steps_of_rare_classes(photos):
    right = [*[True] * 72, *[False] * 8]
    labels = [*["across"] * 72, *["down"] * 8]
    path, more = Path("run"), {"labels": labels, "train_accuracy": 0.9}
    verdict = run_verdict(run_of(path, right, photos, **more))
    assert verdict.kind == "not above baseline"  # it says 'across' to everything
    three = ("across", "down", "aslant")
    labels = [*["across"] * 40, *["down"] * 40, *["aslant"] * 9]
    right = [*[True] * 80, *[False] * 9]
    verdict = run_verdict(
        run_of(
            Path("b"), right, photos, labels=labels, classes=three, train_accuracy=0.9
        )
    )
    assert verdict.kind == "class never predicted"
    assert "striate train --config b/args.yaml --class-weights auto" in commands(
        verdict
    )


def test_train_longer(photos):
    run = run_of(
        Path("run"), ALL, photos, train_accuracy=0.9, accuracies=(0.2, 0.3, 0.4, 0.9)
    )
    score = {"accuracy": 0.9, "interval": [0.8, 0.95], "count": 60}
    write_json(run.path / "scores.json", {"val": score, "test": score})
    right = [True] * 68 + [False] * 12
    assert "still rising after 4 epochs" in plain(run_verdict(run).sentences)
    again = run_of(Path("b"), right, photos, train_accuracy=0.9, accuracies=(0.2, 0.9))
    write_json(again.path / "scores.json", {"val": score})
    assert "striate train --resume b --epochs 4" in commands(run_verdict(again))


def test_a_forecast_of_a_learning_curve_is_quoted(photos):
    plan = {"data": str(photos)}
    forecast = {"images": 360, "expected": 0.912, "low": 0.88, "high": 0.94}
    content = {"plan": plan, "metric": "accuracy", "forecasts": [forecast]}
    write_json(Path("runs/curve/photos/curve.json"), content)
    other = {**content, "plan": {"data": "digits"}}
    write_json(Path("runs/curve/other/curve.json"), other)
    write_json(Path("runs/curve/half/curve.json"), {"plan": plan})
    Path("runs/curve/bad").mkdir()
    Path("runs/curve/bad/curve.json").write_text("{")
    verdict = run_verdict(run_of(Path("runs/train/run"), MOST, photos))
    purpose = verdict.next_steps[2].purpose.replace("\u00a0", " ")
    expected = "with 360 training images, accuracy 91.2 % (88.0–94.0 %) is expected"
    assert purpose.startswith(f"collect more images: {expected} (see ")
    assert purpose.endswith("runs/curve/photos)")


def test_a_learning_curve_is_recommended(photos):
    verdict = run_verdict(run_of(Path("run"), MOST, photos, train=120, side=8))
    assert f"striate data curve '{photos}'" in commands(verdict)
    more = {"data": {"source": str(photos), "name": "p", "unused": 1000}}
    part = run_of(Path("part"), MOST, photos, train=120, manifest=more)
    purposes = [step.purpose for step in run_verdict(part).next_steps]
    assert "train on all images: --fraction left out 1,000 training images" in purposes


def test_the_verdict_as_json_and_as_blocks(photos):
    verdict = run_verdict(run_of(Path("run"), MOST, photos))
    fields = json.loads(json.dumps(verdict.as_dict()))
    assert set(fields) == {"kind", "sentences", "next_steps"}
    assert fields["sentences"][0].startswith("Overfitting: the accuracy is 100.0 % on")
    assert set(fields["next_steps"][0]) == {"command", "purpose"}
    assert len(fields["next_steps"]) == MAX_STEPS
    text = blocks_text(verdict_blocks(verdict), 300)
    assert text.startswith("! Overfitting:")
    assert "Next steps" in text
    assert "striate train --config run/args.yaml --augment six" in text


def test_two_thousand_classes():
    """The sentences name a few classes, and rates are those of many classes."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2000, (2, 8000))
    names = range(2000)
    images = np.bincount(truth, minlength=2000).tolist()
    correct = np.bincount(truth[truth == predicted], minlength=2000).tolist()
    facts = facts_of(correct, images, train_counts={f"c{i}": 4 for i in names})
    kind, sentences = conclude(facts)
    assert kind == "too few images"
    assert "All classes have fewer than 10 training images: 'c0' (4)" in sentences[0]
    facts = facts_of(correct, images, train_counts={f"c{i}": 40 for i in names})
    assert conclude(facts)[0] == "not above baseline"
    facts = facts_of([n * 2 // 3 for n in images], images)
    assert conclude(facts)[0] == "above baseline"


# --- folders with a known problem

FAST_SEEDS = {0, 1, 2, 17}  # one of each kind; seconds together


@pytest.mark.parametrize(
    "seed",
    [
        s if s in FAST_SEEDS else pytest.param(s, marks=pytest.mark.slow)
        for s in range(20)
    ],
)
def test_the_problem_of_a_random_folder_is_named(tmp_path, no_report, seed):
    folder = random_folder(tmp_path / "images", seed)
    recipe = Recipe(data=str(folder.path), image_size=32, **folder.settings)
    verdict = run_verdict(train_recipe(recipe, quiet=True))
    assert verdict.kind == folder.kind, verdict.sentences
