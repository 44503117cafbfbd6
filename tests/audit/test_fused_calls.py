"""Attention and LSTM as torch runs them on a CPU, and the memory of training."""

from copy import deepcopy
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from striate.audit.fused_calls import FusedCalls, is_fused, lstm_workspace
from striate.audit.network import audit
from striate.run.create_model import create_model

FLASH = 1  # of torch.nn.attention.SDPBackend: fused


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("mask", [None, "bool", "float", "trained"])
def test_attention_is_fused_where_torch_fuses_it(dropout, mask):
    shapes = [(2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (2, 1, 7, 8), (3, 5, 8)]
    for q, k in product(shapes, shapes):
        query, key = torch.rand(q), torch.rand(k)
        given = None
        if mask is not None:
            given = torch.ones(q[-2], k[-2], dtype=torch.bool)
        if mask in ("float", "trained"):
            given = given.float().requires_grad_(mask == "trained")
        args = query, key, key, given, dropout
        try:
            F.scaled_dot_product_attention(*args)
        except RuntimeError:
            continue
        assert is_fused(*args) == (torch._fused_sdp_choice(*args) == FLASH)
        turned = query.mT.contiguous().mT, *args[1:]
        assert is_fused(*turned) == (torch._fused_sdp_choice(*turned) == FLASH)


def test_fused_calls_leave_real_tensors_to_torch():
    lstm, x = nn.LSTM(3, 4), torch.rand(5, 2, 3)
    mix = nn.MultiheadAttention(4, 2)
    q = torch.rand(1, 2, 5, 4)
    expected = lstm(x)[0], mix(q[0], q[0], q[0])[0]
    with FusedCalls():
        results = lstm(x)[0], mix(q[0], q[0], q[0])[0]
        F.scaled_dot_product_attention(q, q, q)
    assert all(map(torch.equal, expected, results))


class Recurrent(nn.Module):
    """An LSTM over the columns of an image."""

    def __init__(self, inputs=96, units=256, **settings):
        super().__init__()
        self.rnn = nn.LSTM(inputs, units, **settings)
        self.fc = nn.Linear(units * (1 + self.rnn.bidirectional), 10)

    def forward(self, x):
        x = x.permute(0, 3, 1, 2).flatten(2)
        first = self.rnn.batch_first
        out, _ = self.rnn(x if first else x.transpose(0, 1))
        return self.fc(out[:, -1] if first else out[-1])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_first": True, "bias": False},
        {"num_layers": 2, "bidirectional": True, "dropout": 0.5},
        {"proj_size": 10},
    ],
)
def test_an_lstm_has_the_macs_of_its_matrix_products(settings):
    if "proj_size" in settings:
        lstm, x = nn.LSTM(6, 16, **settings), (2, 3, 8)
        model = nn.Sequential(nn.Flatten(1, 2), Columns(lstm))
        assert audit(model, x).macs == 8 * (4 * 16 * (6 + 10) + 16 * 10)
        return
    model = Recurrent(6, 16, **settings)
    result = audit(model, (2, 3, 8))
    gates = sum(p.numel() for n, p in model.rnn.named_parameters() if "weight" in n)
    assert result.macs == 8 * gates + model.fc.weight.numel()
    assert result.uncounted_ops == {}
    assert result.parameters == sum(p.numel() for p in model.parameters())
    rnn = next(layer for layer in result.layers if layer.name == "rnn")
    assert [o.name for o in rnn.operations].count("mkldnn_rnn_layer") in (1, 4)


class Columns(nn.Module):
    def __init__(self, rnn):
        super().__init__()
        self.rnn = rnn

    def forward(self, x):
        return self.rnn(x.permute(2, 0, 1))[0]


def test_each_step_of_an_lstm_depends_on_the_steps_before_it():
    for both in (False, True):
        model = Columns(nn.LSTM(4, 6, bidirectional=both))
        result = audit(nn.Sequential(nn.Flatten(1, 2), model), (1, 4, 5))
        field = result.container_outputs[""].receptive_field
        end = 4 if both else 2
        assert field.box(2, 0, 0) == ((0, 3), (0, end))


def test_the_first_state_of_an_lstm_may_depend_on_the_image():
    class Stateful(Columns):
        def forward(self, x):
            x = x.permute(2, 0, 1)
            state = x.mean(0, keepdim=True)
            return self.rnn(x, (state, state))[0]

    model = nn.Sequential(nn.Flatten(1, 2), Stateful(nn.LSTM(4, 4)))
    field = audit(model, (1, 4, 5)).container_outputs[""].receptive_field
    assert field.box(0, 0, 0) == ((0, 3), (0, 4))
    packed = Columns(nn.LSTM(4, 4).double())
    result = audit(nn.Sequential(nn.Flatten(1, 2), packed), (1, 4, 5))
    assert "addmm" in {o.name for x in result.layers for o in x.operations}


@pytest.mark.parametrize("steps", [20, 100])
@pytest.mark.parametrize("units", [64, 120, 256])
def test_the_workspace_of_an_lstm_is_that_of_onednn(steps, units):
    lstm = nn.LSTM(96, units)
    args = torch.rand(steps, 16, 96), *lstm.parameters()
    state = torch.zeros(16, units)
    out = torch.ops.aten.mkldnn_rnn_layer(
        *(*args, state, state, False, [], 2),
        *(units, 1, True, False, False, True),
    )
    assert lstm_workspace(steps, 16, 96, units) == pytest.approx(
        out[3].numel(), rel=0.05
    )


class Attention(nn.Module):
    """Attention over 1,024 patches."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 2, 2)
        self.mix = nn.MultiheadAttention(64, 4, dropout=dropout, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return self.fc(self.mix(x, x, x, need_weights=False)[0].mean(1))


def measured_peak(model, x):
    """Return the peak of what torch's CPU allocator holds in a training step."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        model = deepcopy(model)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        for _ in range(2):
            model(x.clone()).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    events = record.profiler.kineto_results.events()
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


MEMORY = {
    "attention": (Attention, (3, 64, 64), 8),
    "attention with dropout": (lambda: Attention(0.1), (3, 64, 64), 2),
    "lstm": (lambda: Recurrent(batch_first=True), (3, 32, 64), 32),
    "two-way lstm": (
        lambda: Recurrent(bidirectional=True, num_layers=2),
        (3, 32, 64),
        8,
    ),
    "resnet18": (lambda: create_model("resnet18"), (3, 96, 96), 4),
    "resnet18 on small maps": (lambda: create_model("resnet18"), (3, 32, 32), 8),
    "mobilenet_v2": (lambda: create_model("mobilenet_v2"), (3, 64, 64), 8),
    "vgg11_bn": (
        lambda: create_model("vgg11_bn", image_size=32, num_classes=10),
        (3, 32, 32),
        8,
    ),
}


@pytest.mark.parametrize(("build", "shape", "batch"), MEMORY.values(), ids=MEMORY)
def test_training_memory_is_the_measured_peak(build, shape, batch):
    model = build().train()
    predicted = audit(model, shape, batch_size=batch).memory.peak
    assert predicted == pytest.approx(
        measured_peak(model, torch.rand(batch, *shape)), 0.1
    )


def test_a_boolean_mask_is_fused_as_a_mask_of_numbers():
    query = torch.rand(1, 2, 5, 4, device="meta")
    mask = torch.ones(5, 5, dtype=torch.bool, device="meta")
    with FusedCalls():
        out = F.scaled_dot_product_attention(query, query, query, mask)
    assert out.shape == query.shape
