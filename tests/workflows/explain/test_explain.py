"""A whole explanation: any network and image, left as they were, all in numbers."""

import csv
import json
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import striate as st
from striate.audit.network import audit
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.core.findings import Images, Prose, Table
from striate.core.preprocess_config import Preprocess
from striate.interpret.activations_at import activations_at
from striate.interpret.layer_statistics import activation_statistics
from striate.interpret.top_patches import channel_preferences
from striate.workflows.explain import attribution as answer
from striate.workflows.explain.dataset_heatmaps import dataset_section
from striate.workflows.explain.depth import findings as depth_page
from striate.workflows.explain.depth.depth_study import depth_study
from striate.workflows.explain.explain import explain_images
from striate.workflows.explain.filters_and_maps import filters_and_maps_section
from striate.workflows.explain.findings import EXTRA_SECTIONS, explain_findings
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.invariance import invariance_section
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import ExplainOptions
from support.foreign_networks import STRANGERS, Functional, Reused, Unchanged, stranger
from support.images import stripes


def about(model, channels, side=12):
    preprocess = Preprocess(
        channels=channels,
        height=side,
        width=side,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
    )
    return LoadedModel(name="a stranger", model=model, preprocess=preprocess)


def shown(channels, side=12):
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, channels))
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 64 - 2
    return ExplainedImage(name="noise", pixels=pixels.astype(np.uint8), x=x)


def own(run):
    return LoadedModel(
        name="run",
        model=run.model,
        preprocess=run.preprocess,
        labels=run.labels,
        run=run,
    )


@pytest.mark.parametrize(
    ("kind", "channels"),
    [(kind, (1, 3, 5)[i]) for i, kind in enumerate(STRANGERS)]
    + [
        pytest.param(kind, channels, marks=pytest.mark.slow)
        for kind in STRANGERS
        for channels in (1, 3, 5)
    ],
)
def test_a_page_about_any_network_leaves_it_alone(kind, channels):
    model = stranger(kind, channels)
    with Unchanged(model):
        told = explain_findings(
            about(model, channels), [shown(channels)], ExplainOptions()
        )
    titles = [section.title for section in told.page.sections]
    expected = [
        "How the score is computed",
        "One unit",
        "Filters and feature maps",
        "Activation statistics",
    ]
    assert titles[1:] == expected
    assert told.channel_patches is None
    assert json.loads(json.dumps(told.data, allow_nan=False)) == told.data
    facts = told.data["unit"]
    assert facts["pixels"] + facts["biases"] == pytest.approx(facts["value"], abs=1e-4)
    assert {"1 occlusion", "1 integrated_gradients"} < set(told.maps)


@pytest.mark.parametrize("name", EXTRA_SECTIONS)
def test_every_part_leaves_the_networks_weights_alone(name, shared_run, monkeypatch):
    small = {"depth": 4, "width": 2, "steps": 2, "rates": (0.1,)}
    monkeypatch.setattr(
        depth_page, "depth_study", lambda data, **how: depth_study(data, **small)
    )
    with Unchanged(shared_run.model):
        section, data = EXTRA_SECTIONS[name](shared_run, lambda line: None)
    assert section.blocks
    assert json.dumps(data)


# --- one unit ------------------------------------------------------------------------


def test_unit_given_by_the_user(shared_run, tmp_path):
    wish = ExplainOptions(unit=("conv1", (2, 3, 4)), methods=("gradcam",))
    with Unchanged(shared_run.model):
        done = explain_images(own(shared_run), (), wish, tmp_path / "made")
    facts = done.data["unit"]
    sight = {
        layer.name: layer.receptive_field
        for layer in audit(shared_run.model, (1, 8, 8)).layers
    }["conv1"]
    assert facts["layer"] == "conv1"
    assert tuple(map(tuple, facts["box"])) == sight.box(3, 4)
    assert facts["worked_example"]["totals"]["adds"] == pytest.approx(
        facts["value"], rel=1e-5
    )
    section = next(s for s in done.page.sections if s.title == "One unit")
    views = [one.caption for one in section.blocks[0].images]
    assert views == [
        "receptive field",
        "effective field (gradient)",
        "contribution of each pixel",
        "image in the field",
    ]
    titles = [getattr(block, "title", "") for block in section.blocks]
    assert titles[1:] == [
        "conv1 [2, 3, 4]: the sum in numbers",
        "Top patches of channel 2",
        "Mean activation by class",
    ]


def test_the_channel_of_a_unit_is_the_one_asked_for(shared_run):
    """Its patches are those of `channel_preferences`; its class means are right."""
    told = explain_findings(
        own(shared_run), [shown(1, 8)], ExplainOptions(unit=("pool1", (1, 0, 0)))
    )
    looked = told.channel_patches
    one = next(each for each in looked.layers if each.call == "pool1")
    blocks = looked.channel("pool1", 1)
    table = next(block for block in blocks if isinstance(block, Table))
    means = one.by_class[:, 1]
    assert [row[1] for row in table.rows] == means.sort(descending=True).values.tolist()
    path = looked.subset.paths[one.patches[1][0].image]
    rows = [row for row in looked.table()[1] if row[:2] == ("pool1", 1)]
    assert [row[4] for row in rows] == [1, 2, 3]
    assert rows[0][6] == path
    assert looked.channel("nothing", 0) == []


@pytest.mark.parametrize(
    ("unit", "kind", "words"),
    [
        (("cnv1", (0, 0, 0)), UnknownNameError, "no layer is called 'cnv1'"),
        (("conv1", (99, 0, 0)), SettingError, r"conv1 has no unit \(99, 0, 0\)"),
        (("conv1", (0,)), SettingError, "conv1 has no unit"),
    ],
)
def test_units_that_are_not_there(shared_run, unit, kind, words):
    with pytest.raises(kind, match=words):
        explain_findings(own(shared_run), [shown(1, 8)], ExplainOptions(unit=unit))


def test_unit_without_position(shared_run):
    last = [n for n, m in shared_run.model.named_modules() if isinstance(m, nn.Linear)]
    told = explain_findings(
        own(shared_run), [shown(1, 8)], ExplainOptions(unit=(last[-1], (1,)))
    )
    section = next(s for s in told.page.sections if s.title == "One unit")
    assert "its receptive field is the whole image" in section.blocks[0].text
    assert told.data["unit"] == {"layer": last[-1], "unit": [1]}


# --- in numbers ----------------------------------------------------------------------


def test_maps_and_json_are_written(shared_run, tmp_path):
    wish = ExplainOptions(methods=("occlusion", "layercam"))
    done = explain_images(own(shared_run), (), wish, tmp_path / "made")
    maps = load_file(done.folder / "maps.safetensors")
    images = len(done.data["images"])
    assert {f"{i + 1} layercam" for i in range(images)} <= set(maps)
    assert {f"{i + 1} occlusion against" for i in range(images)} <= set(maps)
    assert {tuple(one.shape) for one in maps.values()} == {(1, 8, 8)}
    with (done.folder / "channels.csv").open() as file:
        rows = list(csv.DictReader(file))
    channels = {(row["layer"], row["channel"]) for row in rows}
    result = {row["layer"]: row["channels"] for row in done.data["selectivity"]}
    assert len(channels) == sum(result.values())
    first = rows[0]
    assert first["preferred_class"] in shared_run.labels.names
    assert int(first["top"]) <= int(first["bottom"]) < 8
    again = json.loads((done.folder / "explain.json").read_text())
    for key in ("arithmetic", "unit", "filters", "layers", "selectivity"):
        assert again[key]
    down = sum(row["contribution"] for row in again["arithmetic"]["contributions"])
    logit = float(again["arithmetic"]["tree"][0]["value"].replace("−", "-"))
    assert down == pytest.approx(logit, rel=1e-3, abs=1e-3)


def test_page_of_a_module_that_is_one_step():
    """The whole network is; the unit inside it has a field and no sum."""

    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3)

        def forward(self, x):
            y = self.conv(x).mean((2, 3))
            y[:, 0] = 0
            return y * 2

    model = Outside()
    told = explain_findings(
        about(model, 1), [shown(1)], ExplainOptions(methods=("gradcam",))
    )
    assert "Outside of" in told.data["arithmetic"]["tree"][0]["detail"]
    assert told.data["unit"]["layer"] == "conv"
    assert "value" not in told.data["unit"]


def test_a_network_without_maps_has_a_page():
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 3))
    with Unchanged(model):
        told = explain_findings(
            about(model, 1), [shown(1)], ExplainOptions(methods=("occlusion",))
        )
    assert told.data["unit"]["layer"] == "output"
    assert told.data["arithmetic"]["tree"]
    with pytest.raises(GeometryError, match="no layer's output has height"):
        explain_findings(
            about(model, 1), [shown(1)], ExplainOptions(methods=("gradcam",))
        )


def test_page_without_unit_arithmetic(monkeypatch):
    monkeypatch.setattr("striate.interpret.trace.MAX_BYTES", 1000)
    model = stranger(Functional)
    told = explain_findings(
        about(model, 3), [shown(3)], ExplainOptions(methods=("gradcam",))
    )
    ledger = next(
        s for s in told.page.sections if s.title == "How the score is computed"
    )
    assert (
        "Unit arithmetic is not available: the activations of a 1×3×12×12"
        in ledger.blocks[0].text
    )
    assert told.data["arithmetic"] is None
    assert "value" not in told.data["unit"]


def test_unreliable_heatmap_is_marked_on_the_page(monkeypatch):
    """An edge detector in the guise of a method is not to be read as evidence."""
    monkeypatch.setattr(
        "striate.interpret.attribution.attribute.grad_cam_map",
        lambda network, x, *_: x[0].mean(0).abs(),
    )
    model = stranger(Reused)
    result = answer.explain_image(
        about(model, 3),
        shown(3),
        ExplainOptions(methods=("gradcam",), against=0, target=1),
    )
    drawn = next(b for b in result.section.blocks if isinstance(b, Images)).images
    assert drawn[1].detail == "DO NOT TRUST: same heatmap with shuffled weights"
    bad = [b for b in result.section.blocks if isinstance(b, Prose) and b.tone == "bad"]
    assert "is almost the same with shuffled weights" in bad[0].text
    assert result.facts["attributions"][0]["shuffled_correlation"] == 1


# --- memory --------------------------------------------------------------------------


class Watched:
    """Counts how many of a network's maps are alive at a time."""

    def __init__(self, model):
        self._maps = []
        self.most = 0
        for module in model:
            module.register_forward_hook(self._hear)

    def _hear(self, module, given, output):
        self._maps.append(weakref.ref(output))
        self.most = max(self.most, sum(one() is not None for one in self._maps))


@pytest.mark.parametrize(
    "look",
    [
        lambda model, x: filters_and_maps_section(
            model, x, [str(i) for i in range(12)]
        ),
        lambda model, x: activation_statistics(model, x),
        lambda model, x: channel_preferences(
            model, [(x, torch.zeros(1).long())], ["3", "9"], 1
        ),
        lambda model, x: activations_at(model, x, "11"),
    ],
)
def test_maps_are_streamed(look):
    """Of twelve layers' maps a layer's input and output are held, and no others."""
    model = nn.Sequential(*[nn.Conv2d(2, 2, 3, padding=1) for _ in range(12)])
    watched = Watched(model)
    look(model, torch.randn(1, 2, 20, 20))
    assert watched.most <= 3


# --- a whole set ---------------------------------------------------------------------


def test_most_confident_errors_come_first(tmp_path):
    """Every fifth label is wrong, so that there are mistakes to look at."""
    pixels = np.stack([stripes(i % 2, i, 12, 12, 3) for i in range(100)])
    names = [("across", "down")[(i + (i % 5 == 0)) % 2] for i in range(100)]
    data = st.load_data(st.from_arrays("noisy", pixels, names))
    model = st.create_model("tutorial_color", num_classes=2, in_chans=3, image_size=12)
    run = st.train(model, data, epochs=2, out=tmp_path / "run", quiet=True)
    section, facts = dataset_section(run)
    drawn = next(b for b in section.blocks if isinstance(b, Images))
    assert drawn.title == "Most confident errors"
    result = run.predictions(run.evaluated_split)
    wrong = int((result.truth != result.predicted).sum())
    assert len(drawn.images) == min(wrong, 8) > 0
    sure = [float(one.detail.split()[0]) for one in drawn.images]
    assert sure == sorted(sure, reverse=True)
    assert {one.caption for one in drawn.images} <= {
        "predicted across, true down",
        "predicted down, true across",
    }
    assert sum(row["images"] for row in facts["classes"]) + facts[
        "empty_heatmaps"
    ] == len(result.paths)


# --- nothing in silence --------------------------------------------------------------


def test_pooling_that_cannot_be_compared(shared_run, monkeypatch):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 2))
    run = SimpleNamespace(
        model=model,
        data=shared_run.data,
        preprocess=shared_run.preprocess,
        evaluated_split=shared_run.evaluated_split,
        labels=shared_run.labels,
    )
    section, data = invariance_section(run)
    said = [b.text for b in section.blocks if isinstance(b, Prose)]
    assert "the network has no pooling module with stride" in said[0]
    assert data["pools"] == {}
    run.model = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten())
    _, data = invariance_section(run)
    assert "there is no last linear layer" in data["skipped"][0]
    run.model = shared_run.model

    def refuse(*_):
        raise GeometryError("it does not fit")

    monkeypatch.setattr("striate.workflows.explain.invariance.refit_head", refuse)
    _, data = invariance_section(run)
    assert len(data["skipped"]) == 5
