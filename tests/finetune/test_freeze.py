"""Freezing: weights and statistics of every network with batch norm, in any loop."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from striate.core.aux_heads import total_loss
from striate.core.errors import SettingError, UnknownNameError, WeightsError
from striate.finetune.freeze import (
    check_frozen,
    freeze,
    freeze_stats_of_frozen,
    frozen_layers,
    unfreeze,
)
from striate.models.catalogue import list_models, model_entry
from striate.run.create_model import create_model

QUICK = ("cifar_resnet20", "mobilenet_v2", "fast_small", "googlenet_bn_no_aux")
SIDES = {"vgg": 32, "googlenet": 64, "cifar": 32, "fast_small": 12}


# Of the catalogue's networks, by their names: to build all of them takes seconds.
WITHOUT_NORM = ("alexnet", "lenet", "tutorial", "vgg", "googlenet")
NORMED = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in list_models()
    if "_bn" in name or not name.startswith(WITHOUT_NORM)
]


@pytest.mark.slow
def test_every_network_with_batch_norm_is_tested():
    normed = set()
    for name in list_models():
        with torch.device("meta"):
            model = create_model(name)
        if any(isinstance(module, _NormBase) for module in model.modules()):
            normed.add(name)
    assert {param.values[0] for param in NORMED} == normed


def cheap(name):
    """Build a network for three classes with weights that cost nothing to draw."""
    side = next((s for start, s in SIDES.items() if name.startswith(start)), 64)
    entry = model_entry(name)
    image = type(entry.image)(channels=entry.image.channels, height=side, width=side)
    with torch.device("meta"):
        model = entry.build(image, 3)
    model = model.to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            small = torch.rand(997, generator=draw).mul_(0.02).add_(0.01)
            tensor.copy_(
                small.repeat(-(-tensor.numel() // 997))[: tensor.numel()].view(
                    tensor.shape
                )
            )
    return model, torch.rand(2, *image.shape, generator=draw)


def one_step(model, x):
    """Train as an ordinary loop does, without any care for frozen layers."""
    model.train()
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1, weight_decay=0.1)
    y = torch.tensor([0, 2])
    total_loss(nn.functional.cross_entropy, model(x), y).backward()
    optimizer.step()


@pytest.mark.parametrize("name", NORMED)
def test_frozen_in_every_network_with_batch_norm(name):
    model, x = cheap(name)
    before_step = {n: t.clone() for n, t in model.state_dict().items()}
    heads = tuple(f"{name}." for name in model.classifiers)
    layers = [n for n, m in model.named_modules() if n and not any(m.children())]
    before = freeze(model, [n for n in layers if not f"{n}.".startswith(heads)])
    one_step(model, x)
    assert frozen_layers(model) == before
    check_frozen(model, before.sha256)
    moved = {
        n for n, t in model.state_dict().items() if not torch.equal(t, before_step[n])
    }
    assert moved  # the head was trained
    assert all(n.startswith(heads) for n in moved)


def test_requires_grad_alone_lets_batch_norm_drift():
    """What most tutorials do: the test above would find it."""
    model, x = cheap("cifar_resnet20")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    before = model.bn1.running_mean.clone()
    one_step(model, x)
    assert not torch.equal(model.bn1.running_mean, before)


def test_statistics_of_layers_frozen_by_requires_grad():
    model, x = cheap("cifar_resnet20")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("fc."))
    before = freeze_stats_of_frozen(model)
    one_step(model, x)
    assert frozen_layers(model) == before


def test_a_half_frozen_batch_norm_keeps_its_mode():
    norm = nn.BatchNorm2d(2)
    norm.weight.requires_grad_(False)
    assert freeze_stats_of_frozen(nn.Sequential(norm, nn.Linear(1, 1))).parameters == 2
    assert norm.train().training


def test_batch_norm_without_parameters_is_frozen_by_name():
    model = nn.Sequential(nn.BatchNorm1d(2, affine=False), nn.Linear(2, 3))
    before = freeze(model, "0")
    one_step(model, torch.rand(2, 2))
    assert frozen_layers(model) == before


def test_the_rest_of_the_network_still_trains():
    model, _ = cheap("cifar_resnet20")
    freeze(model, ["conv1", "bn1", "layer1"])
    model.train()
    assert model.training
    assert model.layer2.training
    assert not model.bn1.training
    norms = [m for m in model.layer1.modules() if isinstance(m, _NormBase)]
    assert not any(module.training for module in norms)
    assert not any(module.training for module in model.eval().modules())


def test_a_copy_stays_frozen_when_the_original_is_unfrozen():
    model, x = cheap("cifar_resnet20")
    before = freeze(model, ["conv*", "bn*"])
    twin = copy.deepcopy(model)
    unfreeze(model)
    one_step(twin, x)
    assert frozen_layers(twin) == before
    assert frozen_layers(model).layers == ()
    one_step(model, x)
    assert not torch.equal(model.bn1.running_mean, twin.bn1.running_mean)


def test_tied_weights_count_once():
    first, second = (nn.Linear(3, 3, bias=False) for _ in range(2))
    second.weight = first.weight
    model = nn.Sequential(first, second, nn.Linear(3, 2))
    assert freeze(model, ["0", "1"]).parameters == 9


def test_the_hash_changes_with_a_single_bit():
    model, _ = cheap("cifar_resnet20")
    before = freeze(model, ["conv*", "bn*"])
    assert frozen_layers(model.to(memory_format=torch.channels_last)) == before
    model.bn1.running_var[3] = torch.nextafter(
        model.bn1.running_var[3], torch.tensor(9.0)
    )
    with pytest.raises(WeightsError, match=f"hash was {before.sha256[:16]}"):
        check_frozen(model, before.sha256)


def test_a_pattern_without_match_names_the_nearest_layer():
    model, _ = cheap("mobilenet_v2")
    with pytest.raises(
        UnknownNameError, match="no layer matches 'fetures\\*'"
    ) as caught:
        freeze(model, ["features.0", "fetures*"])
    assert "did you mean features" in caught.value.fix
    assert all(p.requires_grad for p in model.parameters())


def test_freezing_all_layers_is_refused():
    model, _ = cheap("cifar_resnet20")
    with pytest.raises(SettingError, match="no layer is left to train") as caught:
        freeze(model, "*")
    assert "omit one, such as fc" in caught.value.fix
    assert all(p.requires_grad for p in model.parameters())
    assert model.bn1.train().training
