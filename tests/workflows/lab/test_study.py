"""A study: trials are run once, in any order and number of processes."""

import json
import math
import os
import random
import re
import subprocess
import sys
import time

import pytest

from striate.cli.main import main
from striate.core.errors import GeometryError, RunError, SettingError, UnknownNameError
from striate.metrics.sequential import ClaimVerdict
from striate.workflows.lab.executors import run_trial
from striate.workflows.lab.find_card import find_card
from striate.workflows.lab.forecast import check_budget
from striate.workflows.lab.lab import lab
from striate.workflows.lab.merge import merge_results
from striate.workflows.lab.store import ResultStore, TrialResult
from striate.workflows.lab.study import StudyOptions, planned_looks, run_study
from striate.workflows.lab.study_file import study_card

STUDY = """\
claim: A second convolution lowers the error.
data: digits
settings:
  epochs: 2
  train_images: 300
  val_images: 60
  test_images: 600
changes:
  shallow: {model: 8x8x1 > conv 3x3 4 same > relu > dense 10}
  deep: {model: 8x8x1 > conv 3x3 4 same > relu > conv 3x3 4 same > relu > dense 10}
holds: deep better than shallow
margin: 0.5
seeds: 3
"""


@pytest.fixture
def study_file(tmp_path):
    path = tmp_path / "depth.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of six trials in one process, and its results table."""
    folder = tmp_path_factory.mktemp("study")
    path = folder / "depth.yaml"
    path.write_text(STUDY)
    result = lab.run(path, out=folder / "lab", jobs=1)
    return result, (result.folder / "results.csv").read_bytes()


def test_a_study_has_a_verdict_and_all_trials(finished):
    result, table = finished
    assert result.new_trials == 6
    assert isinstance(result.outcome.verdict, ClaimVerdict)
    (outcome,) = result.outcome.outcomes
    assert len(outcome.effects) == outcome.decision.n == 3
    rows = table.decode().splitlines()
    assert rows[0].startswith("seed,arm,")
    assert "test_error" in rows[0]
    assert [row.split(",")[:2] for row in rows[1:4]] == [
        ["0", "shallow"],
        ["0", "deep"],
        ["1", "shallow"],
    ]
    for effect, seed in zip(outcome.effects, outcome.seeds, strict=True):
        errors = {
            r.arm: r.measurements["test_error"]
            for r in result.outcome.results
            if r.seed == seed
        }
        assert effect == pytest.approx(100 * (errors["shallow"] - errors["deep"]))


def test_finished_trials_are_not_repeated(finished):
    first, table = finished
    before = {p: p.stat().st_mtime_ns for p in first.folder.glob("trials/*")}
    again = lab.run(
        first.folder.parents[2] / "depth.yaml", out=first.folder.parents[1], jobs=1
    )
    assert again.new_trials == 0
    assert {p: p.stat().st_mtime_ns for p in first.folder.glob("trials/*")} == before
    assert (again.folder / "results.csv").read_bytes() == table


def test_two_processes_give_the_same_table(finished, study_file, tmp_path):
    _, table = finished
    result = lab.run(study_file, out=tmp_path / "lab", jobs=2)
    assert (result.folder / "results.csv").read_bytes() == table


def test_a_killed_study_ends_its_processes_and_goes_on_elsewhere(
    finished, study_file, tmp_path
):
    """Killed after the first results, moved, and finished: the same table.

    With `end_with_parent` left out, the two processes go on without a parent.
    """
    _, table = finished
    first, second = tmp_path / "first", tmp_path / "second"
    command = [sys.executable, "-m", "striate", "lab", "run", str(study_file)]
    process = subprocess.Popen([*command, "--jobs", "2", "--out", str(first)])
    deadline = time.monotonic() + 120
    while len(list(first.glob("*/*/trials/*.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    path = f"/proc/{process.pid}/task/{process.pid}/children"
    with open(path) as file:
        children = [int(text) for text in file.read().split()]
    process.kill()
    process.wait()
    assert len(children) >= 2
    deadline = time.monotonic() + 20
    while any(map(_runs, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in children if _runs(pid)]
    before = len(list(first.glob("*/*/trials/*.json")))
    first.rename(second)
    result = lab.run(study_file, out=second, jobs=1)
    assert result.new_trials == 6 - before
    assert (result.folder / "results.csv").read_bytes() == table


@pytest.mark.slow
def test_ten_kills_at_random_moments(finished, study_file, tmp_path):
    """Killed ten times and moved each time: the same table, and no trial twice."""
    _, table = finished
    rng = random.Random(0)
    folder = tmp_path / "0"
    seen: dict[str, int] = {}
    for number in range(1, 11):
        command = [sys.executable, "-m", "striate", "lab", "run", str(study_file)]
        process = subprocess.Popen([*command, "--jobs", "2", "--out", str(folder)])
        time.sleep(rng.uniform(0.5, 6))
        process.kill()
        process.wait()
        for path in folder.glob("*/*/trials/*.json"):
            changed = path.stat().st_mtime_ns
            assert seen.setdefault(path.name, changed) == changed
        if folder.exists():
            folder = folder.rename(tmp_path / str(number))
    result = lab.run(study_file, out=folder, jobs=1)
    assert (result.folder / "results.csv").read_bytes() == table


def _runs(pid):
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_trial_is_a_function_of_its_seed(study_file, tmp_path):
    store = ResultStore(tmp_path, find_card(str(study_file)), {})
    first, again = (run_trial(store.trial("deep", 1)) for _ in range(2))
    assert first.measurements == again.measurements
    other = run_trial(store.trial("deep", 2))
    assert other.measurements["weights_sha256"] != first.measurements["weights_sha256"]


def test_another_margin_is_another_version(finished, tmp_path):
    first, _ = finished
    path = tmp_path / "depth.yaml"
    path.write_text(STUDY.replace("margin: 0.5", "margin: 0.6"))
    result = lab.run(path, out=first.folder.parents[1], jobs=1, seeds=1)
    assert result.folder != first.folder
    assert result.other_versions == {first.folder.name: 6}
    assert result.new_trials == 2


def test_the_time_budget_ends_a_study_with_complete_seeds(study_file, tmp_path):
    options = StudyOptions(minutes=0.003, jobs=1, out=tmp_path)
    result = run_study(find_card(str(study_file)), options)
    assert 1 <= result.new_trials < 6


def test_looks_end_at_the_largest_number_of_seeds():
    card = find_card("E5")
    assert planned_looks(card, StudyOptions()) == [3, 5, 10, 20]
    assert planned_looks(card, StudyOptions(seeds=7)) == [3, 5, 7]
    assert planned_looks(card, StudyOptions(quick=True)) == [3]


def test_a_study_in_use_is_refused(study_file, tmp_path):
    from striate.run.lock import lock_folder

    store = ResultStore(tmp_path, find_card(str(study_file)), {})
    store.create()
    with (
        lock_folder(store.folder),
        pytest.raises(RunError, match="in use by process"),
    ):
        lab.run(study_file, out=tmp_path, jobs=1)


def test_a_damaged_result_is_named(study_file, tmp_path):
    store = ResultStore(tmp_path, find_card(str(study_file)), {})
    store.create()
    path = store.folder / "trials" / "deep-seed-0.json"
    path.parent.mkdir()
    path.write_text('{"arm": "deep"}')
    with pytest.raises(RunError, match=r"deep-seed-0\.json"):
        store.results()


@pytest.mark.parametrize(
    ("old", "new", "where", "text"),
    [
        ("margin: 0.5", "margin: much", r"depth.yaml:\d+, margin", "must be a number"),
        ("epochs: 2", "epoch: 2", r"depth.yaml:\d+, settings.epoch", "epoch"),
        ("epochs: 2", "epochs: two", r"depth.yaml", "epochs"),
        ("holds: deep", "holds: deeper", r"depth.yaml:\d+, holds", "deeper"),
        ("claim:", "claims:", r"depth.yaml:\d+, claims", "claims"),
        ("  shallow: {", "  deep: {", r"depth.yaml", "twice"),
    ],
)
def test_a_typing_error_in_a_study_is_named(study_file, old, new, where, text):
    study_file.write_text(STUDY.replace(old, new))
    with pytest.raises(SettingError, match=text) as caught:
        find_card(str(study_file))
    assert re.search(where, str(caught.value.where))


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(UnknownNameError, match="E2"):
        find_card("E22")


def test_a_network_that_does_not_fit_names_the_arm(study_file, tmp_path):
    study_file.write_text(
        STUDY.replace("8x8x1 > conv 3x3 4", "8x8x1 > conv 9x9 4", 1).replace(
            "same", "", 1
        )
    )
    with pytest.raises(GeometryError) as caught:
        lab.run(study_file, out=tmp_path, jobs=1)
    assert "arm 'shallow'" in str(caught.value)


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"jobs": -1}, {"minutes": 0.0}])
def test_a_budget_of_nothing_is_refused(wrong):
    with pytest.raises(SettingError, match="must be above 0"):
        StudyOptions(**wrong)


def test_a_budget_too_small_for_one_seed_says_how_much_is_needed():
    with pytest.raises(SettingError, match=r"about \d+\.\d are needed"):
        check_budget(find_card("E2"), StudyOptions(minutes=0.01))


def test_list_and_page_from_the_results(finished, tmp_path, capsys):
    """The list of all cards, a run of an exact card, the page, and Markdown."""
    assert main(["lab", "run", "P4", "--out", str(tmp_path), "--jobs", "1"]) == 0
    assert "the claim holds here" in capsys.readouterr().out
    assert main(["lab", "--out", str(tmp_path), "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)["cards"]
    known = {each["card"]: each["verdict"] for each in cards}
    assert known["P4"] == "holds"
    assert known["E2"] == "cannot be told yet"
    pages = tmp_path / "pages"
    command = ["lab", "--out", str(tmp_path), "report", "--markdown", str(pages)]
    assert main(command) == 0
    assert main(command) == 2  # no page is replaced without --overwrite
    assert "already exists" in capsys.readouterr().err
    html = (tmp_path / "report.html").read_text()
    assert "Dropout as an ensemble" in html
    assert "://" not in html
    assert (pages / "p4.md").read_text().startswith("<!-- Generated")
    assert "[P4](p4.md)" in (pages / "results.md").read_text()


def test_results_of_two_machines_are_pooled(tmp_path, capsys):
    for number, folder in enumerate(("a", "b")):
        store = ResultStore(tmp_path / folder, find_card("E6"), {})
        store.create()
        for seed in range(4):
            for arm, error in (("direct", 0.1), ("bottleneck", 0.098)):
                noise = 0.001 * ((seed + number) % 3)
                values = {"test_error": error + (noise if arm == "direct" else 0.0)}
                store.save(
                    TrialResult(arm=arm, seed=seed, measurements=values, seconds=1.0)
                )
    folders = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert main(["lab", "merge", *folders, "--json"]) == 0
    (pooled,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert pooled["card"] == "E6"
    low, high = pooled["interval"]
    assert min(pooled["effects"]) <= pooled["difference"] <= max(pooled["effects"])
    assert low < pooled["difference"] < high
    with pytest.raises(RunError, match="in two of the folders"):
        merge_results([tmp_path / "a", tmp_path / "c"])


@pytest.mark.parametrize(
    "wrong",
    [{"seeds": 1}, {"seeds": math.inf}, {"margin": math.inf}, {"margin": math.nan}],
)
def test_a_number_of_a_study_that_no_rule_allows_is_refused(wrong):
    arms = {"plain": {"lr": 0.1}, "fast": {"lr": 0.2}}
    with pytest.raises(SettingError, match="must be a number from"):
        study_card({"id": "own", "folder": ".", "changes": arms, **wrong})
