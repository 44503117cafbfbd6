"""`st.create_model` takes what `--model` takes: a name, a Python file, or a sketch."""

from pathlib import Path

import pytest
import torch

import striate as st
from striate.core.errors import GeometryError, SettingError, UnknownNameError
from striate.run.build_network import build_network

SKETCH = "8x8x1 > conv 3x3 4 > bn > relu > pool 2 > dense 3"
NET = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes=10, in_chans=2, width=4):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, width, 3)
        self.head = nn.LazyLinear(num_classes)
    def forward(self, x):
        return self.head(self.conv(x).flatten(1))
"""
NAMES = "tutorial_gray", "net.py", "net.py:Net(width=7)", SKETCH
SIZES = {"num_classes": 3, "in_chans": 1, "image_size": (8, 8)}


@pytest.fixture(autouse=True)
def net_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_the_command_line(name):
    state = torch.get_rng_state()
    model = st.create_model(name, **SIZES, seed=5)
    weights = build_network(name, **SIZES, seed=5).state_dict()
    assert model.state_dict().keys() == weights.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key]), key
    assert torch.equal(torch.get_rng_state(), state)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_sizes_that_are_not_given_are_those_of_the_network():
    assert st.create_model("net.py", image_size=8).conv.in_channels == 2
    assert st.create_model(SKETCH)(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert st.create_model(SKETCH, num_classes=3, image_size=8) is not None
    assert st.create_model("lenet5_modern").fc3.out_features == 10


@pytest.mark.parametrize(
    ("sizes", "message", "fix"),
    [
        ({"num_classes": 5}, "3 outputs, but num_classes is 5", "> dense 5"),
        ({"image_size": 9}, "begins with 8x8x1, but .* 9x9x1", "leave out"),
        ({"in_chans": 3}, "begins with 8x8x1, but .* 8x8x3", "leave out"),
    ],
)
def test_a_sketch_with_other_sizes_is_an_error_with_both(sizes, message, fix):
    with pytest.raises(SettingError, match=message) as caught:
        st.create_model(SKETCH, **sizes)
    assert fix in caught.value.fix


def test_outputs_of_a_sketch_that_ends_in_maps_are_named():
    with pytest.raises(SettingError, match="4×6×6 outputs, but num_classes is 2"):
        st.create_model("8x8x1 > conv 3x3 4", num_classes=2)


def test_lazy_layers_need_a_size():
    with pytest.raises(SettingError, match="lazy layer head needs the size") as caught:
        st.create_model("net.py")
    assert "image_size" in caught.value.fix
    with pytest.raises(GeometryError, match="fails on images of 2×2×2"):
        st.create_model("net.py", image_size=2)


def test_a_wrong_name_is_answered_with_all_forms():
    with pytest.raises(UnknownNameError, match="no network is called") as caught:
        st.create_model("tutorial_grey")
    assert "did you mean tutorial_gray" in caught.value.fix
    assert "file.py:Class" in caught.value.fix


def test_a_built_network_trains(tmp_path):
    model = st.create_model("8x8x1 > conv 3x3 4 > relu > dense 10", seed=0)
    data = st.load_data("digits", fraction=0.2)
    run = st.train(model, data, epochs=1, out=tmp_path / "run", quiet=True)
    assert run.evaluate().accuracy > 0
