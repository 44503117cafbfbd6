"""`striate transfer --cut auto`, tuned heads, and baselines."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import striate as st
from striate.core.errors import RunError
from striate.core.files import read_json
from striate.finetune import logistic
from striate.run.prepare_run import (
    build_model,
    load_recipe,
    prepare_model,
    resolve_recipe,
)
from striate.run.recipe import Recipe
from striate.run.report_page import write_report
from striate.run.transfer_plan import TransferPlan
from striate.workflows.transfer import baselines
from striate.workflows.transfer import transfer as transfer_module
from striate.workflows.transfer.options import TransferOptions
from striate.workflows.transfer.plan import expected_accuracy, plan_transfer
from support.plans import make_probes, make_trial
from support.stopped_runs import knows_stripes

TUNED = "--head", "tuned", "--cut", "block1", "--epochs", "3", "--batch-size", "8"


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(autouse=True)
def _few_penalties(monkeypatch):
    monkeypatch.setattr(logistic, "PENALTIES", (1.0, 0.1))  # a few images are enough


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A network that knows stripes as small and gray as those of the tests."""
    return knows_stripes(tmp_path_factory.mktemp("source"), 16)


@pytest.fixture
def words(shared_folder, source):
    given = (
        "transfer",
        shared_folder,
        "--model",
        "fast_small",
        "--pretrained",
        source.path,
    )
    return (*given, "--quiet", "--cache", "cache", "--epochs", "4", "--batch-size", "8")


def facts(name):
    return read_json(Path(name) / "manifest.json")["transfer"]


def counts(name):
    return read_json(Path(name) / "manifest.json")["data"]["splits"]


@pytest.mark.slow
@pytest.mark.charts
def test_a_plan_is_printed_and_carried_out(striate, words, monkeypatch):
    monkeypatch.setattr(transfer_module, "write_report", write_report)
    said = striate(*words, "--cut", "auto", "--out", "run")
    assert said.code == 0, said.err
    for text in ("Linear probes at every", "Trials", "Proposed: freeze", "Expected"):
        assert text in said.out
    plan = TransferPlan.from_dict(read_json(Path("run/plan.json")))
    assert [probe.cut for probe in plan.probes] == ["whiten", "block1", "flatten"]
    assert [trial.head for trial in plan.trials][:3] == ["logistic", *["tuned"] * 2]
    modes = {trial.batch_norm for trial in plan.trials[1:3]}
    assert modes == {"frozen", "adapting"}
    assert plan.trials[1].cut == "block1"
    assert plan.low <= plan.accuracy <= plan.high
    done = facts("run")
    assert (done["cut"], done["head"]) == (plan.best.cut, plan.best.head)
    assert done["plan"]["expected"] == plan.accuracy
    assert done["plan"]["accuracy"] == st.load_run("run").scores["val"]["accuracy"]
    assert Path("run/plots/cuts.png").read_bytes()[1:4] == b"PNG"
    assert "Probe accuracy by cut point" in Path("run/report.html").read_text("utf-8")
    run = st.load_run("run")
    again = run.predict_subset(run.data.subset("test")).probs
    assert abs(again - run.predictions("test").probs).max() < 1e-5


@pytest.mark.slow
def test_the_features_of_the_plan_are_reused(striate, words):
    given = "--cut", "auto", "--head", "logistic"
    assert striate(*words, *given, "--out", "run").code == 0
    done, splits = facts("run"), counts("run")
    assert len(read_json(Path("run/plan.json"))["trials"]) == 1
    assert (done["head"], done["cut"]) == ("logistic", "flatten")
    assert done["cached"] == splits["train"]
    assert done["computed"] == splits["val"] + splits["test"]
    assert striate(*words, "--out", "plain").code == 0
    one, other = (load_file(f"{n}/weights/best.safetensors") for n in ("run", "plain"))
    assert all(torch.allclose(one[n], other[n], atol=1e-5) for n in one)


@pytest.mark.slow
def test_requested_options_are_kept(striate, words):
    given = "--cut", "auto", "--head", "tuned", "--batch-norm", "frozen"
    assert striate(*words, *given, "--layer-decay", "0.7", "--out", "run").code == 0
    done = facts("run")
    assert (done["head"], done["batch_norm"], done["layer_decay"]) == (
        "tuned",
        "frozen",
        0.7,
    )


@pytest.mark.parametrize("name", ["plan.json", "baselines.json"])
def test_a_damaged_plan_is_named(source, tmp_path, name):
    shutil.copytree(source.path, tmp_path / "run")
    lacking = '{"baselines": [{}], "probes": [{}], "trials": [], "skipped": []}'
    for text in ("{}", "[1]", lacking):
        (tmp_path / "run" / name).write_text(text)
        with pytest.raises(RunError, match=f"{name} is damaged") as told:
            write_report(st.load_run(tmp_path / "run"))
        assert told.value.where.endswith(name)


def test_validation_and_test_images_are_not_used(shared_folder, source):
    recipe = Recipe(
        data=str(shared_folder),
        model="fast_small",
        pretrained=str(source.path),
        epochs=4,
        batch_size=8,
        cache="off",
        lr=0.01,
    )
    data = load_recipe(recipe)
    recipe = resolve_recipe(recipe, data)
    model = build_model(recipe, data)
    prepare_model(model, data, recipe)
    noise = {
        name: replace(
            data.subset(name),
            pixels=torch.zeros_like(data.subset(name).pixels),
            labels=1 - data.subset(name).labels,
        )
        for name in ("val", "test")
    }
    other = replace(data, subsets={**data.subsets, **noise})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, two = (
        plan_transfer(
            model, some, recipe, TransferOptions(cut="auto"), lambda line: None
        )
        for some in (data, other)
    )
    assert one.probes == two.probes
    assert [t.correct for t in one.trials] == [t.correct for t in two.trials]
    assert (one.best_index, one.accuracy, one.low) == (
        two.best_index,
        two.accuracy,
        two.low,
    )
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.fc.parameters())


@pytest.mark.slow
def test_a_tuned_head_starts_from_logistic_regression(striate, words, source):
    slow = "--lr", "1e-9", "--layer-decay", "1", "--batch-norm", "frozen"
    assert striate(*words, *TUNED, *slow, "--out", "tuned").code == 0
    assert striate(*words, "--out", "head_only").code == 0
    one, other = (st.load_run(n).predictions("test") for n in ("tuned", "head_only"))
    assert abs(one.probs - other.probs).max() < 1e-3


@pytest.mark.slow
def test_frozen_batch_norm_statistics_and_trained_weights(striate, words, source):
    given = "--batch-norm", "frozen", "--freeze", "block2.bn"
    said = striate(*words, *TUNED, *given, "--out", "run")
    assert said.code == 0, said.err
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    same = [n for n in after if n.startswith(("block1", "block2.bn"))]
    assert all(torch.equal(before[n], after[n]) for n in same)
    assert not torch.equal(before["block2.conv.weight"], after["block2.conv.weight"])
    assert facts("run")["stages"] == ["block2", "fc"]
    assert striate(*words, *TUNED, "--out", "adapting").code == 0
    after = load_file("adapting/weights/best.safetensors")
    name = "block2.bn.running_mean"
    assert not torch.equal(before[name], after[name])


@pytest.mark.slow
def test_a_frozen_stage_is_not_trained(striate, words):
    given = *words, "--head", "tuned", "--freeze", "block2"
    said = striate(*given, "--cut", "whiten", "--out", "run")
    assert said.code == 0, said.err
    assert facts("run")["stages"] == ["block1", "fc"]
    assert striate(*given, "--cut", "auto", "--out", "planned").code == 0
    found = read_json(Path("planned/plan.json"))["trials"]
    assert all("block2" not in trial["stages"] for trial in found)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", ["1", "3"])
def test_a_stage_that_is_still_frozen_is_unchanged(striate, words, source, epochs):
    """With one epoch per stage, the first epoch trains the head only."""
    given = (*TUNED, "--epochs", epochs, "--unfreeze", "1", "--batch-norm", "frozen")
    assert striate(*words, *given, "--out", "run").code == 0
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    name = "block2.conv.weight"
    run = st.load_run("run")
    late = run.manifest["best_epoch"] > 1
    assert torch.equal(before[name], after[name]) is not late


@pytest.mark.slow
def test_baselines_use_the_same_images(striate, words, monkeypatch):
    monkeypatch.setattr(baselines, "write_report", lambda run: None)
    said = striate(*words, "--compare", "--out", "run", "--json")
    assert said.code == 0, said.err
    found = {one["name"]: one for one in said.json["baselines"]}
    assert list(found) == ["from scratch", "head only", "fine-tuned"]
    runs = {name: st.load_run(one["path"]) for name, one in found.items()}
    paths = {run.predictions("test").paths for run in runs.values()}
    assert len(paths) == 1
    assert len({one["count"] for one in found.values()}) == 1
    for name, run in runs.items():
        assert found[name]["accuracy"] == run.scores["test"]["accuracy"]
        assert run.recipe.pretrained is None or name != "from scratch"
    # By the file: without a cache for features, a public name would not be found.
    weights = Path(runs["fine-tuned"].recipe.pretrained)
    assert weights.is_file()
    assert st.load_run("run").preprocess == runs["fine-tuned"].preprocess
    assert found["head only"]["p"] is None
    assert 0 <= found["from scratch"]["p"] <= 1
    assert read_json(Path("run/baselines.json"))["baselines"][1]["path"] == "run"
    monkeypatch.setattr(baselines, "write_report", write_report)
    assert "Comparison with baselines" in striate(*words, "--compare", "--out", "b").out
    assert "Comparison with baselines" in Path("b/report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_trained_head_is_compared_with_fine_tuning(striate, words, monkeypatch):
    """A head without lower layers is `head only`, however it is trained."""
    monkeypatch.setattr(baselines, "write_report", lambda run: None)
    given = "--head", "trained", "--compare", "--out", "run", "--json"
    said = striate(*words, *given)
    assert said.code == 0, said.err
    found = {one["name"]: one for one in said.json["baselines"]}
    assert list(found) == ["from scratch", "head only", "fine-tuned"]
    assert found["head only"]["path"] == "run"
    assert found["fine-tuned"]["cut"] != found["head only"]["cut"]


def test_options_without_effect_are_refused(striate, words):
    for flag in (
        ("--layer-decay", "0.5"),
        ("--unfreeze", "2"),
        ("--batch-norm", "frozen"),
    ):
        said = striate(*words, *flag)
        assert "has no effect on a logistic head" in said.err
        assert flag[0] in said.err
    assert "no batch-norm mode" in striate(*words, *TUNED, "--batch-norm", "of").err
    assert "allows only" in striate(*words, "--cut", "auto", "--head", "trained").err


def test_expected_accuracy_adds_the_gain_to_the_last_probe():
    head_only = make_trial([True] * 80 + [False] * 20)
    better = make_trial([True] * 90 + [False] * 10, "tuned")
    (last,) = make_probes(0.8, count=1000)
    accuracy, half = expected_accuracy(last, head_only, head_only, 400)
    assert accuracy == 0.8
    assert 0.04 < half < 0.05  # 1.96 · √(0.16 · (1/1000 + 1/400))
    gained, wider = expected_accuracy(last, head_only, better, 400)
    assert gained == pytest.approx(0.9)
    assert wider > half
