"""`striate transfer --cut auto`: what is planned, from what, and that it is done."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import striate as st
from stopping import knows_stripes
from striate.core.files import read_json
from striate.engine.evaluate import Outputs
from striate.runs.prepare import build, load_recipe, place, resolve
from striate.runs.recipe import Recipe
from striate.runs.story import write_report
from striate.runs.transfer import plan as planning
from striate.runs.transfer import rivals, trials
from striate.runs.transfer import transfer as job
from striate.runs.transfer.plan import Proposal, expected, first_rung, propose
from striate.runs.transfer.trials import Trial
from striate.runs.transfer.wanted import Wanted
from striate.transfer import logistic
from striate.transfer.probing import Probe, ProbePoint

TUNED = "--head", "tuned", "--cut", "block1", "--epochs", "3", "--batch-size", "8"


pytestmark = pytest.mark.usefixtures("no_report")


@pytest.fixture(autouse=True)
def _few_penalties(monkeypatch):
    monkeypatch.setattr(logistic, "PENALTIES", (1.0, 0.1))  # a few pictures are enough


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A network that knows stripes as small and grey as those of the tests."""
    return knows_stripes(tmp_path_factory.mktemp("source"), 16)


@pytest.fixture
def words(shared_folder, source):
    given = "transfer", shared_folder, "--model", "swift", "--pretrained", source.path
    return (*given, "--quiet", "--cache", "cache", "--epochs", "4", "--batch-size", "8")


def facts(name):
    return read_json(Path(name) / "manifest.json")["transfer"]


def counts(name):
    return read_json(Path(name) / "manifest.json")["data"]["parts"]


@pytest.mark.slow
@pytest.mark.charts
def test_a_plan_is_told_and_done(striate, words, monkeypatch):
    monkeypatch.setattr(job, "write_report", write_report)
    said = striate(*words, "--cut", "auto", "--out", "run")
    assert said.code == 0, said.err
    for part in ("A linear head at every cut", "Tried", "Proposed: keep", "Expected"):
        assert part in said.out
    proposal = Proposal.from_dict(read_json(Path("run/plan.json")))
    assert [probe.cut for probe in proposal.probes] == ["whiten", "block1", "flatten"]
    assert [trial.head for trial in proposal.trials][:3] == ["logistic", *["tuned"] * 2]
    modes = {trial.batch_norm for trial in proposal.trials[1:3]}
    assert modes == {"frozen", "adapting"}
    assert proposal.trials[1].cut == "block1"
    assert proposal.low <= proposal.accuracy <= proposal.high
    done = facts("run")
    assert (done["cut"], done["head"]) == (proposal.best.cut, proposal.best.head)
    assert done["plan"]["expected"] == proposal.accuracy
    assert done["plan"]["came"] == st.load_run("run").scores["val"]["accuracy"]
    assert Path("run/plots/cuts.png").read_bytes()[1:4] == b"PNG"
    assert "Accuracy by depth of the cut" in Path("run/report.html").read_text("utf-8")
    run = st.load_run("run")
    again = run.judge(run.data.part("test")).probabilities
    assert abs(again - run.predictions("test").probabilities).max() < 1e-5


@pytest.mark.slow
def test_the_pass_of_the_plan_is_the_heads(striate, words):
    given = "--cut", "auto", "--head", "logistic"
    assert striate(*words, *given, "--out", "run").code == 0
    done, parts = facts("run"), counts("run")
    assert len(read_json(Path("run/plan.json"))["trials"]) == 1
    assert (done["head"], done["cut"]) == ("logistic", "flatten")
    assert done["kept"] == parts["train"]
    assert done["computed"] == parts["val"] + parts["test"]
    assert striate(*words, "--out", "plain").code == 0
    one, other = (load_file(f"{n}/weights/best.safetensors") for n in ("run", "plain"))
    assert all(torch.allclose(one[n], other[n], atol=1e-5) for n in one)


@pytest.mark.slow
def test_a_head_that_is_asked_for_is_kept(striate, words):
    given = "--cut", "auto", "--head", "tuned", "--batch-norm", "frozen"
    assert striate(*words, *given, "--lr-decay", "0.7", "--out", "run").code == 0
    done = facts("run")
    assert (done["head"], done["batch_norm"], done["lr_decay"]) == (
        "tuned",
        "frozen",
        0.7,
    )


def test_validation_and_test_play_no_part(shared_folder, source):
    recipe = Recipe(
        data=str(shared_folder),
        model="swift",
        pretrained=str(source.path),
        epochs=4,
        batch_size=8,
        cache="off",
        lr=0.01,
    )
    data = load_recipe(recipe)
    recipe = resolve(recipe, data)
    model = build(recipe, data)
    place(model, data, recipe)
    noise = {
        name: replace(
            data.part(name),
            pixels=torch.zeros_like(data.part(name).pixels),
            labels=1 - data.part(name).labels,
        )
        for name in ("val", "test")
    }
    other = replace(data, parts={**data.parts, **noise})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    one, two = (
        propose(model, some, recipe, Wanted(cut="auto"), lambda line: None)
        for some in (data, other)
    )
    assert one.probes == two.probes
    assert [t.right for t in one.trials] == [t.right for t in two.trials]
    assert (one.chosen, one.accuracy, one.low) == (two.chosen, two.accuracy, two.low)
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.head.parameters())


@pytest.mark.slow
def test_a_tuned_head_begins_where_logistic_regression_ends(striate, words, source):
    slow = "--lr", "1e-9", "--lr-decay", "1", "--batch-norm", "frozen"
    assert striate(*words, *TUNED, *slow, "--out", "tuned").code == 0
    assert striate(*words, "--out", "alone").code == 0
    one, other = (st.load_run(n).predictions("test") for n in ("tuned", "alone"))
    assert abs(one.probabilities - other.probabilities).max() < 1e-3


@pytest.mark.slow
def test_frozen_statistics_stay_and_weights_do_not(striate, words, source):
    given = "--batch-norm", "frozen", "--freeze", "block2.norm"
    said = striate(*words, *TUNED, *given, "--out", "run")
    assert said.code == 0, said.err
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    same = [n for n in after if n.startswith(("block1", "block2.norm"))]
    assert all(torch.equal(before[n], after[n]) for n in same)
    assert not torch.equal(before["block2.conv.weight"], after["block2.conv.weight"])
    assert facts("run")["stages"] == ["block2", "head"]
    assert striate(*words, *TUNED, "--out", "adapting").code == 0
    after = load_file("adapting/weights/best.safetensors")
    name = "block2.norm.running_mean"
    assert not torch.equal(before[name], after[name])


@pytest.mark.slow
@pytest.mark.parametrize("epochs", ["1", "3"])
def test_a_stage_that_has_not_thawed_is_as_it_was(striate, words, source, epochs):
    """With an epoch a stage, one epoch leaves all but the head alone."""
    given = (*TUNED, "--epochs", epochs, "--unfreeze", "1", "--batch-norm", "frozen")
    assert striate(*words, *given, "--out", "run").code == 0
    before = load_file(source.path / "weights/best.safetensors")
    after = load_file("run/weights/best.safetensors")
    name = "block2.conv.weight"
    run = st.load_run("run")
    late = run.manifest["best_epoch"] > 1
    assert torch.equal(before[name], after[name]) is not late


@pytest.mark.slow
def test_rivals_have_equal_pictures(striate, words, monkeypatch):
    monkeypatch.setattr(rivals, "write_report", lambda run: None)
    said = striate(*words, "--compare", "--out", "run", "--json")
    assert said.code == 0, said.err
    found = {one["name"]: one for one in said.json["rivals"]}
    assert list(found) == ["from scratch", "head alone", "fine-tuned"]
    runs = {name: st.load_run(one["path"]) for name, one in found.items()}
    paths = {run.predictions("test").paths for run in runs.values()}
    assert len(paths) == 1
    assert len({one["count"] for one in found.values()}) == 1
    for name, run in runs.items():
        assert found[name]["accuracy"] == run.scores["test"]["accuracy"]
        assert run.recipe.pretrained is None or name != "from scratch"
    assert found["head alone"]["p"] is None
    assert 0 <= found["from scratch"]["p"] <= 1
    assert read_json(Path("run/rivals.json"))["rivals"][1]["path"] == "run"
    monkeypatch.setattr(rivals, "write_report", write_report)
    assert "Was it worth it?" in striate(*words, "--compare", "--out", "b").out
    assert "Was it worth it?" in Path("b/report.html").read_text("utf-8")


def test_what_would_do_nothing_is_refused(striate, words):
    for flag in (
        ("--lr-decay", "0.5"),
        ("--unfreeze", "2"),
        ("--batch-norm", "frozen"),
    ):
        said = striate(*words, *flag)
        assert "has no stages that could differ" in said.err
        assert flag[0] in said.err
    assert "no batch-norm mode" in striate(*words, *TUNED, "--batch-norm", "of").err
    assert (
        "chooses between" in striate(*words, "--cut", "auto", "--head", "trained").err
    )


def probed(*accuracies, count=100):
    return [
        Probe(
            cut=f"l{i}",
            width=1,
            count=count,
            points=(ProbePoint(pictures=80, accuracy=a, cost=0.5, penalty=0.1),),
        )
        for i, a in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("accuracies", "rung"),
    [
        ((0.5, 0.6, 0.8, 0.9), 2),  # the last is best: all but it are kept below
        ((0.5, 0.9, 0.89, 0.7), 2),  # as good as the best by a standard error
        ((0.5, 0.9, 0.8, 0.7), 1),
        ((0.9,), -1),
    ],
)
def test_the_cut_is_where_the_network_knows_most(accuracies, rung):
    assert first_rung(probed(*accuracies)) == rung


def bench_of(*names):
    cuts = tuple(SimpleNamespace(name=name) for name in names)
    return SimpleNamespace(ladder=SimpleNamespace(cuts=cuts))


def test_the_lowest_cut_is_one_whose_features_can_be_kept(monkeypatch):
    sizes, told = [9e9, 5e9, 4e9, 1e9], []
    monkeypatch.setattr(planning, "_bytes", lambda bench, rung: sizes[rung])
    bench = bench_of("a", "b", "c", "d", "head")
    assert planning._lowest(bench, told.append) == 2
    assert [line.split()[2] for line in told] == ["a", "b"]
    sizes[:] = [9e9] * 4
    assert planning._lowest(bench, told.append) == 3


@pytest.mark.parametrize(
    ("asked", "costs", "ways"),
    [
        # Down as long as it pays, in the better mode.
        ({}, (9, 6, 5, 6), ["e frozen", "e adapting", "c adapting"]),
        ({}, (9, 5, 6, 4, 5), ["e frozen", "e adapting", "c frozen", "b frozen"]),
        ({"batch_norm": "frozen"}, (9, 5, 4, 3, 2), [f"{c} frozen" for c in "ecba"]),
        # Up where the head alone is better.
        ({}, (4, 5, 6, 3), ["e frozen", "e adapting", "g frozen"]),
        ({"head": "logistic"}, (9,), []),
    ],
)
def test_the_middle_tells_the_mode_and_the_way(monkeypatch, asked, costs, ways):
    came = iter(costs)

    def trial(bench, wanted, tell):
        done = tried([True], wanted.kind, next(came))
        return replace(done, cut=wanted.cut, batch_norm=wanted.batch_norm)

    monkeypatch.setattr(planning, "_tried", trial)
    monkeypatch.setattr(planning, "_bytes", lambda bench, rung: 0)
    monkeypatch.setattr(planning, "_has_norms", lambda ladder, rung: True)
    probes = probed(0.3, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9, 0.5, 0.5)
    bench = bench_of(*"abcdefgh", "head")
    wanted = Wanted(cut="auto", **asked)
    first, *found = planning._trials(bench, probes, wanted, print)
    assert first.head == "logistic"
    assert [f"{one.cut} {one.batch_norm}" for one in found] == ways


def tried(right, head="logistic", cost=0.5):
    return Trial(
        head=head,
        cut="a",
        stages=("b",),
        batch_norm="",
        lr=0.0,
        lr_decay=1.0,
        epochs=1,
        learnt=10,
        right=tuple(right),
        costs=(cost,) * len(right),
        seconds=1.0,
        whole=1.0,
    )


def test_what_is_expected_is_the_head_alone_and_what_is_gained_on_it():
    alone = tried([True] * 80 + [False] * 20)
    better = tried([True] * 90 + [False] * 10, "tuned")
    (last,) = probed(0.8, count=1000)
    accuracy, half = expected(last, alone, alone, 400)
    assert accuracy == 0.8
    assert 0.04 < half < 0.05  # 1.96 · √(0.16 · (1/1000 + 1/400))
    gained, wider = expected(last, alone, better, 400)
    assert gained == pytest.approx(0.9)
    assert wider > half


def test_the_head_alone_is_chosen_where_it_is_better_by_a_standard_error():
    alone, wanted = tried([True] * 4), Wanted(cut="auto")
    tuned = [tried([True] * 4, "tuned", cost) for cost in (0.7, 0.6)]
    assert planning._chosen([alone], wanted) == 0
    assert planning._chosen([alone, *tuned], wanted) == 0
    assert planning._chosen([alone, *tuned], replace(wanted, head="tuned")) == 2
    assert planning._chosen([alone, tried([True] * 4, "tuned", 0.4)], wanted) == 1
    unsure = replace(tuned[0], costs=(0.2, 0.9, 0.2, 0.9))
    assert unsure.cost > alone.cost
    assert planning._chosen([alone, unsure], wanted) == 1


def test_what_learns_more_is_taken_unless_it_is_worse_by_a_standard_error():
    wanted = Wanted(cut="auto", head="tuned")
    alone, few = tried([True] * 4), tried([True] * 4, "tuned", 0.5)
    more = replace(few, stages=("low", *few.stages), costs=(0.9, 0.2, 0.9, 0.2))
    assert more.cost > few.cost
    assert planning._chosen([alone, few, more], wanted) == 2
    worse = replace(more, costs=(0.6,) * 4)
    assert planning._chosen([alone, few, worse], wanted) == 1
    assert planning.best_tuned([alone]) is None


def test_a_network_is_not_judged_by_how_sure_it_is():
    """A trial has fewer epochs than what it stands for, and is less sure."""
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(50, 3, generator=draw), torch.arange(50) % 3
    unsure, sure = (
        trials._costs(Outputs(logits=logits * k, labels=labels, losses=labels * 0.0))
        for k in (0.5, 3)
    )
    assert unsure == pytest.approx(sure, abs=1e-6)
    assert unsure.mean() <= math.log(3)


@pytest.mark.parametrize(
    ("pictures", "batch", "epochs"),
    [(500, 32, 8), (264, 32, 8), (200, 32, 10), (40, 32, 12), (64, 8, 8)],
)
def test_a_trial_has_two_thirds_of_the_epochs_or_steps_enough(pictures, batch, epochs):
    recipe = Recipe(data="digits", epochs=12, batch_size=batch)
    assert trials.epochs_of(recipe, pictures) == epochs
