"""Operating point: chosen on validation, evaluated on test, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import striate as st
from striate.core.class_names import ClassNames
from striate.core.errors import DataError, RunError, SettingError, UnknownNameError
from striate.core.files import read_json, write_csv
from striate.core.findings import Images
from striate.engine.evaluate import Outputs
from striate.report.html import render_page
from striate.run.calibration import save_evaluation
from striate.run.predictions import Predictions
from striate.run.run import Run
from striate.run.stored_operating_point import load_operating_point
from striate.workflows.evaluate.operating_point import operating_point
from striate.workflows.evaluate.selection import OperatingPointRequest, uncalibrate
from support.images import snapshot
from support.run_folders import made_run

CLASSES = ("defect", "sound")
KINDS = ("mono", "poly")


def model_outputs(count, seed, scale=4.0, shift=1.0):
    """Outputs of a model and the truth: two normal clusters, `shift` from the middle.

    A scale of 2·shift would be calibrated, but for the class frequencies.
    """
    draw = np.random.default_rng(seed)
    defect = draw.random(count) < 0.3
    defect[:2] = True, False
    logit = draw.normal(size=count) + np.where(defect, shift, -shift)
    logits = torch.tensor(np.stack([logit * scale, np.zeros(count)], 1))
    labels = torch.tensor(np.where(defect, 0, 1))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return Outputs(logits=logits, labels=labels, losses=losses)


@pytest.fixture
def make_run(tmp_path):
    """A run of two classes with given predictions; a CSV describes its images."""

    def make(val=300, test=300, csv=True, **outputs_options):
        path = made_run(
            tmp_path / "runs" / "train" / "cells",
            [True] * test,
            classes=CLASSES,
            manifest={"data": _data(tmp_path)},
        )
        rows, unscaled = [], {}
        for split, count, seed in (("val", val, 1), ("test", test, 2)):
            outputs = model_outputs(count, seed, **outputs_options)
            names = [f"{split}/{i:04}.png" for i in range(count)]
            predictions = Predictions.of(names, outputs, ClassNames(CLASSES))
            unscaled[split] = predictions
            for i, (name, number) in enumerate(
                zip(names, outputs.labels.tolist(), strict=True)
            ):
                rows.append((name, CLASSES[number], KINDS[i % 2], f"{number}.0", split))
        save_evaluation(path, unscaled)
        if csv:
            columns = ("image_path", "label", "kind", "probability", "split")
            write_csv(tmp_path / "cells.csv", columns, rows)
        return Run(path)

    return make


def _data(tmp_path):
    return {"name": "cells", "source": str(tmp_path / "cells.csv")}


def test_threshold_is_chosen_on_validation_and_evaluated_on_test(make_run):
    run = make_run()
    result = operating_point(run, "defect", recall=0.9)
    val, test = run.predictions("val"), run.predictions("test")
    temperature = run.temperature
    assert result.temperature == temperature
    assert 1.5 < temperature < 3  # the logits were twice too large
    threshold = result.selection.threshold
    positives = np.sort(val.probs[val.truth == 0, 0])[::-1]
    rank = int(np.ceil(0.9 * len(positives)))
    assert result.threshold == pytest.approx(positives[rank - 1])
    expected = uncalibrate(result.threshold, temperature)
    assert threshold.uncalibrated == pytest.approx(expected)
    raw = torch.tensor(test.probs).log().mul(temperature).softmax(1)[:, 0].numpy()
    predicted = raw >= threshold.uncalibrated - 1e-9
    counts = result.evaluation.overall.counts
    assert counts.tp == (predicted & (test.truth == 0)).sum()
    assert counts.fp == (predicted & (test.truth == 1)).sum()
    assert counts.count == 300
    low, high = threshold.expected_recall
    assert low < 0.9 < high


def test_selection_does_not_depend_on_the_test_split(make_run, tmp_path):
    first = operating_point(make_run(), "defect")
    other = operating_point(make_run(test=40), "defect")
    assert first.threshold == other.threshold
    assert first.selection.band == other.selection.band
    assert first.evaluation.overall.counts != other.evaluation.overall.counts


def test_by_columns(make_run):
    result = operating_point(make_run(), "defect", by=("kind", "probability"))
    assert set(result.evaluation.by) == {"kind", "probability"}
    mono, poly = result.evaluation.by["kind"]
    overall = result.evaluation.overall.counts
    assert [mono.value, poly.value] == ["mono", "poly"]
    assert mono.counts.count == poly.counts.count == 150
    assert mono.counts.tp + poly.counts.tp == overall.tp
    zero, one = result.evaluation.by["probability"]  # class numbers: 0 is the defect
    assert (zero.counts.fn, one.counts.tp) == (overall.fn, 0)
    assert (zero.roc_auc, one.roc_auc) == (None, None)
    assert operating_point(make_run(), "defect", by="kind").request.by == ("kind",)


def test_images_missing_from_the_csv_and_rare_values(make_run, tmp_path):
    run = make_run()
    rows = [(f"test/{i:04}.png", "sound", f"v{i}") for i in range(290)]
    write_csv(tmp_path / "cells.csv", ("image_path", "label", "batch"), rows)
    groups = operating_point(run, "defect", by="batch").evaluation.by["batch"]
    assert sum(group.counts.count for group in groups) == 300
    assert groups[-1].value == "(all others)"
    assert [g.counts.count for g in groups if g.value == "(none)"] == [10]


def test_report_texts_and_json(make_run):
    result = operating_point(make_run(), "defect", by="kind")
    text = " ".join(str(result).split())
    for expected in (
        "Chosen on validation: n = 300".replace(" = ", "\u00a0=\u00a0"),
        "for 95 % recall, 95 % confidence",
        "uncalibrated",
        "Review band",
        "By kind, with threshold P(defect) ≥",
        "Predicted probabilities by kind",
        "sent to manual review",
        "false positives among",
        "95 % intervals assume independent images",
        "Validation also chose the epoch",
    ):
        assert " ".join(expected.split()) in text
    page = result.page
    titles = [section.title for section in page.sections]
    assert titles == [
        *("Summary", "Threshold", "Calibration", "Review band", "By kind"),
        "Misclassified images",
    ]
    data = result.as_dict()
    json.dumps(data)
    assert data["class"] == "defect"
    keys = [threshold["threshold"] for threshold in data["thresholds"]]
    assert keys == ["half", "target", "guaranteed"]
    images = data["misclassified"]["false_negatives"]
    probs = [image["probability"] for image in images]
    assert probs == sorted(probs)
    assert images[0]["kind"] in KINDS


def test_no_caveat_about_validation_for_a_logistic_head(make_run):
    run = make_run()
    run.manifest["transfer"] = {"head": "logistic"}
    caveats = " ".join(operating_point(run, "defect").as_dict()["caveats"])
    assert "chose the epoch" not in caveats


def test_few_images_are_a_caveat(make_run):
    result = operating_point(make_run(val=30), "defect", recall=0.95)
    caveats = " ".join(result.as_dict()["caveats"])
    assert "too few to guarantee the target recall" in caveats
    assert "The review band was chosen from only" in caveats
    keys = [threshold.key for threshold in result.selection.thresholds]
    assert keys == ["half", "target"]


def test_no_band_reaches_the_target_accuracy(make_run):
    result = operating_point(
        make_run(shift=-1.0), "defect", by="kind"
    )  # worse than a coin
    assert result.selection.band is None
    assert "No review band reaches" in str(result)
    assert result.as_dict()["review_band"] is None
    assert result.temperature == pytest.approx(20, rel=1e-3)
    assert "probabilities are meaningless" in " ".join(str(result).split())
    assert "all images are sent to manual review" in str(result.page)


def test_all_predictions_correct(make_run):
    result = operating_point(make_run(shift=9.0), "defect")
    assert 0.05 < result.temperature <= 1  # the prior keeps it off the limit
    assert "All validation predictions are correct" in " ".join(str(result).split())
    assert "predicted as sound: none." in str(result.page)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"target": "defct"}, UnknownNameError, "did you mean defect"),
        ({"recall": 0}, SettingError, "recall must be above 0"),
        ({"recall": 1.1}, SettingError, "at most 1"),
        ({"selective_accuracy": 0.5}, SettingError, "must be above 0.5"),
        ({"by": ("kind", "kind")}, SettingError, "named twice"),
        ({"by": "kinds"}, DataError, "did you mean kind"),
        ({"split": "val"}, SettingError, "was used for choosing the threshold"),
        ({"split": "train"}, SettingError, "was used for training"),
    ],
)
def test_refused(make_run, arguments, error, message):
    with pytest.raises(error) as caught:
        operating_point(make_run(), **{"target": "defect", **arguments})
    assert message in str(caught.value)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_predictions(make_run, split):
    run = make_run()
    path = run.path / f"predictions_{split}.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match="has no predictions"):
        operating_point(run, "defect")


def test_by_without_a_csv(make_run):
    with pytest.raises(DataError, match="no CSV lists"):
        operating_point(make_run(csv=False), "defect", by="kind")


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("label", ["sound", "defect"])
def test_a_split_with_one_class_only(make_run, split, label):
    run = make_run()
    path = run.path / f"predictions_{split}.csv"
    lines = path.read_text().splitlines(keepends=True)
    rows = [line for line in lines[1:] if line.split(",")[1] == label]
    path.write_text("".join([lines[0], *rows]))
    with pytest.raises(DataError, match="has no" if label == "sound" else "has only"):
        operating_point(run, "defect")


def test_save_writes_the_report_and_overwrites_nothing_foreign(make_run, tmp_path):
    run = make_run()
    result = operating_point(run, "defect")
    folder = result.save()
    assert folder == type(folder)("runs/evaluate/cells")
    assert result.save().name == "cells-2"
    assert read_json(folder / "operating_point.json")["class"] == "defect"
    title = "Operating point for &#x27;defect&#x27;"
    assert title in (folder / "report.html").read_text()
    with pytest.raises(RunError, match="already exists"):
        result.save(folder)
    assert result.save(folder, overwrite=True) == folder
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    before = snapshot(foreign)
    with pytest.raises(RunError, match="not a run folder"):
        result.save(foreign, overwrite=True)
    assert snapshot(foreign) == before


def test_a_real_run_and_other_images(shared_run, shared_folder):
    result = operating_point(shared_run, "across")
    page = render_page(result.page)
    assert "Misclassified images" in page
    # Its own images by another path: only their test split may be evaluated.
    again = operating_point(shared_run, "across", data=shared_folder)
    assert again.split == "test"
    assert again.evaluation.overall.counts == result.evaluation.overall.counts


def test_misclassified_images_are_shown(shared_run, monkeypatch):
    """With the classes swapped, every image is misclassified, and shown."""
    predictions = shared_run.predictions("test")
    swapped = replace(predictions, probs=predictions.probs[:, ::-1])
    monkeypatch.setattr(shared_run, "predictions", lambda split: swapped)
    result = operating_point(shared_run, "across")
    images, _ = result.page.sections[-1].blocks
    positives = result.evaluation.overall.counts.positives
    assert isinstance(images, Images)
    assert len(images.images) == min(12, positives)
    data = result.as_dict()["misclassified"]
    assert len(data["false_negatives"]) == positives


def test_shares_are_checked_first():
    with pytest.raises(SettingError):
        OperatingPointRequest(target="a", recall=2)


def test_a_run_without_temperature_is_not_scaled(make_run):
    """A second temperature is not fitted: `predict` would print other probabilities."""
    run = make_run()
    (run.path / "calibration.json").unlink()
    result = operating_point(Run(run.path), "defect")
    assert result.temperature == 1
    assert result.selection.threshold.uncalibrated is None
    text = " ".join(str(result).split())
    assert "not adjusted: the run has no temperature" in text
    assert "Change in log loss" not in text
    before, after = result.evaluation.uncalibrated, result.evaluation.calibrated
    assert before == after
    charts = str(result.page)
    assert "name='not scaled'" in charts
    assert "name='temperature-scaled'" not in charts


def test_saving_stores_the_operating_point_in_the_run(make_run):
    run = make_run()
    result = operating_point(run, "defect")
    folder = result.save()
    point = load_operating_point(run.path, run.labels, run.temperature, "defect")
    assert point == result.stored
    assert point.threshold == result.threshold
    band = result.selection.band
    assert point.review_band == (band.low, band.high)
    file = folder / "operating_point.json"
    for given in (file, folder, str(file)):
        same = load_operating_point(run.path, run.labels, run.temperature, given)
        assert same == point


def test_the_stored_point_decides_as_the_report_counts(make_run):
    """Every count of the report follows from the probabilities of the run."""
    run = make_run()
    result = operating_point(run, "defect", recall=0.9)
    test, point = run.predictions("test"), result.stored
    probs, positive = test.probs[:, 0], test.truth == 0
    decided = np.array([point.is_positive(p) for p in probs])
    review = np.array([point.needs_review(p) for p in probs])
    counts = result.evaluation.overall.counts
    assert (decided & positive).sum() == counts.tp
    assert (decided & ~positive).sum() == counts.fp
    assert review.sum() == result.evaluation.overall.selective.abstained


def test_it_is_a_public_name():
    assert st.operating_point is operating_point
