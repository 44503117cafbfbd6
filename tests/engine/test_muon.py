"""Muon against a float64 reference of the paper and against torch."""

import math

import pytest
import torch
from torch import nn

from striate.engine.muon import Muon, hidden_kernels, orthogonalize
from striate.engine.optim import make_optimizer
from striate.engine.weights_io import OptimizerState


def reference(gradients, weight, lr, momentum, decay):
    """Walk the paper's listing, with Nesterov momentum, step by step."""
    weight, momentum_buffer = (
        weight.double(),
        torch.zeros_like(weight, dtype=torch.float64),
    )
    for gradient in gradients:
        g = gradient.double()
        momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
        x = ((1 - momentum) * g + momentum * momentum_buffer).reshape(len(g), -1)
        flipped = x.shape[0] > x.shape[1]
        x = x.T if flipped else x
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        x = x.T if flipped else x
        scale = 0.2 * math.sqrt(max(x.shape))
        weight = weight * (1 - lr * decay) - lr * scale * x.reshape(weight.shape)
    return weight


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (40, 2, 3, 3)])
def test_muon_against_the_paper(shape, layout):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(shape).to(memory_format=layout))
    gradients = [torch.randn(shape) for _ in range(4)]
    expected = reference(gradients, weight.detach(), 0.03, 0.9, 0.1)
    group = {"params": [weight], "weight_decay": 0.1, "orthogonal": True}
    optimizer = Muon([group], lr=0.03, momentum=0.9)
    for gradient in gradients:
        weight.grad = gradient.to(memory_format=layout)
        optimizer.step()
    assert torch.allclose(weight.double(), expected, atol=1e-5)


def test_muon_against_torch():
    """The outside witness rounds to bfloat16, hence the tolerance."""
    torch.manual_seed(1)
    start, gradients = torch.randn(8, 20), [torch.randn(8, 20) for _ in range(3)]
    muon_weight, torch_weight = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    group = {"params": [muon_weight], "weight_decay": 0.1, "orthogonal": True}
    options = {"lr": 0.05, "weight_decay": 0.1, "adjust_lr_fn": "match_rms_adamw"}
    pairs = [
        (muon_weight, Muon([group], lr=0.05, momentum=0.9)),
        (
            torch_weight,
            torch.optim.Muon([torch_weight], momentum=0.9, nesterov=True, **options),
        ),
    ]
    for gradient in gradients:
        for weight, optimizer in pairs:
            weight.grad = gradient.clone()
            optimizer.step()
    momentum_buffer = (torch_weight - start).abs().mean()
    assert (muon_weight - torch_weight).abs().mean() < 0.02 * momentum_buffer


def test_singular_values_come_near_one():
    torch.manual_seed(2)
    for shape in [(5, 50), (50, 5), (8, 24)]:  # a square one may be near singular
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert 0.2 < values.min() <= values.max() < 1.3


def test_muon_uses_adamw_for_other_parameters():
    """First kernel, head, biases and gains move as AdamW moves them, to the bit."""
    torch.manual_seed(3)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(16, 2))
    twin = nn.Sequential(*[nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)], nn.Linear(16, 2))
    pairs = [(model[0], twin[0]), (model[1], twin[1]), (model[4], twin[2])]
    for layer, other in pairs:
        other.load_state_dict(layer.state_dict())
    muon_weight = make_optimizer(model, "muon", 0.01, 0.9, 0.1)
    torch_weight = make_optimizer(twin, "adamw", 0.01, 0.9, 0.1)
    for _ in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape)
        for layer, other in pairs:
            for a, b in zip(layer.parameters(), other.parameters(), strict=True):
                b.grad = a.grad.clone()
        muon_weight.step()
        torch_weight.step()
    for layer, other in pairs:
        for a, b in zip(layer.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_step_counters_are_on_the_parameters_device():
    """A fused kernel of another device cannot read a counter of this one's memory."""
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)])
    away = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)]).to("meta")
    on_cpu, on_meta = (make_optimizer(m, "muon", 0.1, 0.9, 0.1) for m in (model, away))
    for net, optimizer in ((model, on_cpu), (away, on_meta)):
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    saved = OptimizerState(on_cpu).state_dict()
    resumed = make_optimizer(away, "muon", 0.1, 0.9, 0.1)
    OptimizerState(resumed).load_state_dict(saved)
    for optimizer in (on_meta, resumed):
        state = [v for entries in optimizer.state.values() for v in entries.values()]
        assert len(state) == len(saved)
        assert {value.device.type for value in state} == {"meta"}
    assert sum(name.endswith(".step") for name in saved) == 5


def test_muon_leaves_frozen_kernels():
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    model[1].weight.requires_grad = False
    assert len(hidden_kernels(model)) == 1
    before = model[1].weight.clone()
    optimizer = make_optimizer(model, "muon", 0.1, 0.9, 0.1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(model[1].weight, before)


def test_muon_without_hidden_kernels_is_adamw():
    model = nn.Linear(3, 2)
    optimizer = make_optimizer(model, "muon", 0.1, 0.9, 0.0)
    assert [g["orthogonal"] for g in optimizer.param_groups] == [False, False]
