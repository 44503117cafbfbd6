"""Choice of the execution mode by measurement, and bf16 support."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from striate.core.aux_heads import HeadOutputs
from striate.core.errors import SettingError
from striate.engine import benchmark, execution_config
from striate.engine.benchmark import (
    MIN_STEPS,
    ExecutionChoices,
    choose_execution,
    time_steps,
)
from striate.engine.execution_config import (
    ExecutionConfig,
    Forward,
    bf16_obstacle,
    check_precision,
)
from striate.engine.recoverable_step import RecoverableStep

CPU = torch.device("cpu")
ENOUGH = MIN_STEPS


def network():
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(*layers, nn.Dropout(0.4), nn.Flatten(), nn.Linear(12, 2))


def batch():
    return torch.randn(4, 1, 6, 6), torch.tensor([0, 1, 0, 1])


def fake_times(monkeypatch, seconds):
    """Let each way take what the table says, in place of what it takes."""
    measured = []

    def fake_time_steps(model, batch, configs):
        measured.append([str(config) for config in configs])
        return [seconds[str(config)] for config in configs]

    monkeypatch.setattr(benchmark, "time_steps", fake_time_steps)
    return measured


def test_benchmark_changes_nothing():
    model, pair = network(), batch()
    optimizer = torch.optim.AdamW(model.parameters())
    RecoverableStep(model, optimizer)(*pair, 0)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    moments = [t.clone() for s in optimizer.state.values() for t in s.values()]
    grads = [p.grad.clone() for p in model.parameters()]
    layouts = [p.stride() for p in model.parameters()]
    rng_state = (
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].copy(),
    )
    model.eval()
    result = choose_execution(
        model, pair, ExecutionConfig(), ExecutionChoices(layout=True, bf16=True), ENOUGH
    )
    assert set(result.seconds) >= {"nhwc fp32", "nchw fp32"}
    after = model.state_dict().values()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    now = [t for s in optimizer.state.values() for t in s.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, now, strict=True))
    assert all(
        torch.equal(g, p.grad) for g, p in zip(grads, model.parameters(), strict=True)
    )
    assert [p.stride() for p in model.parameters()] == layouts
    assert not any(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng_state[0])
    assert random.getstate() == rng_state[1]
    assert (np.random.get_state()[1] == rng_state[2]).all()


def test_short_run_is_not_benchmarked(monkeypatch):
    measured = fake_times(monkeypatch, {})
    result = choose_execution(
        network(), batch(), ExecutionConfig(), ExecutionChoices(bf16=True), ENOUGH - 1
    )
    assert (result.execution, result.seconds, result.speedup, measured) == (
        ExecutionConfig(),
        {},
        1.0,
        [],
    )


@pytest.mark.parametrize(
    ("nchw", "expected"), [(0.95, "nhwc"), (0.92, "nhwc"), (0.90, "nchw")]
)
def test_layout_needs_a_minimum_speedup(monkeypatch, nchw, expected):
    fake_times(monkeypatch, {"nhwc fp32": 1.0, "nchw fp32": nchw})
    result = choose_execution(
        network(), batch(), ExecutionConfig(), ExecutionChoices(), ENOUGH
    )
    assert result.execution == ExecutionConfig(layout=expected)


@pytest.mark.parametrize(("bf16_seconds", "expected"), [(0.9, "fp32"), (0.8, "bf16")])
def test_bf16_needs_a_larger_speedup(monkeypatch, bf16_seconds, expected):
    times = {"nhwc fp32": 1.0, "nchw fp32": 2.0, "nhwc bf16": bf16_seconds}
    fake_times(monkeypatch, times)
    result = choose_execution(
        network(), batch(), ExecutionConfig(), ExecutionChoices(bf16=True), ENOUGH
    )
    assert result.execution == ExecutionConfig(precision=expected)
    assert result.speedup == pytest.approx(
        1 / bf16_seconds if expected == "bf16" else 1
    )


def test_compilation_is_tried_only_for_long_runs(monkeypatch):
    times = {"nhwc fp32": 1.0, "nchw fp32": 2.0, "nhwc fp32 compiled": 0.5}
    measured = fake_times(monkeypatch, times)
    choices = ExecutionChoices(compiled=True)
    assert not choose_execution(
        network(), batch(), ExecutionConfig(), choices, 3_599
    ).execution.compiled
    assert len(measured) == 1
    assert choose_execution(
        network(), batch(), ExecutionConfig(), choices, 3_600
    ).execution.compiled


def test_user_choices_are_not_benchmarked(monkeypatch):
    measured = fake_times(monkeypatch, {})
    layout = ExecutionConfig(layout="nchw")
    assert (
        choose_execution(
            network(), batch(), layout, ExecutionChoices(layout=False), ENOUGH
        ).seconds
        == {}
    )
    assert measured == []


def test_time_steps():
    seconds = time_steps(
        network(), batch(), [ExecutionConfig(), ExecutionConfig(layout="nchw")]
    )
    assert len(seconds) == 2
    assert all(seconds > 0 for seconds in seconds)


def test_bf16_outputs_are_float32():
    model, (x, _) = network().eval(), batch()
    bf16_seconds = Forward(model, ExecutionConfig(precision="bf16"))(x)
    assert bf16_seconds.dtype == torch.float32
    assert not torch.equal(bf16_seconds, model(x))
    assert torch.allclose(bf16_seconds, model(x), atol=0.05)


def test_bf16_auxiliary_outputs_are_float32():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(4, 2)

        def forward(self, x):
            return HeadOutputs(self.dense(x), (self.dense(x),), 0.3)

    answer = Forward(Two(), ExecutionConfig(precision="bf16"))(torch.randn(3, 4))
    assert answer.logits.dtype == answer.auxiliary[0].dtype == torch.float32


def test_weights_and_optimizer_stay_in_float32():
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    stepper = RecoverableStep(
        model, optimizer, execution=ExecutionConfig(precision="bf16")
    )
    losses = [stepper(*batch(), step) for step in range(3)]
    assert all(loss < 3 for loss in losses)
    moments_ = [t for s in optimizer.state.values() for t in s.values()]
    tensors = [*model.parameters(), *moments_, *(p.grad for p in model.parameters())]
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert model[1].running_mean.dtype == torch.float32


def info(monkeypatch, tmp_path, text):
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(execution_config, "CPU_INFO", path)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("flags\t\t: fpu avx2 fma\n", False),
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: avx512f amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("model name: nobody knows\n", False),
    ],
)
def test_bf16_needs_cpu_instructions(monkeypatch, tmp_path, text, supported):
    info(monkeypatch, tmp_path, text)
    assert (bf16_obstacle(CPU) == "") == supported


def test_bf16_is_refused_with_the_reason(monkeypatch, tmp_path):
    info(monkeypatch, tmp_path, "flags: avx2\n")
    with pytest.raises(SettingError, match=r"no bf16 instructions .* hundreds"):
        check_precision("bf16", CPU)
    check_precision("fp32", CPU)
    check_precision("auto", CPU)
    monkeypatch.setattr(execution_config, "CPU_INFO", tmp_path / "none")
    assert bf16_obstacle(CPU)


def test_bf16_on_other_devices(monkeypatch):
    assert "never measured on mps" in bf16_obstacle(torch.device("mps"))
    for supported in (True, False):
        is_supported = lambda including_emulation, supported=supported: supported  # noqa: E731
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
        assert (bf16_obstacle(torch.device("cuda")) == "") == supported
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert "switched off" in bf16_obstacle(CPU)
