"""Discriminative learning rates, gradual unfreezing and batch norm statistics."""

import pytest
import torch
from torch import nn

from striate.core.errors import SettingError, UnknownNameError
from striate.engine.callbacks import EpochResult
from striate.engine.optim import make_optimizer, set_lr
from striate.finetune.batch_norm import (
    FROZEN,
    adapt_batch_norm,
    freeze_batch_norm_stats,
)
from striate.finetune.cut_points import find_stages
from striate.finetune.discriminative_lr import (
    FineTuneConfig,
    TrainableStages,
    stages_behind,
)
from striate.finetune.freeze import freeze, frozen_layers
from striate.finetune.split_model import cut_at, probe_batch
from striate.finetune.unfreezing import GradualUnfreezing


def network():
    """Three blocks with batch norm and a head; the cut is behind the first."""
    blocks = [
        nn.Sequential(nn.Conv2d(c, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
        for c in (1, 2, 2)
    ]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 2))
    x = probe_batch((1, 4, 4))
    return model, cut_at(model, x, "0"), find_stages(model, x)


def trainable(always_frozen=(), **settings):
    model, cut, all_stages = network()
    freeze(model, (*cut.backbone, *always_frozen))
    return cut, TrainableStages(
        model=model,
        stages=stages_behind(model, all_stages, cut),
        config=FineTuneConfig(**settings),
        always_frozen=always_frozen,
    )


def trained_layers(stages):
    """Return the names of the layers with a trainable parameter."""
    named = stages.model.named_parameters()
    return sorted({n.rpartition(".")[0] for n, p in named if p.requires_grad})


def epoch_done(epoch):
    return EpochResult(
        epoch=epoch,
        train_loss=1.0,
        val_loss=1.0,
        val_accuracy=0.5,
        val_balanced_accuracy=0.5,
        lr=0.1,
        best=False,
    )


def test_the_learning_rate_falls_with_depth():
    cut, stages = trainable(layer_decay=0.5)
    assert [stage.name for stage in stages.stages] == ["1", "2", "4"]
    optimizer = make_optimizer(cut.head, "adamw", 0.8, 0.9, 0.01, stages.lr_scales())

    def rates():
        modules = stages.model.named_parameters()
        names = {id(p): name for name, p in modules}
        groups = optimizer.param_groups
        return {names[id(p)]: g["lr"] for g in groups for p in g["params"]}

    expected = {"4": 0.8, "2.0": 0.4, "2.1": 0.4, "1.0": 0.2, "1.1": 0.2}
    assert {n.rpartition(".")[0]: rate for n, rate in rates().items()} == expected
    set_lr(optimizer, 0.4)
    assert rates()["1.0.weight"] == pytest.approx(0.1)
    decayed = {g["weight_decay"] for g in optimizer.param_groups}
    assert decayed == {0.0, 0.01}


def test_a_lower_learning_rate_moves_weights_less():
    cut, stages = trainable(layer_decay=0.01)
    before = {n: p.detach().clone() for n, p in stages.model.named_parameters()}
    optimizer = make_optimizer(cut.head, "adam", 0.1, 0.9, 0.0, stages.lr_scales())
    stages.model(torch.randn(4, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    moved = {n: (p - before[n]).abs().max() for n, p in stages.model.named_parameters()}
    assert moved["0.0.weight"] == 0
    assert moved["4.weight"] > 50 * moved["2.0.weight"] > 0


def test_stages_are_unfrozen_from_the_head_down():
    _, stages = trainable(unfreeze=2)
    unfreezing = GradualUnfreezing(stages)
    assert trained_layers(stages) == ["4"]
    layers = []
    for epoch in range(1, 5):
        unfreezing.on_epoch_end(epoch_done(epoch))
        layers.append(trained_layers(stages))
    second = ["2.0", "2.1", "4"]
    assert layers == [["4"], second, second, ["1.0", "1.1", *second]]


def test_layers_frozen_by_the_user_stay_frozen():
    _, stages = trainable(always_frozen=("2.0",), unfreeze=1)
    before = frozen_layers(stages.model).sha256
    unfreezing = GradualUnfreezing(stages)
    assert frozen_layers(stages.model).sha256 != before
    unfreezing.end()  # training ended early
    assert trained_layers(stages) == ["1.0", "1.1", "2.1", "4"]
    assert frozen_layers(stages.model).sha256 == before


def test_fixed_filters_stay_fixed_when_their_stage_is_unfrozen():
    _, stages = trainable(unfreeze=1)
    stages.model[1][0].requires_grad_(False)
    unfreezing = GradualUnfreezing(stages)
    unfreezing.end()
    assert trained_layers(stages) == ["1.1", "2.0", "2.1", "4"]


def test_frozen_statistics_stay_frozen_when_their_stage_is_unfrozen():
    cut, stages = trainable(unfreeze=1, batch_norm=FROZEN)
    freeze_batch_norm_stats(cut.head)
    unfreezing = GradualUnfreezing(stages)
    for epoch in range(3):
        unfreezing.on_epoch_end(epoch_done(epoch))
        stages.model.train()
        stages.model(torch.randn(4, 1, 4, 4) + 5)
    norms = [m for m in stages.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().max() == 0 for norm in norms)
    assert norms[-1].weight.requires_grad


def test_invalid_settings_are_refused():
    for wrong in ({"layer_decay": 0.0}, {"layer_decay": 1.5}, {"unfreeze": -1}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
            FineTuneConfig(**wrong)
    with pytest.raises(UnknownNameError, match="no batch-norm mode is called 'of'"):
        FineTuneConfig(batch_norm="of")


def test_adapted_batch_norm_gives_the_outputs_of_training():
    """Evaluation mode then equals training mode, apart from dropout."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 5, 5, generator=draw) * 4 + 9
    head = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    head.append(nn.Dropout(0.5))
    before = [parameter.clone() for parameter in head.parameters()]
    assert adapt_batch_norm(head.train(), x.split(32)) == 2
    assert [module.training for module in head] == [True] * 4
    assert [head[0].momentum, head[2].momentum] == [0.1, 0.1]
    assert all(map(torch.equal, before, head.parameters()))
    means = torch.stack([part.mean((0, 2, 3)) for part in x.split(32)]).mean(0)
    assert torch.allclose(head[0].running_mean, means, rtol=1e-6)
    with torch.no_grad():
        evaluated, trained = head.eval()(x), head[:3].train()(x)
    assert (evaluated - trained).abs().max() < 0.05


def test_a_failing_batch_restores_everything():
    head = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3).eval())
    head[0].running_mean.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    broken = [torch.ones(4, 3, 2, 2), torch.ones(4, 5, 2, 2)]
    with pytest.raises(RuntimeError):
        adapt_batch_norm(head, broken)
    assert [module.training for module in head] == [True, True, False]
    assert head.training
    assert [head[0].momentum, head[2].momentum] == [0.1, 0.1]
    assert all(torch.equal(v, before[k]) for k, v in head.state_dict().items())


def test_frozen_batch_norm_does_not_adapt():
    head = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1))
    freeze(head, "0")
    x = torch.full((2, 1, 2, 2), 7.0)
    assert adapt_batch_norm(head, [x]) == 1
    means = [norm.running_mean.item() for norm in head]
    assert means == pytest.approx([0, 7], rel=1e-4)
    freeze_batch_norm_stats(head)
    assert adapt_batch_norm(head, [x * 2]) == 0
    assert [norm.running_mean.item() for norm in head] == means
    assert adapt_batch_norm(nn.BatchNorm2d(1, track_running_stats=False), [x]) == 0
