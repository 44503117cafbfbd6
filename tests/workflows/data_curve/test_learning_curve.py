"""Learning curves: nested runs, resumed runs, forecasts with intervals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import striate as api
from striate.core.errors import InterruptedRunError, RunError, SettingError
from striate.run.lock import lock_folder
from striate.run.recipe import Recipe
from striate.workflows.data_curve import runs as curve_runs
from striate.workflows.data_curve.findings import (
    backtest,
    conclusion,
    curve_blocks,
    curve_charts,
    curve_dict,
    goal_text,
    images_for_goal,
    write_curve_report,
)
from striate.workflows.data_curve.learning_curve import LearningCurve, learning_curve
from striate.workflows.data_curve.runs import CurvePlan, CurveRun
from striate.workflows.train import run_job
from support.images import pil_image, snapshot, stripes, write_folder

FAST = {"epochs": 1, "batch_size": 16, "test_fraction": 0.3, "val_fraction": 0.2}
FRACTIONS = (0.25, 0.5, 1.0)


def small(data):
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("curve") / "photos", count=40)


@pytest.fixture(scope="module", autouse=True)
def _without_reports():
    """Each run's own report is tested elsewhere, and takes longest of all here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_job, "write_report", lambda run: None)
        yield


@pytest.fixture(scope="module")
def made(photos, tmp_path_factory, _without_reports):
    """A finished curve; look, do not touch."""
    place = tmp_path_factory.mktemp("made") / "curve"
    recipe = Recipe(data=str(photos), **FAST)
    lines = []
    curve = learning_curve(
        recipe, fractions=FRACTIONS, seeds=2, make=small, out=place, log=lines.append
    )
    return curve, lines


def test_runs_are_run_folders_of_nested_splits(made):
    curve, lines = made
    assert [(run.fraction, run.seed) for run in curve.runs] == [
        (fraction, seed) for fraction in FRACTIONS for seed in (0, 1)
    ]
    assert len(lines) == 6
    assert lines[0].startswith("run 1/6  fraction 0.25    seed 0")
    for seed in (0, 1):
        paths = [set(trained(run)) for run in curve.runs if run.seed == seed]
        assert paths[0] < paths[1] < paths[2]
        assert [len(p) for p in paths] == [
            r.images for r in curve.runs if r.seed == seed
        ]
    assert trained(curve.runs[4]) != trained(curve.runs[5])  # a split of its own a seed
    epochs = [api.load_run(r.path, model=small(None)).recipe.epochs for r in curve.runs]
    assert epochs == [4, 4, 2, 2, 1, 1]


def test_a_notebook_shows_the_curve(made):
    html = made[0]._repr_html_()
    assert "Learning curve of curve" in html
    assert "<svg" in html


def trained(run):
    text = (run.path / "split.csv").read_text().splitlines()
    return [line.split(",")[0] for line in text if ",train," in line]


def test_small_fractions_take_as_many_steps_up_to_eight_times_the_epochs():
    study = CurvePlan(recipe=Recipe(data="x", epochs=30), fractions=(1.0,), seeds=2)
    epochs = [study.epochs(fraction) for fraction in (1, 0.5, 0.125, 0.01)]
    assert epochs == [30, 60, 240, 240]


def test_an_interrupted_curve_is_continued(made, photos, tmp_path, monkeypatch):
    """One run is gone, one was killed half way, one is stopped by hand."""
    curve, _ = made
    place = tmp_path / "curve"
    shutil.copytree(curve.path, place)
    shutil.rmtree(place / "fraction-0.5-seed-0")
    killed = place / "fraction-1-seed-1/manifest.json"
    killed.write_text(killed.read_text().replace('"done"', '"running"'))
    kept = snapshot(place / "fraction-0.25-seed-0")

    def again():
        lines = []
        done = learning_curve(
            Recipe(data=str(photos), **FAST),
            fractions=FRACTIONS,
            seeds=2,
            make=small,
            out=place,
            log=lines.append,
        )
        return done, lines

    real = curve_runs.train

    def stop(*words, **settings):
        raise InterruptedRunError("stopped on request")

    monkeypatch.setattr(curve_runs, "train", stop)
    with pytest.raises(InterruptedRunError) as caught:
        again()
    assert "stopped after 1 of 6 runs" in str(caught.value)
    assert "run the same command" in str(caught.value)
    monkeypatch.setattr(curve_runs, "train", real)
    done, lines = again()
    assert ["already done" in line for line in lines] == [1, 0, 1, 1, 1, 0]
    figures = [replace(run, path=Path()) for run in curve.runs]
    assert [replace(run, path=Path()) for run in done.runs] == figures
    assert snapshot(place / "fraction-0.25-seed-0") == kept


def test_other_images_do_not_go_on_with_it(made, photos, tmp_path):
    curve, _ = made
    place = tmp_path / "curve"
    shutil.copytree(curve.path, place)
    shutil.copytree(photos, tmp_path / "photos")
    text = (place / "curve.json").read_text()
    (place / "curve.json").write_text(
        text.replace(str(photos), str(tmp_path / "photos"))
    )
    for i in range(9):
        pil_image(stripes(0, 900 + i)).save(tmp_path / f"photos/across/new{i}.png")
    shutil.rmtree(place / "fraction-0.25-seed-0")
    recipe = Recipe(data=str(tmp_path / "photos"), **FAST)
    with pytest.raises(RunError, match="the images have changed since"):
        learning_curve(recipe, fractions=FRACTIONS, seeds=2, make=small, out=place)


def test_a_folder_with_other_contents_or_settings_is_refused(made, photos, tmp_path):
    curve, _ = made
    recipe = Recipe(data=str(photos), **FAST)
    other = replace(recipe, epochs=2, lr=0.1)
    options = {"fractions": FRACTIONS, "make": small}
    with pytest.raises(RunError) as caught:
        learning_curve(other, seeds=3, out=curve.path, **options)
    assert "learning curve has different settings: epochs, lr, seeds" in str(
        caught.value
    )
    (tmp_path / "mine").mkdir()
    for overwrite in (False, True):
        with pytest.raises(RunError, match="exists and is not a learning curve"):
            learning_curve(
                recipe, out=tmp_path / "mine", overwrite=overwrite, **options
            )


@pytest.mark.parametrize("inner", [".", "fraction-0.5-seed-0"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_another_process_is_at_work_on_stays(
    made, photos, tmp_path, inner, overwrite
):
    """The same command, given twice, has the same plan and so the same folder."""
    curve, _ = made
    place = tmp_path / "curve"
    shutil.copytree(curve.path, place)
    manifest = place / "fraction-0.5-seed-0/manifest.json"
    manifest.write_text(manifest.read_text().replace('"done"', '"running"'))
    options = {"fractions": FRACTIONS, "seeds": 2, "make": small, "out": place}
    with lock_folder(place / inner):
        before = snapshot(place)
        with pytest.raises(RunError, match="the run folder is in use by process"):
            learning_curve(
                Recipe(data=str(photos), **FAST), overwrite=overwrite, **options
            )
        assert snapshot(place) == before


def test_its_own_folder_is_found_again_or_numbered(photos):
    study = CurvePlan(recipe=Recipe(data=str(photos)), fractions=FRACTIONS, seeds=2)
    place = study.folder(None, overwrite=False)
    assert place == Path("runs/curve/photos-auto")
    assert study.folder(None, overwrite=False) == place
    other = replace(study, seeds=3)
    assert other.folder(None, overwrite=False) == Path("runs/curve/photos-auto-2")
    (place / "left").touch()
    assert study.folder(place, overwrite=True) == place
    assert not (place / "left").exists()


def test_settings_that_no_result_depends_on_split_no_curves(photos):
    study = CurvePlan(recipe=Recipe(data=str(photos)), fractions=FRACTIONS, seeds=2)
    place = study.folder(None, overwrite=False)
    incidental = {"workers": 2, "device": "cpu", "cache": "off", "save_every": 5.0}
    other = replace(study, recipe=replace(study.recipe, **incidental))
    assert other.folder(None, overwrite=False) == place
    assert other.folder(place, overwrite=False) == place


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        (
            {},
            {"fractions": (0.5, 1)},
            "at least three fractions in (0, 1], got 0.5, 1",
        ),
        ({}, {"fractions": (0.5, 1, 0.5)}, "three fractions"),
        ({}, {"fractions": (0, 0.5, 1)}, "three fractions"),
        ({}, {"fractions": (0.1, 0.5, 2)}, "three fractions"),
        ({}, {"seeds": 1}, "at least two seeds, got 1"),
        ({"fraction": 0.5}, {}, "a learning curve cannot use --fraction"),
    ],
)
def test_invalid_settings(settings, words, message):
    with pytest.raises(SettingError) as caught:
        learning_curve(Recipe(data="digits", **settings), **words)
    assert message in str(caught.value)


@pytest.mark.parametrize(("rank", "silent"), [("0", False), ("1", True)])
def test_several_processes_would_each_train_all_of_it(
    photos, tmp_path, monkeypatch, rank, silent
):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="for one process, and there are 2") as told:
        learning_curve(Recipe(data=str(photos)), out=tmp_path / "curve")
    assert told.value.reported_elsewhere is silent
    assert not (tmp_path / "curve").exists()


# --- what it says


def invented(
    errors, test_images=2000, weights="none", fractions=(0.125, 0.25, 0.5, 1.0)
):
    """A curve of made-up runs: errors by fraction, three seeds around each."""
    runs = [
        CurveRun(
            fraction=fraction,
            seed=seed,
            path=Path("curve") / f"{fraction}-{seed}",
            images=round(8000 * fraction),
            test_images=test_images,
            accuracy=1 - error * (1 + 0.03 * (seed - 1)),
            balanced_accuracy=1 - 2 * error,
        )
        for fraction, error in zip(fractions, errors, strict=True)
        for seed in range(3)
    ]
    recipe = Recipe(data="photos", class_weights=weights)
    return LearningCurve(
        path=Path("curve"), recipe=recipe, split="test", runs=tuple(runs)
    )


FALLING = tuple(2 * (8000 * f) ** -0.5 for f in (0.125, 0.25, 0.5, 1.0))


def test_conclusion_of_a_falling_curve():
    curve = invented(FALLING, test_images=20_000)
    output = conclusion(curve)
    assert (output.tone, output.text[:24]) == ("good", "More images would help: ")
    assert "16,000" in output.text
    assert "accuracy is 98.41 %" in output.text  # 1 − 2/√16000 is 98.42
    assert "it is 97.76 % with 8,000" in output.text
    tried = backtest(curve)
    assert tried.tone == "good"
    assert "the fractions up to 0.5 alone" in tried.text


def test_conclusion_of_a_flat_curve():
    output = conclusion(invented((0.06, 0.05, 0.05, 0.05)))
    assert output.tone == "plain"
    assert output.text.startswith("It is not clear whether more images would help")


def test_backtest_of_a_curve_that_breaks_its_law():
    tried = backtest(invented((0.2, 0.1, 0.05, 0.2), test_images=50_000))
    assert tried.tone == "warning"
    assert tried.text.endswith("The forecast is unreliable.")
    assert backtest(invented(FALLING[:3], fractions=(0.25, 0.5, 1.0))) is None


def test_images_for_goal():
    curve = invented(FALLING, test_images=20_000)
    result = images_for_goal(curve, 0.99)  # 2/√n = 0.01 at n = 40,000
    assert 25_000 < result.images < 60_000
    assert result.low < result.images < (result.high or 10**9)
    assert "99.00 % accuracy: expected at about" in goal_text(result, "accuracy").text
    assert images_for_goal(curve, 0.9).images == 1000
    flat = images_for_goal(
        invented((0.06, 0.05, 0.05, 0.05), test_images=100_000), 0.99
    )
    assert flat.images is None
    assert "not reached with" in goal_text(flat, "accuracy").text
    unsure = replace(flat, low=9000)
    output = goal_text(unsure, "accuracy").text
    assert output.endswith("not expected, but possible from 9,000 images.")
    assert (
        "to no upper limit)" in goal_text(replace(unsure, images=9999), "accuracy").text
    )


def test_weighted_classes_use_balanced_accuracy():
    curve = invented(FALLING, weights="auto")
    assert curve.metric == "balanced_accuracy"
    assert curve.points[-1].mean == pytest.approx(2 * FALLING[-1])
    assert "balanced accuracy" in conclusion(curve).text
    assert curve_charts(curve)[1].title == "Balanced accuracy"


def test_charts_go_on_to_four_times_the_images():
    error, accuracy = curve_charts(invented(FALLING))
    assert error.log_x
    assert error.log_y
    assert not accuracy.log_y
    measured, forecasts = error.series
    assert forecasts.x[-1] == pytest.approx(4 * measured.x[-1])
    assert all(
        lo <= y <= hi
        for lo, y, hi in zip(forecasts.low, forecasts.y, forecasts.high, strict=True)
    )
    flipped = accuracy.series[1]
    assert flipped.low == tuple(1 - high for high in forecasts.high)


def test_report_files(made, tmp_path):
    curve, _ = made
    place = tmp_path / "curve"
    shutil.copytree(curve.path, place)
    copied = replace(
        curve,
        path=place,
        runs=tuple(replace(run, path=place / run.path.name) for run in curve.runs),
    )
    report = write_curve_report(copied, goal=0.9)
    page = report.read_text()
    for word in ("Would more images help?", "Forecast", "fraction-0.25-seed-1"):
        assert word in page
    written = json.loads((place / "curve.json").read_text())
    assert written["plan"]["fractions"] == list(FRACTIONS)
    assert {k: v for k, v in written.items() if k != "plan"} == json.loads(
        json.dumps(curve_dict(copied, 0.9))
    )
    assert written["backtest"] is None  # three fractions: none can be left out
    for name in ("error.png", "accuracy.png"):
        assert (place / "plots" / name).read_bytes()[1:4] == b"PNG"
    kinds = [type(block).__name__ for block in curve_blocks(copied)]
    assert kinds == ["Table", "Table", "Prose"]


def test_from_the_command_line(striate, photos):
    words = ("--fractions", "0.3,0.6,1", "--seeds", "2", "--epochs", "1")
    output = striate("data", "curve", photos, *words, "--goal", "0.99")
    assert output.code == 0
    assert "run 6/6" in output.err
    for word in (
        "Measured on the test split",
        "Forecast",
        "99.00 % accuracy",
        "report",
    ):
        assert word in output.out
    assert Path("runs/curve/photos-auto/report.html").is_file()
    again = striate("data", "curve", photos, *words, "--json")
    assert again.err == ""
    assert again.json["curve"] == "runs/curve/photos-auto"
    assert [p["runs"] for p in again.json["points"]] == [2, 2, 2]
    assert [
        f["images"] / again.json["points"][-1]["images"]
        for f in again.json["forecasts"]
    ] == [2, 4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fractions", "a,b"), "'a,b' is not a list of fractions"),
        (("--goal", "99"), "the target accuracy must be between 0 and 1, got 99"),
        (("--fraction", "0.5"), "has no flag --fraction"),
        (("--seeds", "1"), "at least two seeds"),
    ],
)
def test_wrong_arguments(striate, words, message):
    output = striate("data", "curve", "digits", *words)
    assert output.code == 2
    assert message in output.err


def test_judged_numbers_are_those_of_the_runs(made):
    curve, _ = made
    for run in curve.runs:
        kept = api.load_run(run.path, model=small(None))
        assert run.accuracy == kept.scores["test"]["accuracy"]
        assert run.test_images == kept.scores["test"]["count"]
    point = curve.points[1]
    assert point.errors == tuple(1 - r.accuracy for r in curve.runs[2:4])
    assert point.deviation == pytest.approx(np.std(point.errors, ddof=1))
