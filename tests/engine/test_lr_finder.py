"""Learning-rate finder: it changes nothing, and ends when the loss diverges."""

import copy
import random
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from striate.engine.lr_finder import MAX_LR, MIN_LR, LRPoint, lr_range_test, suggest_lr
from striate.engine.optim import make_optimizer
from support.small_run import batches, network


def adamw(model):
    return make_optimizer(model, "adamw", 1.0, 0.9, 0.01)


def test_range_test_changes_neither_model_nor_rng_state():
    model = network().train()
    model[4].eval()
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    modes = [m.training for m in model.modules()]
    points = lr_range_test(model, adamw, batches(), F.cross_entropy, steps=30)
    assert len(points) > 5
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()
    assert [m.training for m in model.modules()] == modes


def test_range_test_is_deterministic():
    first, second = (
        lr_range_test(network(), adamw, batches(), F.cross_entropy, steps=20)
        for _ in range(2)
    )
    assert first == second


def test_rates_rise_until_the_loss_diverges():
    def sgd(model):
        return make_optimizer(model, "sgd", 1.0, 0.9, 0.0)

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    def noise(epoch):
        return ((x, torch.arange(len(x)) % 2) for x, _ in batches()(epoch))

    points = lr_range_test(model, sgd, noise, F.cross_entropy)
    assert points[0].lr == MIN_LR
    ratios = {round(b.lr / a.lr, 6) for a, b in pairwise(points)}
    assert len(ratios) == 1
    assert points[-1].lr < MAX_LR
    assert points[-1].loss > 1.5 * points[0].loss


def test_nonfinite_loss_ends_the_range_test():
    class Explodes(nn.Linear):
        def forward(self, x):
            out = super().forward(x)
            return out / 0 if self.bias.abs().max() > 1 else out

    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Explodes(16, 2))
    points = lr_range_test(model, adamw, batches(), F.cross_entropy)
    assert 0 < len(points) < 100


def test_no_suggestion_if_the_loss_never_falls():
    assert suggest_lr([]) is None
    flat = [LRPoint(lr=lr, loss=2.3) for lr in (0.001, 0.01, 0.1)]
    assert suggest_lr(flat) is None
