"""Training of networks as users write them: trained, or refused before any file."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import striate as st
from striate.core.errors import GeometryError, SettingError
from support.unusual_networks import FrozenBackbone, Plain, Returns

SETTINGS = {"epochs": 1, "quiet": True, "batch_size": 8, "layout": "nchw"}


def toy():
    """Bright and dark images; the networks of the tests have four outputs."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(16) % 4
    images = (
        torch.rand(16, 3, 8, 8, generator=draw) * 0.2 + labels.view(-1, 1, 1, 1) / 5
    )
    return TensorDataset(images, labels)


def trained(model, out, **settings):
    return st.train(model, toy(), toy(), out=out, **SETTINGS | settings)


@pytest.mark.parametrize(
    ("form", "only_training"),
    [("tuple", False), ("dict", False), ("named tuple", True), ("tuple", True)],
)
def test_logits_are_taken_from_containers(form, only_training, tmp_path):
    run = trained(Returns(form, only_training), tmp_path / "run", seed=1)
    plain = trained(Returns("tensor"), tmp_path / "plain", seed=1)
    assert run.scores["val"]["loss"] == pytest.approx(plain.scores["val"]["loss"])


@pytest.mark.parametrize("only_training", [False, True])
def test_an_unclear_output_is_refused_before_anything_is_written(
    only_training, tmp_path
):
    with pytest.raises(GeometryError, match="a dict with a, b"):
        trained(Returns("unclear", only_training), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_frozen_backbone_under_no_grad(tmp_path):
    model = FrozenBackbone()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    trained(model, tmp_path / "run")
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_on_while_training(mode, tmp_path):
    expected = trained(Plain(), tmp_path / "expected", seed=1)
    model = Plain()
    with mode():
        run = trained(model, tmp_path / "run", seed=1)
        assert not torch.is_grad_enabled()
    assert run.scores["val"]["loss"] == expected.scores["val"]["loss"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_refused_with_the_way_out(dtype, tmp_path):
    with pytest.raises(SettingError, match="images are float32") as error:
        trained(Plain().to(dtype), tmp_path / "run")
    assert "model.float()" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_weights_of_inference_mode_are_refused(tmp_path):
    with torch.inference_mode():
        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    with pytest.raises(SettingError, match="made in torch"):
        trained(model, tmp_path / "run")
