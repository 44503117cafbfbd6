"""Layer norms: recorded exactly, shown in the report, without effect on training."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import striate as st
from striate.core.aux_heads import HeadOutputs
from striate.core.errors import SettingError
from striate.core.files import read_csv
from striate.data.batches import Batches
from striate.engine.distributed.group import ONE_PROCESS
from striate.interpret.depth.layer_profile import LayerProfile, depth_profile
from striate.interpret.depth.snapshots import (
    Snapshot,
    first_to_last_gradient,
    is_snapshot_step,
)
from striate.run.layer_norm_charts import (
    chart_over_steps,
    layer_norms_table,
    snapshots_by_stage,
)
from striate.run.layer_norms import (
    COLUMNS,
    MAX_IMAGES,
    layer_norms_logger,
    read_layer_norms,
)
from striate.run.recipe import Recipe
from striate.run.run import Run
from striate.workflows.train.ranks import check_distributed
from support.stopped_runs import stopped, whole

NORMS = "norms.csv"


def test_a_run_with_layer_norms_is_the_same_run(shared_folder):
    plain = whole(shared_folder, "plain")
    watched = whole(shared_folder, "watched", track_norms=True)
    for name in ("results.csv", "events.jsonl", "weights/best.safetensors"):
        assert (watched / name).read_bytes() == (plain / name).read_bytes()
    assert not (plain / NORMS).exists()
    assert read_layer_norms(plain) == []
    assert "Layer norms" not in (plain / "report.html").read_text()
    page = (watched / "report.html").read_text()
    for words in ("Layer norms", "Gradient by layer", "Update during training"):
        assert words in page


def test_it_keeps_what_the_layers_were(shared_folder):
    run = Run(whole(shared_folder, track_norms=True))
    assert tuple(read_csv(run.path / NORMS)[0]) == COLUMNS
    kept = read_layer_norms(run.path)
    last = 3 * -(-len(run.data.subset("train")) // 8)
    expected = [
        step for step in range(last + 1) if is_snapshot_step(step) or step == last
    ]
    assert [one.step for one in kept] == expected
    subset = run.data.subset("train")
    assert len(subset) <= MAX_IMAGES
    made = Batches(
        subset=subset, preprocess=run.preprocess, batch_size=len(subset), shuffle=False
    )
    x, y = next(made(0))
    found = depth_profile(run.fresh_model(), x, y, training=True)
    for level, there in zip(found, kept[0].layers, strict=True):
        assert (level.name, level.depth) == (there.name, there.depth)
        assert there.gradient == pytest.approx(level.gradient, rel=1e-4)
        assert there.activation == pytest.approx(level.activation, rel=1e-4)
        assert there.update == pytest.approx(level.update, rel=1e-4)


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("step", [0, 5, 6])
def test_a_stopped_run_keeps_the_same(shared_folder, step):
    expected = (whole(shared_folder, track_norms=True) / NORMS).read_bytes()
    run = stopped(shared_folder, step=step, track_norms=True)
    assert (run / NORMS).read_bytes() == expected[: len((run / NORMS).read_bytes())]
    with (run / NORMS).open("ab") as file:  # of a future that it will not have
        file.write(b"999,1,conv1,1,1,1\n7,1,co")
    st.resume(run, quiet=True)
    assert (run / NORMS).read_bytes() == expected


@pytest.mark.usefixtures("no_report")
def test_it_can_begin_within_a_run(shared_folder):
    run = stopped(shared_folder)
    finished = st.resume(run, quiet=True, track_norms=True)
    steps = [one.step for one in finished.layer_norms]
    assert steps[0] in (6, 8)
    assert steps[-1] == max(steps)


def test_frozen_layers_have_no_update(shared_folder):
    settings = {"track_norms": True, "freeze": ("conv1",), "epochs": 1}
    kept = read_layer_norms(whole(shared_folder, **settings))
    first = kept[0].layers[0]
    assert first.update != first.update
    assert first.gradient > 0
    table = layer_norms_table(kept)
    assert table.rows[0][0] == first.name


def test_nothing_is_read_where_nothing_is_wanted(tmp_path):
    with layer_norms_logger(tmp_path, None, None, None, 0, enabled=False) as none:
        assert none == ()
    assert list(tmp_path.iterdir()) == []


def test_several_processes_are_refused():
    recipe = Recipe(data="digits", track_norms=True)
    check_distributed(recipe, ONE_PROCESS)
    with pytest.raises(SettingError, match="need a single process, got 2"):
        check_distributed(recipe, SimpleNamespace(world_size=2))


def test_a_stop_is_not_looked_at(shared_folder):
    """What is looked at is a function of the step, not of the stop."""
    run = stopped(shared_folder, step=7, track_norms=True)
    assert [one.step for one in read_layer_norms(run)] == [0, 1, 2, 3, 4, 6]


# --- words and charts ----------------------------------------------------------------


def snapshot(step, *gradients):
    levels = [
        LayerProfile(name=f"l{i}", depth=i, activation=1.0, gradient=g, update=g / 10)
        for i, g in enumerate(gradients, 1)
    ]
    return Snapshot(step=step, layers=tuple(levels))


def test_charts_say_when_and_which():
    course = [snapshot(step, 0.5 + step, 2.0) for step in (0, 1, 2, 3, 4, 6, 8)]
    assert list(snapshots_by_stage(course))[:2] == [
        "before training",
        "after 2 steps",
    ]
    chart = chart_over_steps(course, "gradient")
    assert [series.name for series in chart.series] == ["l1", "l2"]
    assert chart.series[0].x == (1, 2, 3, 4, 5, 7, 9)
    assert chart.series[0].y[-1] == 8.5
    table = layer_norms_table(course)
    keys = [column.key for column in table.columns]
    assert keys[2:5] == ["gradient_first", "activation_first", "update_first"]
    assert table.rows[0][:3] == ("l1", 1, 0.5)
    assert table.rows[0][5] == 8.5
    alone = layer_norms_table(course[:1])
    assert len(alone.columns) == len(alone.rows[0]) == 5


def test_reach_is_first_over_last():
    assert first_to_last_gradient(snapshot(0, 0.5, 2.0).layers) == 0.25
    for none in ((1.0,), (1.0, 0.0)):
        assert first_to_last_gradient(
            snapshot(0, *none).layers
        ) != first_to_last_gradient(snapshot(0, *none).layers)


class TwoHeads(nn.Module):
    """Answers from two heads while it trains, as GoogLeNet does."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 3)
        self.side = nn.Linear(4, 3)

    def forward(self, x):
        x = self.low(x.flatten(1))
        logits = self.high(x)
        if not self.training:
            return logits
        return HeadOutputs(logits, (self.side(x),), 0.3)


def test_heads_on_the_way_count_in_training():
    torch.manual_seed(0)
    model, x, y = TwoHeads(), torch.randn(5, 1, 2, 2), torch.arange(5) % 3
    found = {one.name: one for one in depth_profile(model, x, y, training=True)}
    assert set(found) == {"low", "high", "side"}
    model.zero_grad()
    cost = F.cross_entropy(model(x).logits, y)
    (cost + 0.3 * F.cross_entropy(model(x).auxiliary[0], y)).backward()
    weight = model.side.weight
    assert found["side"].update == pytest.approx(
        float(weight.grad.norm() / weight.detach().norm()), rel=1e-4
    )
    assert "side" not in {one.name for one in depth_profile(model, x, y)}
