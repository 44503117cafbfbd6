"""Fused modules compute the same as torch's own, and are removed afterwards."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from striate.core.hooks import trace_modules
from striate.engine.fused_modules import FusedModules, dropout_factors
from striate.engine.recoverable_step import RecoverableStep
from striate.run.create_model import create_model

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def gradients(model, x, fused):
    model.zero_grad()
    x = x.clone().requires_grad_()
    with FusedModules(model, enabled=fused).patched():
        y = model(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad for p in model.parameters())]


@given(
    kernel=st.integers(1, 3),
    stride=st.integers(1, 4),
    pad=st.booleans(),
    ceil=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 99),
)
def test_pool_before_relu_is_bit_exact(kernel, stride, pad, ceil, layout, seed):
    """Ties too: many of the maps' values are equal, and many exactly zero."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(-2, 3, (2, 3, 9, 8), generator=draw).float()
    pool = nn.MaxPool2d(kernel, stride, padding=int(pad and kernel > 1), ceil_mode=ceil)
    layers = nn.Conv2d(3, 4, 1), nn.ReLU(), pool, nn.Flatten()
    model = nn.Sequential(*layers).to(memory_format=layout)
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.sign())
        model[0].bias.zero_()
    x = x.contiguous(memory_format=layout)
    pairs = zip(gradients(model, x, True), gradients(model, x, False), strict=True)
    assert all(torch.equal(ours, torchs) for ours, torchs in pairs)


def test_pool_before_relu_passes_nan_and_infinity():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x = torch.tensor([float("nan"), -1, float("inf"), 2]).view(1, 1, 1, 4)
    x = x.repeat(1, 1, 2, 1)
    with FusedModules(model).patched():
        y = model(x)
    assert y.isnan().flatten().tolist() == [True, False]
    assert y.flatten()[1] == float("inf")


@pytest.mark.parametrize("name", ["vgg11", "lenet5_modern", "tutorial_gray"])
def test_fused_modules_train_bit_exactly(name):
    side = 32
    x, y = torch.randn(4, 3, side, side), torch.arange(4)
    losses = []
    for enabled in (True, False):
        model = create_model(name, num_classes=4, in_chans=3, image_size=side, seed=1)
        model = nn.Sequential(*(m for m in model.modules() if not list(m.children())))
        model = nn.Sequential(*(m for m in model if type(m) is not nn.Dropout))
        model.train().to(memory_format=torch.channels_last)
        stepper = RecoverableStep(model, torch.optim.SGD(model.parameters(), 0.1))
        stepper._fused = FusedModules(model, enabled=enabled)
        losses.append([stepper(x, y, step) for step in range(3)])
    assert losses[0] == losses[1]


def test_pool_runs_before_relu(monkeypatch):
    """The guard of the guard: the rectified maps are a quarter of the size."""
    calls = []
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    relu = nn.ReLU.forward
    monkeypatch.setattr(nn.ReLU, "forward", lambda m, x: calls.append(1) or relu(m, x))
    with FusedModules(model).patched():
        model(torch.ones(1, 1, 4, 4))
    assert not calls
    model(torch.ones(1, 1, 4, 4))
    assert calls


def test_gradient_has_the_layout_of_the_maps():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with FusedModules(model).patched():
        model(x).sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flatten_gradient_has_the_layout_of_the_maps(layout):
    calls = []
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(75, 4))
    model.to(memory_format=layout)
    x = torch.randn(2, 2, 7, 7).contiguous(memory_format=layout)
    reference = gradients(model, x, False)
    model[1].register_full_backward_hook(
        lambda *hook_args: calls.append(hook_args[2][0])
    )
    fused = gradients(model, x, True)
    assert all(map(torch.allclose, fused, reference))
    assert torch.equal(fused[0], reference[0])
    assert calls[0].is_contiguous(memory_format=layout)


def test_other_flatten_dims_are_not_replaced():
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    for layer in (nn.Flatten(2), nn.Flatten(1, 2), nn.Flatten(0)):
        with FusedModules(layer).patched():
            assert torch.equal(layer(x), type(layer).forward(layer, x))
            assert "forward" not in vars(layer)


def test_layers_with_hooks_run_as_usual():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x, calls = torch.randn(1, 1, 4, 4), []
    handle = model[0].register_forward_hook(lambda *words: calls.append(words[2]))
    with FusedModules(model).patched():
        model(x)
    assert torch.equal(calls[0], x.relu())
    handle.remove()
    names = []
    with (
        FusedModules(model).patched(),
        trace_modules(model, leave=lambda name, *_: names.append(name)),
    ):
        model(x)
    assert names == ["0", "1", ""]


def test_modules_are_restored_after_an_error():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.5))
    before = [dict(vars(module)) for module in model.modules()]
    too_small = torch.ones(1, 1, 1, 1)
    with pytest.raises(RuntimeError), FusedModules(model).patched():
        model(too_small)
    assert [dict(vars(module)) for module in model.modules()] == before


def test_copy_of_a_patched_model_runs_its_own_layers():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(1))
    with FusedModules(model).patched():
        copied = copy.deepcopy(model)
    with torch.no_grad():
        copied[0].weight.zero_()
        copied[0].bias.fill_(3.0)
    assert copied(torch.ones(1, 1, 1, 1)).item() == 3.0


def test_other_modules_are_not_replaced():
    class OwnSequential(nn.Sequential):
        def forward(self, x):
            return super().forward(x)

    class Leaky(nn.ReLU):
        def forward(self, x):
            return F.leaky_relu(x)

    assert FusedModules(OwnSequential(nn.ReLU(), nn.MaxPool2d(2)))._patches == []
    assert FusedModules(nn.Sequential(Leaky(), nn.MaxPool2d(2)))._patches == []
    indices = nn.MaxPool2d(2, return_indices=True)
    assert FusedModules(nn.Sequential(nn.ReLU(), indices))._patches == []
    own = nn.Dropout(0.5)
    own.forward = lambda x: x
    assert FusedModules(own)._patches == []


def test_maps_without_batch_dimension():
    model = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    x = torch.randn(3, 4, 4)
    with FusedModules(model).patched():
        assert torch.equal(model(x), F.max_pool2d(x.relu(), 2))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_dropout_rate_and_mean(share, layout):
    torch.manual_seed(5)
    x = torch.ones(16, 32, 32, 32).contiguous(memory_format=layout)
    factors = dropout_factors(x, share)
    assert factors.stride() == x.stride()
    count, zeros = x.numel(), (factors == 0).sum().item()
    deviation = (count * share * (1 - share)) ** 0.5
    assert abs(zeros - count * share) < 5 * deviation
    factors_ = factors[factors != 0].unique()
    assert factors_.tolist() == pytest.approx([1 / (1 - share)], rel=1e-4)
    # Neighbors that one random word serves have nothing to do with each other.
    flat = (factors.permute(0, 2, 3, 1).flatten() == 0).double()
    for lag in range(1, 9):
        both_zero = (flat[:-lag] * flat[lag:]).mean().item()
        assert abs(both_zero - share**2) < 6 / count**0.5


def test_dropout_is_seeded_and_off_in_evaluation():
    model = nn.Sequential(nn.Dropout(0.3))
    x = torch.ones(1000)
    with FusedModules(model).patched():
        torch.manual_seed(1)
        first = model(x)
        torch.manual_seed(1)
        assert torch.equal(model(x), first)
        assert not torch.equal(model(x), first)
        model.eval()
        assert torch.equal(model(x), x)


def test_dropout_gradient():
    model = nn.Sequential(nn.Dropout(0.5))
    x = torch.ones(64, requires_grad=True)
    with FusedModules(model).patched():
        y = model(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_factors_at_the_limits():
    assert dropout_factors(torch.ones(0), 0.5).shape == (0,)
    assert (dropout_factors(torch.ones(100), 1e-9) > 0).any()
    assert dropout_factors(torch.ones(1, 1), 1 - 1e-9).shape == (1, 1)
