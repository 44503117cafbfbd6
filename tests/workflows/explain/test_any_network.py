"""The report of networks as users write them: each part, or the reason."""

import numpy as np
import pytest
import torch
from torch import nn

import striate as st
from striate.core.errors import GeometryError, SettingError
from striate.core.findings import Prose
from striate.core.preprocess_config import Preprocess
from striate.workflows.explain.findings import explain_findings
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.optional_parts import OptionalParts, failure_reason
from striate.workflows.explain.options import ExplainOptions
from support.foreign_networks import Unchanged
from support.unusual_networks import (
    EXPLAINABLE,
    Attention,
    Detached,
    InferenceBackbone,
    Plain,
    Recurrent,
    Transformer,
    WritesSlices,
)

SIDE = 16


def loaded(model):
    preprocess = Preprocess(
        channels=3, height=SIDE, width=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3
    )
    return LoadedModel(name="a network", model=model, preprocess=preprocess)


def shown(model):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 64 - 2
    return ExplainedImage(name="noise", pixels=pixels, x=x)


def report(model, **options):
    with Unchanged(model):
        return explain_findings(
            loaded(model), [shown(model)], ExplainOptions(**options)
        )


def reasons(result):
    blocks = [block for section in result.page.sections for block in section.blocks]
    return [b.text for b in blocks if isinstance(b, Prose) and "vailable" in b.text]


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[] if kind in quick else pytest.mark.slow)
        for quick in [(Attention, Detached, WritesSlices)]
        for kind in EXPLAINABLE
    ],
)
def test_every_network_has_a_report(kind):
    result = report(kind())
    heatmaps = {name.removeprefix("1 ") for name in result.maps}
    assert "occlusion" in heatmaps
    assert result.data["not_available"] == {}
    cut = kind is Detached
    assert ("integrated_gradients" not in heatmaps) is cut
    assert bool(reasons(result)) is cut


def test_inference_mode_in_forward_leaves_occlusion():
    result = report(InferenceBackbone())
    assert {name.removeprefix("1 ") for name in result.maps} >= {"cam", "occlusion"}
    assert any("Integrated gradients is not" in text for text in reasons(result))


def test_a_part_that_fails_is_named(monkeypatch):
    def fail(*_args, **_options):
        raise NotImplementedError("this operation has no derivative\nat line 3")

    target = "striate.workflows.explain.findings.unit_section"
    monkeypatch.setattr(target, fail)
    result = report(Plain())
    reason = "NotImplementedError: this operation has no derivative"
    assert result.data["not_available"] == {"One unit": reason}
    assert reasons(result) == [f"Not available for this network: {reason}."]
    assert len(result.page.sections) == 5


def test_mistakes_of_the_user_are_still_errors():
    parts = OptionalParts({})

    def fail():
        raise SettingError("no such unit")

    with pytest.raises(SettingError, match="no such unit"):
        parts.value("unit", fail, None)
    with pytest.raises(SettingError):
        failure_reason(SettingError("wrong"))
    with pytest.raises(GeometryError, match="cuts the gradient"):
        report(Detached(), methods=("integrated_gradients",))


def test_the_strongest_unit_is_not_saturated():
    class Saturates(Plain):
        def __init__(self):
            super().__init__()
            self.limit = nn.ReLU6()

        def second(self, x):
            return self.limit(20 * self.conv2(x))

    result = report(Saturates())
    assert result.data["unit"]["layer"] == "limit"
    assert 0 < result.data["unit"]["value"] < 6


def test_a_transformer_shows_a_unit_of_its_convolution():
    result = report(Transformer())
    assert result.data["images"][0]["layer"] == "blocks.1"
    assert result.data["unit"]["layer"] == "patch"
    assert len(result.data["unit"]["unit"]) == 3


# --- st.explain and st.features ------------------------------------------------------


def test_explain_in_the_modes_of_a_notebook():
    model = Plain()
    x = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    expected = st.explain(model, x, method="integrated_gradients", sanity_checks=False)
    modes = (
        torch.no_grad(),
        torch.inference_mode(),
        torch.autocast("cpu", dtype=torch.bfloat16),
    )
    for mode in modes:
        with mode:
            actual = st.explain(
                model, x, method="integrated_gradients", sanity_checks=False
            )
        assert torch.equal(actual.heatmap, expected.heatmap)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_explain_casts_the_image_to_the_network(dtype):
    result = st.explain(Plain().to(dtype), torch.randn(3, SIDE, SIDE))
    assert result.method == "cam"
    assert result.sanity_checks is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_explain_of_a_compiled_module():
    x = torch.randn(1, 3, SIDE, SIDE)
    compiled = torch.compile(Plain())
    result = st.explain(compiled, x, method="gradcam", sanity_checks=False)
    expected = st.explain(Plain(), x, method="gradcam", sanity_checks=False)
    assert torch.equal(result.heatmap, expected.heatmap)


class Parts(nn.Module):
    """A list of layers, an unused head and an LSTM."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.ReLU()])
        self.unused = nn.Linear(8, 3)
        self.lstm = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.lstm(x.flatten(2).transpose(1, 2))[0][:, -1]


def test_features_of_a_pattern_name_what_did_not_run(tmp_path):
    x = torch.randn(5, 3, 6, 6)
    result = st.features(Parts(), x, "*", batch_size=2)
    assert result.shapes == {"layers.0": (5, 8, 4, 4), "layers.1": (5, 8, 4, 4)}
    assert result.left_out == {
        "layers": "it did not run on these images",
        "unused": "it did not run on these images",
        "lstm": "its output is a tuple, not a tensor",
    }
    file = tmp_path / "rows.safetensors"
    written = st.features(Parts(), x, "*", batch_size=2, out=file)
    assert written.shapes == result.shapes
    assert written.left_out == result.left_out


def test_features_of_a_name_must_exist():
    x = torch.randn(1, 3, 6, 6)
    with pytest.raises(Exception, match="unused did not run"):
        st.features(Parts(), x, ["layers.0", "unused"])
    with pytest.raises(Exception, match="a tuple, not a tensor"):
        st.features(Parts(), x, ["lstm", "*"])
    with pytest.raises(Exception, match="did not run"):
        st.features(Parts(), x, "unus*")
    assert st.features(Recurrent(), torch.randn(1, 3, 8, 8), "conv*").left_out == {}
