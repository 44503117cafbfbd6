"""Inner outputs by name: right numbers, early stop, and the model as it was."""

import io

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import striate as st
from striate.core.errors import (
    DataError,
    GeometryError,
    SettingError,
    StriateError,
    UnknownNameError,
)
from striate.core.hooks import evaluation_mode
from striate.core.preprocess_config import Preprocess
from striate.interpret.activations_at import activations_at, match_layers
from striate.interpret.layer_statistics import activation_statistics
from striate.workflows.explain.tensor_file import TensorFile
from support.foreign_networks import (
    STRANGERS,
    Functional,
    InPlace,
    Reused,
    Unchanged,
    stranger,
)
from support.images import write_folder


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", STRANGERS)
def test_outputs_are_what_the_layers_gave(kind, channels):
    model = stranger(kind, channels)
    x = torch.randn(3, channels, 12, 12)
    names = [name for name, _ in model.named_modules() if name]
    heard = {}
    with Unchanged(model):
        result = activations_at(
            model, x, [n for n in names if n not in ("pool", "drop")], 2
        )

    def hear(name):
        def hook(module, given, out):
            heard.setdefault(name, out.clone())

        return hook

    for name in result:
        model.get_submodule(name).register_forward_hook(hear(name))
    model.eval()(x)
    assert list(result) == [n for n in names if n in result]
    for name, out in result.items():
        assert torch.allclose(out, heard[name], atol=1e-6), name
        assert not out.requires_grad


def test_calls_of_a_reused_layer():
    model = stranger(Reused).eval()
    x = torch.randn(2, 3, 8, 8)
    result = activations_at(model, x, ["relu", "relu #2", "relu #3", "again #2"])
    with torch.no_grad():
        one = torch.relu(model.first(x))
        two = torch.relu(model.again(one) + one)
        three = model.again(two)
    assert torch.allclose(result["relu"], one)
    assert torch.allclose(result["relu #2"], two)
    assert torch.allclose(result["again #2"], three)
    assert torch.allclose(result["relu #3"], torch.relu(three + two))
    with pytest.raises(StriateError, match="relu #4 did not run"):
        activations_at(model, x, "relu #4")


class Counting(nn.Module):
    """Counts its runs in a text stream: attributes are restored after each analysis."""

    def __init__(self):
        super().__init__()
        self.runs = io.StringIO()

    @property
    def ran(self):
        return len(self.runs.getvalue())

    def forward(self, x):
        self.runs.write(".")
        return x


def test_later_layers_do_not_run():
    """The one assertion that fails if the early stop is taken out."""
    late = Counting()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), late)
    activations_at(model, torch.randn(4, 1, 5, 5), ["0", "1"], batch_size=2)
    assert late.ran == 0
    activations_at(model, torch.randn(4, 1, 5, 5), "2", batch_size=2)
    assert late.ran == 2


def test_an_in_place_activation_does_not_reach_back():
    model = stranger(InPlace)
    result = activations_at(model, torch.randn(2, 3, 8, 8), "stem.*")
    assert result["stem.1"].min() < 0
    assert torch.equal(result["stem.1"].clamp(min=0), result["stem.2"])


def test_patterns_and_wrong_names():
    model = stranger(InPlace)
    assert match_layers(model, "stem*") == ["stem", "stem.0", "stem.1", "stem.2"]
    assert match_layers(model, ["fc", "body.?", "fc"]) == ["body.0", "body.1", "fc"]
    assert match_layers(model, ["fc #1", "fc #2"]) == ["fc", "fc #2"]
    for wrong in ("stm.0", "layer*", "fc #x", ""):
        with pytest.raises(UnknownNameError, match="no layer is called") as error:
            match_layers(model, wrong)
        assert "stem.0, stem.1" in error.value.fix
    with pytest.raises(UnknownNameError) as error:
        match_layers(model, "stm.0")
    assert error.value.fix.startswith("did you mean stem.0")


def test_bad_images_are_refused_and_the_model_is_left():
    model = stranger(Functional)
    for x, words in (
        (torch.zeros(3, 8, 8), "4 dimensions, got 3×8×8"),
        (torch.zeros(0, 3, 8, 8), "4 dimensions, got 0×3×8×8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floating-point"),
        (torch.zeros(1, 4, 8, 8), "does not accept a batch of 1×4×8×8"),
        (torch.zeros(1, 3, 2, 2), "does not accept a batch of 1×3×2×2"),
    ):
        with Unchanged(model), pytest.raises(GeometryError, match=words):
            activations_at(model, x, "*")


def test_a_layer_that_gives_no_tensor_is_named():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    model = nn.Sequential(Pair())
    with pytest.raises(StriateError, match="the output of 0 is a tuple, not a tensor"):
        activations_at(model, torch.randn(1, 1, 2, 2), "0")


class Careless(nn.Module):
    """Writes to its buffer, draws random numbers, even in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        np.random.rand()
        return x + torch.rand(1)


class Assigning(Careless):
    """Puts new tensors in place of its buffer, and a buffer of its own beside it."""

    def forward(self, x):
        self.count = self.count + 1
        self.register_buffer("late", x.mean())
        return x


@pytest.mark.parametrize("kind", [Careless, Assigning])
def test_networks_are_restored(kind):
    model = nn.Sequential(kind())
    count = model[0].count
    x = torch.randn(2, 1, 2, 2)
    with Unchanged(model):
        activations_at(model, x, "0")
        activation_statistics(model, x)
    assert list(model[0]._buffers) == ["count"]
    assert model[0].count is count
    with torch.inference_mode(), evaluation_mode(model):
        model(x)
    assert not model[0].count.is_inference()


@pytest.mark.parametrize("kind", STRANGERS)
def test_statistics_are_numpys(kind):
    model = stranger(kind)
    x = torch.randn(5, 3, 12, 12)
    with Unchanged(model):
        result = activation_statistics(model, x)
    for one in result:
        values = activations_at(model, x, one.name)[one.name].double()
        assert one.shape == values.shape[1:]
        assert one.mean == pytest.approx(values.mean().item(), rel=1e-5, abs=1e-6)
        assert one.std == pytest.approx(values.std(correction=0).item(), rel=1e-4)
        assert (one.minimum, one.maximum) == (values.min(), values.max())
        if one.minimum >= 0:
            assert one.zero_share == pytest.approx((values == 0).double().mean().item())
            channels = values.abs().amax([d for d in range(values.ndim) if d != 1])
            assert one.dead_channels == (channels == 0).sum()
        else:
            assert one.zero_share is None


def test_statistics_of_large_and_odd_outputs():
    """More than one chunk; channels-last memory; a dead channel; half precision."""
    x = torch.randn(4, 3, 200, 200).to(memory_format=torch.channels_last)
    x[:, 1] = -1
    model = nn.Sequential(nn.ReLU(), nn.Flatten(0), nn.Identity())
    result = {one.name: one for one in activation_statistics(model, x)}
    assert result["0"].dead_channels == 1
    assert result["0"].mean == pytest.approx(x.clamp(min=0).mean().item(), rel=1e-5)
    assert result["1"].dead_channels is None
    half = activation_statistics(nn.Sequential(nn.ReLU()), x.half(), ["0"])[0]
    assert half.mean == pytest.approx(result["0"].mean, rel=1e-2)


def test_folders_go_to_files(tmp_path, shared_run):
    folder = write_folder(tmp_path / "new", count=5)
    (folder / "across" / "broken.png").write_bytes(b"no image")
    kept = st.features(shared_run, folder, ["conv1", "pool2"], batch_size=3)
    assert len(kept.paths) == 10
    assert [skip.reason for skip in kept.skipped] == ["not-an-image"]
    out = tmp_path / "deep" / "rows.safetensors"
    stored = st.features(
        shared_run, [folder], ["conv1", "pool2"], batch_size=4, out=out
    )
    assert stored.shapes == {k: tuple(v.shape) for k, v in kept.items()}
    read = load_file(out)
    assert set(read) == {"conv1", "pool2"}
    for name, tensor in read.items():
        assert torch.allclose(tensor, kept[name], atol=1e-6)
    lines = out.with_suffix(".csv").read_text().splitlines()
    assert lines[0] == "row,image_path"
    assert lines[1:] == [f"{i},{path}" for i, path in enumerate(kept.paths)]
    single = tmp_path / "one.npy"
    st.features(shared_run, folder, "conv1", out=single)
    assert np.allclose(np.load(single), kept["conv1"], atol=1e-6)
    assert not list(tmp_path.rglob(".features*"))


def test_files_are_refused_with_reasons(tmp_path, shared_run):
    folder = write_folder(tmp_path / "new", count=1)
    with pytest.raises(SettingError, match="must be preprocessed"):
        st.features(shared_run.model, folder, "conv1")
    own = Preprocess(channels=1, height=8, width=8, mean=(0.5,), std=(0.2,))
    result = st.features(shared_run.model, folder, "conv1", preprocess=own)
    assert result.shapes["conv1"][0] == 2
    for out, words in (("a.pt", "not '.pt'"), ("a.npy", "has only one layer, got 2")):
        with pytest.raises(SettingError, match=words):
            st.features(shared_run, folder, ["conv1", "relu1"], out=tmp_path / out)
    with pytest.raises(SettingError, match="batch_size"):
        st.features(shared_run, folder, "conv1", batch_size=0)
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(DataError, match="no readable image among 1 file"):
        st.features(shared_run, tmp_path / "text.png", "conv1")
    with pytest.raises(DataError, match="no readable image among 1 file"):
        st.features(shared_run, tmp_path / "text.png", "conv1", out=tmp_path / "b.npy")
    assert not (tmp_path / "b.npy").exists()


def test_rows_of_other_shapes_are_refused(tmp_path):
    with TensorFile(tmp_path / "c.npy", ["0"]) as file:
        file.add({"0": torch.zeros(1, 1, 2, 2)})
        with pytest.raises(SettingError, match="0 changed from"):
            file.add({"0": torch.zeros(1, 1, 3, 3)})
    assert not list(tmp_path.iterdir())
