"""LeNet-5 against the paper's table, and that it learns."""

import pytest
import torch

import striate as st
from striate.audit.network import audit
from striate.run.create_model import create_model

PAPER = {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164}


def test_the_papers_60_000():
    model = create_model("lenet5")
    layers = {layer.name: layer for layer in audit(model, (1, 32, 32)).layers}
    counts = {
        name: layer.parameters for name, layer in layers.items() if layer.parameters
    }
    assert counts == PAPER
    assert sum(p.numel() for p in model.parameters()) == 60_000
    shapes = {name: layers[name].output for name in (*PAPER, "output")}
    assert shapes == {
        "c1": (6, 28, 28),
        "s2": (6, 14, 14),
        "c3": (16, 10, 10),
        "s4": (16, 5, 5),
        "c5": (120, 1, 1),
        "f6": (84,),
        "output": (10,),
    }


def test_the_modern_61_706():
    model = create_model("lenet5_modern")
    assert sum(p.numel() for p in model.parameters()) == 61_706
    layers = {layer.name: layer for layer in audit(model, (1, 28, 28)).layers}
    assert layers["pool2"].output == (16, 5, 5)
    assert [layers[n].parameters for n in ("conv1", "conv2", "fc1", "fc2", "fc3")] == [
        156,
        2_416,
        48_120,
        10_164,
        850,
    ]


@pytest.mark.parametrize("name", ["lenet5", "lenet5_modern"])
@pytest.mark.parametrize(("chans", "size", "classes"), [(3, (33, 40), 2), (1, 64, 26)])
def test_other_pictures_and_classes(name, chans, size, classes):
    model = create_model(name, in_chans=chans, image_size=size, num_classes=classes)
    height, width = (size, size) if isinstance(size, int) else size
    assert model(torch.zeros(2, chans, height, width)).shape == (2, classes)


def test_initial_weights_lie_within_the_papers_bound():
    model = create_model("lenet5", seed=1)
    bound = 2.4 / 25
    assert model.c1.weight.abs().max() <= bound
    assert model.c1.weight.abs().max() > 0.9 * bound
    assert model.f6.bias.eq(0).all()


def test_lenet5_learns_digits():
    """The paper's own net, by the engine alone, on digits enlarged to 32×32."""
    from striate.data.batches import Batches
    from striate.engine.optim import make_optimizer
    from striate.engine.schedule import SCHEDULES
    from striate.engine.training_loop import FitConfig, fit

    data = st.load_data("digits", image_size=32)
    model = create_model("lenet5", num_classes=10, in_chans=1, seed=0)
    train, val = (
        Batches(subset=data.subset(p), preprocess=data.preprocess, batch_size=32)
        for p in ("train", "val")
    )
    optimizer = make_optimizer(model, "adamw", 3e-3, 0.9, 0.01)
    plan = FitConfig(epochs=4, lr=3e-3, schedule=SCHEDULES["one_cycle"])
    history = fit(model, optimizer, train, val, plan)
    assert history[-1].val_accuracy > 0.9
