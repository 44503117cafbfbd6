"""Finding one class: what chooses, what judges, and what is refused."""

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
from striate.metrics.temperature import fit_temperature
from striate.report.html import render
from striate.run.predictions import Predictions
from striate.run.run import Run
from striate.workflows.evaluate.operating_point import operating_point
from striate.workflows.evaluate.request import OperatingPointRequest
from striate.workflows.evaluate.selection import untempered
from support.images import snapshot
from support.run_folders import made_run

CLASSES = ("defect", "sound")
KINDS = ("mono", "poly")


def answered(count, seed, heat=4.0, shift=1.0):
    """Answers of a network, and the truth: two normal heaps, `shift` from the middle.

    A heat of 2·shift would be calibrated, but for the shares of the two.
    """
    draw = np.random.default_rng(seed)
    defect = draw.random(count) < 0.3
    defect[:2] = True, False
    logit = draw.normal(size=count) + np.where(defect, shift, -shift)
    logits = torch.tensor(np.stack([logit * heat, np.zeros(count)], 1))
    labels = torch.tensor(np.where(defect, 0, 1))
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return Outputs(logits=logits, labels=labels, losses=losses)


@pytest.fixture
def made(tmp_path):
    """A run of two classes, its answers known, its images described in a CSV."""

    def make(val=300, test=300, table=True, **how):
        path = made_run(
            tmp_path / "runs" / "train" / "cells",
            [True] * test,
            classes=CLASSES,
            manifest={"data": _data(tmp_path)},
        )
        rows = []
        for split, count, seed in (("val", val, 1), ("test", test, 2)):
            outputs = answered(count, seed, **how)
            names = [f"{split}/{i:04}.png" for i in range(count)]
            said = Predictions.of(names, outputs, ClassNames(CLASSES))
            said.save(path / f"predictions_{split}.csv")
            for i, (name, number) in enumerate(
                zip(names, outputs.labels.tolist(), strict=True)
            ):
                rows.append((name, CLASSES[number], KINDS[i % 2], f"{number}.0", split))
        if table:
            columns = ("image_path", "label", "kind", "probability", "split")
            write_csv(tmp_path / "cells.csv", columns, rows)
        return Run(path)

    return make


def _data(tmp_path):
    return {"name": "cells", "source": str(tmp_path / "cells.csv")}


def test_validation_chooses_and_test_judges(made):
    run = made()
    found = operating_point(run, "defect", recall=0.9)
    val, test = run.predictions("val"), run.predictions("test")
    warm = fit_temperature(val.probs, val.truth)
    assert found.temperature == warm
    assert 1.5 < warm < 3  # the answers were twice too sure
    aimed, (first, second) = found.choice.aimed, np.log(val.probs.T)
    probs = 1 / (1 + np.exp((second - first) / warm))
    of_class = np.sort(probs[val.truth == 0])[::-1]
    wanted = int(np.ceil(0.9 * len(of_class)))
    assert found.threshold == pytest.approx(of_class[wanted - 1])
    assert aimed.plain == pytest.approx(untempered(found.threshold, warm))
    called = test.probs[:, 0] >= aimed.plain - 1e-12
    one = found.judged.whole.counts
    assert one.tp == (called & (test.truth == 0)).sum()
    assert one.fp == (called & (test.truth == 1)).sum()
    assert one.count == 300
    low, high = aimed.promise
    assert low < 0.9 < high


def test_another_test_split_chooses_alike(made, tmp_path):
    first = operating_point(made(), "defect")
    other = operating_point(made(test=40), "defect")
    assert first.threshold == other.threshold
    assert first.choice.band == other.choice.band
    assert first.judged.whole.counts != other.judged.whole.counts


def test_by_columns(made):
    found = operating_point(made(), "defect", by=("kind", "probability"))
    assert set(found.judged.by) == {"kind", "probability"}
    mono, poly = found.judged.by["kind"]
    whole = found.judged.whole.counts
    assert [mono.value, poly.value] == ["mono", "poly"]
    assert mono.counts.count == poly.counts.count == 150
    assert mono.counts.tp + poly.counts.tp == whole.tp
    zero, one = found.judged.by["probability"]  # class numbers: 0 is the defect
    assert (zero.counts.fn, one.counts.tp) == (whole.fn, 0)
    assert (zero.auc, one.auc) == (None, None)
    assert operating_point(made(), "defect", by="kind").question.by == ("kind",)


def test_images_the_csv_does_not_know_and_rare_values(made, tmp_path):
    run = made()
    rows = [(f"test/{i:04}.png", "sound", f"v{i}") for i in range(290)]
    write_csv(tmp_path / "cells.csv", ("image_path", "label", "batch"), rows)
    groups = operating_point(run, "defect", by="batch").judged.by["batch"]
    assert sum(group.counts.count for group in groups) == 300
    assert groups[-1].value == "(all others)"
    assert [g.counts.count for g in groups if g.value == "(none)"] == [10]


def test_everything_is_said_with_its_interval(made):
    found = operating_point(made(), "defect", by="kind")
    said = " ".join(str(found).split())
    for text in (
        "Chosen on validation: n = 300".replace(" = ", "\u00a0=\u00a0"),
        "sure of 95 % recall (95 %)",
        "network's own",
        "The unsure band",
        "By kind, defect from",
        "Where they fall, by kind",
        "go to a person",
        "false alarms among",
        "at 95 % and takes images as independent",
        "Validation also chose the epoch",
    ):
        assert " ".join(text.split()) in said
    page = found.page
    titles = [section.title for section in page.sections]
    assert titles == [
        *("Answer", "Threshold", "Calibration", "Unsure", "By kind", "Most wrong"),
    ]
    data = found.as_dict()
    json.dumps(data)
    assert data["class"] == "defect"
    assert [one["threshold"] for one in data["thresholds"]] == ["half", "aimed", "safe"]
    wrong = data["most_wrong"]["missed"]
    assert [one["probability"] for one in wrong] == sorted(
        one["probability"] for one in wrong
    )
    assert wrong[0]["kind"] in KINDS


def test_a_head_that_validation_did_not_choose_is_not_warned_of(made):
    run = made()
    run.manifest["transfer"] = {"head": "logistic"}
    remarks = " ".join(operating_point(run, "defect").as_dict()["remarks"])
    assert "chose the epoch" not in remarks


def test_few_images_are_told(made):
    found = operating_point(made(val=30), "defect", recall=0.95)
    remarks = " ".join(found.as_dict()["remarks"])
    assert "too few to be sure of the recall" in remarks
    assert "The unsure band rests on" in remarks
    assert [point.key for point in found.choice.points] == ["half", "aimed"]


def test_no_band_is_enough(made):
    found = operating_point(made(shift=-1.0), "defect", by="kind")  # worse than a coin
    assert found.choice.band is None
    assert "No unsure band was found" in str(found)
    assert found.as_dict()["band"] is None
    assert found.temperature == pytest.approx(20)
    assert "probabilities mean nothing" in " ".join(str(found).split())
    assert "everything goes to a person" in str(found.page)


def test_never_wrong(made):
    found = operating_point(made(shift=9.0), "defect")
    assert found.temperature == pytest.approx(0.05)
    assert "Validation has no wrong answers" in " ".join(str(found).split())
    assert "taken for sound: none." in str(found.page)


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"target": "defct"}, UnknownNameError, "did you mean defect"),
        ({"recall": 0}, SettingError, "recall must be above 0"),
        ({"recall": 1.1}, SettingError, "at most 1"),
        ({"band": 0.5}, SettingError, "band must be above 0.5"),
        ({"by": ("kind", "kind")}, SettingError, "named twice"),
        ({"by": "kinds"}, DataError, "did you mean kind"),
        ({"split": "val"}, SettingError, "chooses the threshold"),
        ({"split": "train"}, SettingError, "was learned from"),
    ],
)
def test_refused(made, asked, error, words):
    with pytest.raises(error) as caught:
        operating_point(made(), **{"target": "defect", **asked})
    assert words in str(caught.value)


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_split_without_an_answer(made, split):
    run = made()
    path = run.path / f"predictions_{split}.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RunError, match=f"judged no image of the {split} split"):
        operating_point(run, "defect")


def test_a_run_of_no_csv_has_no_columns(made):
    with pytest.raises(DataError, match="in no CSV"):
        operating_point(made(table=False), "defect", by="kind")


@pytest.mark.parametrize("gone", ["val", "test"])
@pytest.mark.parametrize("left", ["sound", "defect"])
def test_a_split_of_one_kind(made, gone, left):
    run = made()
    path = run.path / f"predictions_{gone}.csv"
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines[1:] if line.split(",")[1] == left]
    path.write_text("".join([lines[0], *kept]))
    with pytest.raises(DataError, match="has no" if left == "sound" else "nothing but"):
        operating_point(run, "defect")


def test_the_page_is_kept_and_nothing_is_overwritten(made, tmp_path):
    run = made()
    found = operating_point(run, "defect")
    folder = found.save()
    assert folder == type(folder)("runs/evaluate/cells")
    assert found.save().name == "cells-2"
    kept = read_json(folder / "detection.json")
    assert kept["class"] == "defect"
    assert "Finding &#x27;defect&#x27;" in (folder / "report.html").read_text() or (
        "Finding 'defect'" in (folder / "report.html").read_text()
    )
    with pytest.raises(RunError, match="exists already"):
        found.save(folder)
    assert found.save(folder, overwrite=True) == folder
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    before = snapshot(mine)
    with pytest.raises(RunError, match="is no run folder"):
        found.save(mine, overwrite=True)
    assert snapshot(mine) == before


def test_a_real_run_and_other_images(shared_run, shared_folder):
    found = operating_point(shared_run, "across")
    page = render(found.page)
    assert "Most wrong" in page
    # Its own images by another path: of these only the test split may judge.
    again = operating_point(shared_run, "across", data=shared_folder)
    assert again.split == "test"
    assert again.judged.whole.counts == found.judged.whole.counts


def test_most_wrong_images_are_shown(shared_run, monkeypatch):
    """With the answers turned round, every image is wrong, and is shown."""
    said = shared_run.predictions("test")
    turned = replace(said, probs=said.probs[:, ::-1])
    monkeypatch.setattr(shared_run, "predictions", lambda split: turned)
    found = operating_point(shared_run, "across")
    missed, _ = found.page.sections[-1].blocks
    assert isinstance(missed, Images)
    assert len(missed.images) == min(12, found.judged.whole.counts.positives)
    data = found.as_dict()["most_wrong"]
    assert len(data["missed"]) == found.judged.whole.counts.positives


def test_shares_are_checked_before_any_run_is_read():
    with pytest.raises(SettingError):
        OperatingPointRequest(target="a", recall=2)


def test_it_is_a_public_name():
    assert st.operating_point is operating_point
