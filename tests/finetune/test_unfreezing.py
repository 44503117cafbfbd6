"""Behind the cut: rates fall with depth, stages thaw in turn, statistics stay."""

import pytest
import torch
from torch import nn

from striate.core.errors import SettingError, UnknownNameError
from striate.engine.callbacks import EpochResult
from striate.engine.optim import make_optimizer, set_lr
from striate.finetune.cut_points import stages
from striate.finetune.freeze import freeze, frozen, hold_statistics
from striate.finetune.split_model import cut_at, probe
from striate.finetune.unfreezing import (
    FROZEN,
    Depth,
    Thaw,
    Tuning,
    adapt_statistics,
    learning,
)


def network():
    """Three blocks with batch norm and a head; the cut is behind the first."""
    blocks = [
        nn.Sequential(nn.Conv2d(c, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
        for c in (1, 2, 2)
    ]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(32, 2))
    x = probe((1, 4, 4))
    return model, cut_at(model, x, "0"), stages(model, x)


def depth(kept=(), **tuning):
    model, cut, parts = network()
    freeze(model, (*cut.body, *kept))
    behind = learning(model, parts, cut)
    how = Tuning(**tuning)
    return cut, Depth(model=model, stages=behind, tuning=how, kept=kept)


def learns(of):
    """Return the names of the layers with a parameter that learns."""
    named = of.model.named_parameters()
    return sorted({n.rpartition(".")[0] for n, p in named if p.requires_grad})


def done(epoch):
    return EpochResult(
        epoch=epoch,
        train_loss=1.0,
        val_loss=1.0,
        val_accuracy=0.5,
        val_balanced_accuracy=0.5,
        lr=0.1,
        best=False,
    )


def test_the_rate_falls_with_depth():
    cut, of = depth(lr_decay=0.5)
    assert [stage.name for stage in of.stages] == ["1", "2", "4"]
    optimizer = make_optimizer(cut.tail, "adamw", 0.8, 0.9, 0.01, of.scales())

    def rates():
        modules = of.model.named_parameters()
        names = {id(p): name for name, p in modules}
        groups = optimizer.param_groups
        return {names[id(p)]: g["lr"] for g in groups for p in g["params"]}

    expected = {"4": 0.8, "2.0": 0.4, "2.1": 0.4, "1.0": 0.2, "1.1": 0.2}
    assert {n.rpartition(".")[0]: rate for n, rate in rates().items()} == expected
    set_lr(optimizer, 0.4)
    assert rates()["1.0.weight"] == pytest.approx(0.1)
    decayed = {g["weight_decay"] for g in optimizer.param_groups}
    assert decayed == {0.0, 0.01}


def test_a_slower_stage_moves_less():
    cut, of = depth(lr_decay=0.01)
    before = {n: p.detach().clone() for n, p in of.model.named_parameters()}
    optimizer = make_optimizer(cut.tail, "adam", 0.1, 0.9, 0.0, of.scales())
    of.model(torch.randn(4, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    moved = {n: (p - before[n]).abs().max() for n, p in of.model.named_parameters()}
    assert moved["0.0.weight"] == 0
    assert moved["4.weight"] > 50 * moved["2.0.weight"] > 0


def test_stages_thaw_from_the_head_down():
    _, of = depth(unfreeze=2)
    thaw = Thaw(of)
    assert learns(of) == ["4"]
    seen = []
    for epoch in range(4):
        thaw.on_epoch_end(done(epoch))
        seen.append(learns(of))
    second = ["2.0", "2.1", "4"]
    assert seen == [["4"], second, second, ["1.0", "1.1", *second]]


def test_what_the_user_froze_stays_so():
    _, of = depth(kept=("2.0",), unfreeze=1)
    before = frozen(of.model).sha256
    thaw = Thaw(of)
    assert frozen(of.model).sha256 != before
    thaw.end()  # learning ended early
    assert learns(of) == ["1.0", "1.1", "2.1", "4"]
    assert frozen(of.model).sha256 == before


def test_filters_that_never_learn_stay_so_when_a_stage_thaws():
    _, of = depth(unfreeze=1)
    of.model[1][0].requires_grad_(False)
    thaw = Thaw(of)
    thaw.end()
    assert learns(of) == ["1.1", "2.0", "2.1", "4"]


def test_statistics_that_are_frozen_stay_so_when_a_stage_thaws():
    cut, of = depth(unfreeze=1, batch_norm=FROZEN)
    hold_statistics(cut.tail)
    thaw = Thaw(of)
    for epoch in range(3):
        thaw.on_epoch_end(done(epoch))
        of.model.train()
        of.model(torch.randn(4, 1, 4, 4) + 5)
    norms = [m for m in of.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.running_mean.abs().max() == 0 for norm in norms)
    assert norms[-1].weight.requires_grad


def test_what_cannot_be():
    for wrong in ({"lr_decay": 0.0}, {"lr_decay": 1.5}, {"unfreeze": -1}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
            Tuning(**wrong)
    with pytest.raises(UnknownNameError, match="no batch-norm mode is called 'of'"):
        Tuning(batch_norm="of")


def test_norms_adapt_before_anything_learns():
    """What is judged then is what a step would see, dropout aside."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 5, 5, generator=draw) * 4 + 9
    tail = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    tail.append(nn.Dropout(0.5))
    before = [parameter.clone() for parameter in tail.parameters()]
    assert adapt_statistics(tail.train(), x.split(32)) == 2
    assert [module.training for module in tail] == [True] * 4
    assert [tail[0].momentum, tail[2].momentum] == [0.1, 0.1]
    assert all(map(torch.equal, before, tail.parameters()))
    means = torch.stack([part.mean((0, 2, 3)) for part in x.split(32)]).mean(0)
    assert torch.allclose(tail[0].running_mean, means, rtol=1e-6)
    with torch.no_grad():
        judged, seen = tail.eval()(x), tail[:3].train()(x)
    assert (judged - seen).abs().max() < 0.05


def test_a_batch_that_fails_leaves_everything_as_it_was():
    tail = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), nn.BatchNorm2d(3).eval())
    tail[0].running_mean.fill_(2.0)
    before = {name: tensor.clone() for name, tensor in tail.state_dict().items()}
    broken = [torch.ones(4, 3, 2, 2), torch.ones(4, 5, 2, 2)]
    with pytest.raises(RuntimeError):
        adapt_statistics(tail, broken)
    assert [module.training for module in tail] == [True, True, False]
    assert tail.training
    assert [tail[0].momentum, tail[2].momentum] == [0.1, 0.1]
    assert all(torch.equal(v, before[k]) for k, v in tail.state_dict().items())


def test_held_norms_do_not_adapt():
    tail = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1))
    freeze(tail, "0")
    x = torch.full((2, 1, 2, 2), 7.0)
    assert adapt_statistics(tail, [x]) == 1
    means = [norm.running_mean.item() for norm in tail]
    assert means == pytest.approx([0, 7], rel=1e-4)
    hold_statistics(tail)
    assert adapt_statistics(tail, [x * 2]) == 0
    assert [norm.running_mean.item() for norm in tail] == means
    assert adapt_statistics(nn.BatchNorm2d(1, track_running_stats=False), [x]) == 0
