"""Benchmark that chooses the fastest memory layout, precision and compile mode.

A copy of the network runs a few steps in each mode. Modes differ in the last bits of
their results (another order of sums), and bf16 differs by more than the last bits. So a
mode is chosen only if it is clearly faster. The caller stores the chosen mode, so that
a resumed run continues with the same mode.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.aux_heads import total_loss
from striate.engine.execution_config import ExecutionConfig, Forward
from striate.engine.fused_modules import FusedModules
from striate.engine.rng import preserve_rng_state

ROUNDS = 3  # timed steps of each candidate, in turn; one more before them warms up
MIN_SECONDS = 0.2  # of measurement: the best of many steps is steadier
MIN_SPEEDUP = 1.1  # to change the layout
MIN_SPEEDUP_BF16 = 1.2  # to change to half precision
# A comparison of two takes 8 steps, and there are two: below 2 % of so many.
MIN_STEPS = 1_000
MIN_COMPILED_SECONDS = 3_600.0  # of training, of which a minute of compiling is 2 %


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """Fastest execution mode of a network, and the measured time of each mode."""

    execution: ExecutionConfig  # the first mode, unless another is clearly faster
    # seconds for forward and backward by mode; empty if not measured
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Return the speed of the chosen mode, relative to the first mode."""
        times = list(self.seconds.values())
        return times[0] / self.seconds[str(self.execution)] if times else 1.0


@dataclass(frozen=True, kw_only=True)
class ExecutionChoices:
    """Fields of an execution mode that the benchmark may change."""

    layout: bool = True  # try the other memory layout
    bf16: bool = False  # try bf16 mixed precision, which the device must support
    compiled: bool = False  # try `torch.compile`, which needs a C++ compiler on a CPU


def choose_execution(
    model: nn.Module,
    # Inputs and class indices, of the size used in training.
    batch: tuple[Tensor, Tensor],
    start: ExecutionConfig,  # the mode to start with
    choices: ExecutionChoices,  # fields of the mode that may be changed
    steps: int,  # number of steps of the whole run; a short run is not measured
) -> BenchmarkResult:
    """Return the execution mode `start`, or another mode that is clearly faster.

    Only copies of the model run; the model and the RNG state do not change. A run of
    few `steps` is not measured.
    """
    if steps < MIN_STEPS:
        return BenchmarkResult(execution=start)
    best, seconds = start, dict[str, float]()

    def compare(min_speedup: float, **changes: Any) -> None:
        nonlocal best
        candidate = replace(best, **changes)
        before, after = time_steps(model, batch, [best, candidate])
        seconds.update({str(best): before, str(candidate): after})
        best = candidate if before >= min_speedup * after else best

    if choices.layout:
        compare(MIN_SPEEDUP, layout="nchw" if start.layout == "nhwc" else "nhwc")
    if choices.bf16:
        compare(MIN_SPEEDUP_BF16, precision="bf16")
    total_seconds = steps * seconds.get(str(best), 0.0)
    if choices.compiled and total_seconds >= MIN_COMPILED_SECONDS:
        compare(MIN_SPEEDUP, compiled=True)
    return BenchmarkResult(execution=best, seconds=seconds)


def time_steps(
    model: nn.Module, batch: tuple[Tensor, Tensor], configs: Sequence[ExecutionConfig]
) -> list[float]:
    """Return the shortest forward-backward time in each execution mode, in seconds.

    The modes run in turn. The shortest time is used, because other programs on the
    machine can only add time.
    """
    with preserve_rng_state():
        runners = [_Runner(model, execution) for execution in configs]
        seconds: list[list[float]] = []
        while len(seconds) <= ROUNDS or sum(map(sum, seconds)) < MIN_SECONDS:
            seconds.append([runner.step(*batch) for runner in runners])
    return [min(times) for times in zip(*seconds[1:], strict=True)]


class _Runner:
    """Copy of a network that runs in one execution mode."""

    def __init__(self, model: nn.Module, execution: ExecutionConfig) -> None:
        self._model = copy.deepcopy(model).train()
        self._model.to(memory_format=execution.memory_format)  # type: ignore[call-overload]
        self._forward = Forward(self._model, execution)
        self._fused = FusedModules(self._model, enabled=not execution.compiled)

    def step(self, x: Tensor, y: Tensor) -> float:
        """Run the forward and backward pass and return the time in seconds."""
        _wait_for(x.device)
        start = time.perf_counter()
        with self._fused.patched():
            target = y.float() if y.ndim == 2 else y
            loss = total_loss(F.cross_entropy, self._forward(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
        self._model.zero_grad()
        _wait_for(x.device)
        return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
