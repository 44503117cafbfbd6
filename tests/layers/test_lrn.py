"""LRN against the paper's sum written out, torch's layer and numeric gradients."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional as F

from striate.core.errors import SettingError
from striate.layers import lrn as module
from striate.layers.lrn import LRN, lrn

LAYOUTS = (torch.contiguous_format, torch.channels_last)


def by_hand(x, size, alpha, beta, k):
    """The paper's formula, one channel after the other."""
    y = torch.empty_like(x)
    channels = x.shape[1]
    for i in range(channels):
        low, high = max(0, i - size // 2), min(channels, i + (size + 1) // 2)
        squares = x[:, low:high].square().sum(1)
        y[:, i] = x[:, i] / (k + alpha * squares) ** beta
    return y


@pytest.fixture
def draw():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0])
def test_equals_the_papers_sum(draw, layout, size, beta):
    x = torch.randn(3, 7, 5, 4, dtype=torch.float64, generator=draw)
    x = x.to(memory_format=layout)
    got = lrn(x, size, 0.3, beta, 1.5)
    assert torch.allclose(got, by_hand(x, size, 0.3, beta, 1.5), rtol=0, atol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("piece", [1, 100, 1000])
def test_forward_and_backward_equal_torchs_in_pieces(draw, monkeypatch, layout, piece):
    monkeypatch.setattr(module, "CHUNK", piece)
    x = torch.randn(5, 9, 6, 7, generator=draw).double().to(memory_format=layout)
    g = torch.randn(x.shape, generator=draw).double()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = LRN()(ours), F.local_response_norm(theirs, 5, 5e-4, 0.75, 2.0)
    y.backward(g)
    expected.backward(g)
    assert torch.allclose(y, expected, rtol=0, atol=1e-14)
    assert torch.allclose(ours.grad, theirs.grad, rtol=0, atol=1e-14)
    assert y.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 3), (1, 6, 2, 2), (1, 4, 2, 1, 2)])
@pytest.mark.parametrize("size", [4, 5])
def test_gradients(draw, shape, size):
    x = torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
    assert gradcheck(lambda x: lrn(x, size, 0.5, 0.75, 1.0), x)
    assert gradgradcheck(lambda x: lrn(x, size, 0.5, 0.75, 1.0), x)


def test_other_powers_and_their_second_derivative(draw):
    x = torch.randn(1, 5, 2, 2, dtype=torch.float64, generator=draw, requires_grad=True)
    assert gradgradcheck(lambda x: lrn(x, 3, 0.5, 0.4, 1.0), x)


def test_prints_its_constants():
    assert repr(LRN()) == "LRN(5, alpha=0.0001, beta=0.75, k=2.0)"


def test_gradients_of_slices_and_expanded_ones(draw):
    x = torch.randn(4, 6, 4, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    assert gradcheck(lambda x: lrn(x[:, ::2, :, 1:], 3, 0.5, 0.75, 1.0), x)
    lrn(x, 5, 0.5, 0.75, 1.0).sum().backward()
    got, x.grad = x.grad, None
    by_hand(x, 5, 0.5, 0.75, 1.0).sum().backward()
    assert torch.allclose(got, x.grad, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_keeps_the_type(draw, dtype):
    x = torch.randn(2, 8, 3, 3, generator=draw).to(dtype).requires_grad_()
    y = LRN()(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == dtype
    assert torch.allclose(y.float(), by_hand(x.float(), 5, 1e-4, 0.75, 2.0), rtol=1e-2)


def test_empty_batch():
    assert LRN()(torch.zeros(0, 8, 3, 3)).shape == (0, 8, 3, 3)


def test_exports_to_the_plain_formula(draw):
    x = torch.randn(2, 8, 3, 3, generator=draw)
    batch = {"x": {0: torch.export.Dim("batch")}}
    program = torch.export.export(LRN(), (x,), dynamic_shapes=batch)
    other = torch.randn(5, 8, 3, 3, generator=draw)
    assert torch.allclose(program.module()(other), LRN()(other), rtol=1e-6)


@pytest.mark.slow
# torch's own compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiles(draw):
    x = torch.randn(2, 8, 3, 3, generator=draw, requires_grad=True)
    torch.compile(LRN())(x).sum().backward()
    got, x.grad = x.grad, None
    LRN()(x).sum().backward()
    assert torch.allclose(got, x.grad, rtol=1e-5)


def test_meta_tensors_go_through():
    x = torch.zeros(2, 8, 3, 3, device="meta", requires_grad=True)
    LRN()(x).sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("wrong", [{"size": 0}, {"k": 0.0}, {"alpha": -1.0}])
def test_refuses_settings_without_a_quotient(wrong):
    with pytest.raises(SettingError, match="needs size"):
        LRN(**wrong)
