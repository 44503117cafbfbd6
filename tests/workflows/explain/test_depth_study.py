"""Chains that differ in activation and shortcuts alone; the sections made of them."""

from math import inf

import numpy as np
import pytest
import torch

import striate as st
from striate.core.errors import SettingError, UnknownNameError
from striate.core.findings import Curve, Images, Prose, Table
from striate.interpret.depth.layer_profile import gradient_factor
from striate.run.run import Run
from striate.workflows.explain.depth import findings as room
from striate.workflows.explain.depth.deep_chain import ChainDesign, build_chain
from striate.workflows.explain.depth.depth_study import depth_study
from striate.workflows.explain.depth.findings import (
    depth_section,
    run_snapshots,
    study_blocks,
)
from striate.workflows.explain.depth.nonlinearity import nonlinearity_section
from support.images import stripes


@pytest.fixture(scope="module")
def data():
    pixels = np.stack([stripes(i % 2, i, 18, 6, 3) for i in range(120)])
    return st.load_data(st.from_arrays("stripes", pixels, ["a", "b"] * 60))


@pytest.fixture(scope="module")
def study(data):
    """Small, quick, and deep enough for a sigmoid to vanish."""
    return depth_study(data, depth=12, width=4, steps=12, rates=(0.1,))


def test_twins_share_initial_weights():
    x = torch.randn(3, 2, 9, 7)
    plain, twin = (
        build_chain(ChainDesign(activation="relu", residual=r, depth=6), 2, 5, seed=4)
        for r in (False, True)
    )
    for a, b in zip(plain.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
    first = plain.stem(x)
    link = plain.links[0]
    assert torch.equal(link(first), link.conv(first.relu()))
    both = twin.links[0](first)
    assert torch.allclose(both, first + 0.5 * link.conv(first.relu()), atol=1e-6)
    assert plain(x).shape == twin(x).shape == (3, 5)
    before = torch.get_rng_state()
    build_chain(ChainDesign(activation="tanh", residual=True), 1, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_invalid_chain_designs():
    with pytest.raises(UnknownNameError, match="mean sigmoid"):
        ChainDesign(activation="sigmoi", residual=True)
    for depth, width in ((2, 8), (9, 0)):
        with pytest.raises(SettingError, match="at least 3 layers"):
            ChainDesign(activation="tanh", residual=True, depth=depth, width=width)


def test_sigmoid_gradients_vanish_without_shortcuts(study):
    result = {one.design.name: one for one in study.chains}
    assert list(result)[:2] == ["sigmoid", "sigmoid, shortcuts"]
    assert result["sigmoid"].factor < 0.45
    assert result["sigmoid"].first < 1e-4
    for name in ("sigmoid", "tanh", "relu"):
        assert 0.7 < result[f"{name}, shortcuts"].factor < 1.3
    assert [plain.design.residual for plain, _ in study.twins] == [False] * 3


def test_snapshots_from_start_to_end(data, study):
    for one in study.chains:
        assert [s.step for s in one.snapshots] == [0, 1, 2, 3, 4, 6, 8, 12]
        assert len(one.losses) == 12
        assert {len(s.layers) for s in one.snapshots} == {12}
        assert one.factor == gradient_factor(one.snapshots[0].layers)
    assert study.num_images == len(data.subset("val"))
    counts = data.subset("val").labels.bincount()
    assert study.majority_accuracy == pytest.approx(
        float(counts.max()) / study.num_images
    )


def test_best_rate_has_the_lowest_loss(data):
    design = {"depth": 4, "width": 4, "steps": 10, "activations": ["relu"]}
    output = []
    both = depth_study(data, rates=(1e-6, 0.1), on_progress=output.append, **design)
    assert [one.lr for one in both.chains] == [0.1, 0.1]
    assert len(output) == 2
    alone = depth_study(data, rates=(0.1,), **design)
    assert alone.chains[0].losses == both.chains[0].losses
    wild = depth_study(data, rates=(1e30,), **design).chains[0]
    assert wild.losses[-1] == inf
    assert len(wild.losses) == 10


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rates": ()}, {"activations": ()}])
def test_depth_study_errors(data, wrong):
    with pytest.raises(SettingError, match="at least one of each"):
        depth_study(data, **wrong)


# --- sections ------------------------------------------------------------------------


def test_depth_section_shows_the_study(study, shared_run, monkeypatch):
    monkeypatch.setattr(room, "depth_study", lambda data, **how: study)
    section, data = depth_section(shared_run)
    table = next(b for b in section.blocks if getattr(b, "title", "") == "Chains")
    assert table.rows[0][:2] == ("sigmoid", study.chains[0].factor)
    assert len(data["chains"]) == 6
    assert data["chains"][1]["residual"]
    steps = [one["step"] for one in data["layers"]]
    assert steps == [0, None]  # built again, and as it is kept
    vanishing = [b for b in section.blocks if isinstance(b, Prose)]
    assert vanishing[0].tone == "warning"
    assert "sigmoid: the gradient of the first layer is" in vanishing[0].text
    titles = {b.title for b in section.blocks if isinstance(b, Curve)}
    for title in ("Gradient by layer", "Chains: gradients at initialization"):
        assert title in titles


def test_losses_are_smoothed(study):
    charts = {b.title: b for b in study_blocks(study) if isinstance(b, Curve)}
    line = charts["Chains: training loss"].series[0]
    costs = study.chains[0].losses
    assert line.x == (4.0, 10.0)
    assert line.y == pytest.approx((sum(costs[:8]) / 8, sum(costs[8:]) / 4))


def test_a_network_without_a_name_is_shown_as_it_is(data, tmp_path):
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    model(torch.zeros(1, 3, *data.image_size))
    run = st.train(model, data, epochs=1, out=tmp_path / "run", quiet=True)
    assert [one.step for one in run_snapshots(run)] == [None]
    again = Run(run.path, model=model, data=data)
    assert len(run_snapshots(again)) == 1


def test_nonlinearity_section(shared_run):
    section, data = nonlinearity_section(shared_run)
    line, deep, squares, bent = data["networks"]
    assert line["accuracy"] < 0.65
    assert deep["accuracy"] < 0.65
    assert deep["collapse_error"] < 1e-4
    assert (line["weights"], deep["weights"]) == (3, 105)
    assert squares["accuracy"] == 1
    assert bent["accuracy"] > 0.99
    assert squares["collapse_error"] is bent["collapse_error"] is None
    kinds = [type(block) for block in section.blocks]
    assert kinds == [Images, Table, Curve]
    assert all(0 <= y <= 1 for one in section.blocks[2].series for y in one.y)


@pytest.mark.slow
def test_on_digits_shortcuts_carry_gradients_and_let_all_three_learn():
    """The claim of the notes, at 32 layers, on real digits."""
    result = depth_study(st.load_data("digits"))
    for plain, twin in result.twins:
        assert twin.first > plain.first
        assert abs(twin.factor - 1) < 0.1
        assert twin.first > 1e-3
        assert twin.accuracy > plain.accuracy
    (sigmoid, cured), _, (relu, twin) = result.twins
    assert sigmoid.first < 1e-15
    assert sigmoid.accuracy < result.majority_accuracy + 0.1
    assert cured.accuracy > result.majority_accuracy + 0.2
    assert twin.accuracy > 0.9
    assert twin.accuracy > relu.accuracy + 0.3
