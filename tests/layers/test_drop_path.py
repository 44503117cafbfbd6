"""Stochastic depth: which branches, how often, and nothing while judging."""

import pytest
import torch

from striate.core.errors import SettingError
from striate.layers.drop_path import DropPath, set_drop_path
from striate.run.create_model import create_model


def test_a_branch_is_left_out_as_often_as_said_and_keeps_its_mean():
    torch.manual_seed(0)
    out = DropPath(0.3)(torch.ones(20_000, 1, 2, 2))
    per_picture = out.flatten(1)
    assert (per_picture == per_picture[:, :1]).all()
    assert float((per_picture[:, 0] == 0).float().mean()) == pytest.approx(
        0.3, abs=0.02
    )
    assert float(out.mean()) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("name", ["cifar_resnet20", "mobilenet_v2"])
def test_it_rises_to_the_last_block_and_changes_no_name(name):
    model = create_model(name, seed=0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    set_drop_path(model, 0.2)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == 0.2
    assert model.state_dict().keys() == before.keys()
    x = torch.randn(2, 3, 32, 32)
    twin = create_model(name, seed=0)
    assert torch.equal(model.eval()(x), twin.eval()(x))
    torch.manual_seed(0)
    assert not torch.equal(model.train()(x), twin.train()(x))


def test_set_twice_is_set_once():
    model = create_model("cifar_resnet20")
    set_drop_path(model, 0.2)
    set_drop_path(model, 0.5)
    rates = [m.rate for m in model.modules() if isinstance(m, DropPath)]
    assert len(rates) == 9
    assert rates[-1] == 0.5


def test_no_branch_no_switch():
    with pytest.raises(SettingError, match="the network has none"):
        set_drop_path(create_model("tutorial_gray"), 0.1)
