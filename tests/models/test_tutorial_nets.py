"""The networks of the study notes: mission rows A12, B2 and B3."""

import pytest
import torch

from striate.audit.network import audit
from striate.core.errors import SettingError, UnknownNameError
from striate.models.catalogue import catalogue_rows, list_models
from striate.run.create_model import create_model


def test_gray_shapes_and_counts():
    """4×28×28×1 → 4×28×28×25 → 4×14×14×25 → 4×14×14×50 → 4×7×7×50 → 4×2450."""
    model = create_model("tutorial_gray")
    layers = {layer.name: layer for layer in audit(model, (1, 28, 28)).layers}
    assert [
        layers[n].output for n in ("conv1", "pool1", "conv2", "pool2", "flatten")
    ] == [
        (25, 28, 28),
        (25, 14, 14),
        (50, 14, 14),
        (50, 7, 7),
        (2450,),
    ]
    assert layers["conv1"].parameters == 250
    assert layers["conv2"].parameters == 11_300
    assert model(torch.zeros(4, 1, 28, 28)).shape == (4, 10)


def test_color_shapes_and_counts():
    model = create_model("tutorial_color")
    layers = {layer.name: layer for layer in audit(model, (3, 32, 32)).layers}
    assert [layers[f"conv{i}"].output for i in (1, 2, 3)] == [
        (36, 32, 32),
        (72, 16, 16),
        (144, 8, 8),
    ]
    assert layers["pool3"].output == (144, 4, 4)
    assert layers["flatten"].output == (2_304,)
    assert layers["fc1"].output == (576,)
    assert sum(layer.parameters for layer in layers.values()) == 1_451_314
    rates = {
        n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)
    }
    assert rates == {
        "dropout1": 0.25,
        "dropout2": 0.25,
        "dropout3": 0.25,
        "dropout4": 0.5,
    }


def test_the_catalogue():
    names = list_models()
    assert names[:2] == ["lenet5", "lenet5_modern"]
    assert names.index("tutorial_gray") + 1 == names.index("tutorial_color")
    rows = {row["name"]: row for row in catalogue_rows()}
    assert rows["tutorial_gray"]["input"] == "28×28×1"
    assert rows["tutorial_color"]["parameters"] == 1_451_314
    assert all(row["what"] for row in rows.values())


def test_wrong_requests():
    with pytest.raises(UnknownNameError, match="did you mean tutorial_gray"):
        create_model("tutorial_grey")
    with pytest.raises(SettingError, match="needs at least one class, got 0"):
        create_model("lenet5", num_classes=0)
    for wrong in ({"image_size": 0}, {"in_chans": 0}, {"image_size": (8, -1)}):
        with pytest.raises(SettingError, match="must be at least 1"):
            create_model("tutorial_gray", **wrong)


def test_seeds():
    state = torch.get_rng_state()
    one, two, three = (create_model("tutorial_gray", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.conv1.weight, two.conv1.weight)
    assert not torch.equal(one.conv1.weight, three.conv1.weight)
    torch.manual_seed(5)
    first = create_model("tutorial_gray").conv1.weight
    assert not torch.equal(first, create_model("tutorial_gray").conv1.weight)
