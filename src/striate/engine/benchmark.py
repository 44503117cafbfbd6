"""Benchmark of execution modes: the fastest memory layout, precision and compilation.

A short measurement on a copy of the network. Another mode changes the last bits of a
result (another order of sums), and half precision more than those. So a candidate must
be clearly faster, not by luck; and the caller stores the result, so that a resumed run
continues with the same mode.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
    """The fastest execution mode, and the measured times.

    Args:
        execution: The fastest mode, if it is clearly faster than the first.
        seconds: Time of a step without its update by mode; empty if not measured.
    """

    execution: ExecutionConfig
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def speedup(self) -> float:
        """Return the speedup over the first mode."""
        times = list(self.seconds.values())
        return times[0] / self.seconds[str(self.execution)] if times else 1.0


@dataclass(frozen=True, kw_only=True)
class ExecutionChoices:
    """Which fields of an execution mode may be changed; the user has set the others.

    Args:
        layout: Try the other memory layout.
        bf16: Try half precision, which the device must support.
        compiled: Try compilation, which needs a compiler.
    """

    layout: bool = True
    bf16: bool = False
    compiled: bool = False


def choose_execution(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    start: ExecutionConfig,
    choices: ExecutionChoices,
    steps: int,
) -> BenchmarkResult:
    """Measure alternatives to an execution mode and return what is clearly faster.

    Copies run; model and RNG state do not change.

    Args:
        model: Any network.
        batch: Inputs and class indices, of the size used in training.
        start: The mode to start with.
        choices: What may be changed.
        steps: Number of steps of the whole run; a short run is not measured.
    """
    if steps < MIN_STEPS:
        return BenchmarkResult(execution=start)
    result = BenchmarkResult(execution=start)
    if choices.layout:
        layout = "nchw" if start.layout == "nhwc" else "nhwc"
        candidate = replace(start, layout=layout)
        result = _compare(result, candidate, MIN_SPEEDUP, model, batch)
    if choices.bf16:
        candidate = replace(result.execution, precision="bf16")
        result = _compare(result, candidate, MIN_SPEEDUP_BF16, model, batch)
    total_seconds = steps * result.seconds.get(str(result.execution), 0.0)
    if choices.compiled and total_seconds >= MIN_COMPILED_SECONDS:
        candidate = replace(result.execution, compiled=True)
        result = _compare(result, candidate, MIN_SPEEDUP, model, batch)
    return result


def _compare(
    best: BenchmarkResult,
    candidate: ExecutionConfig,
    min_speedup: float,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
) -> BenchmarkResult:
    before, after = time_steps(model, batch, [best.execution, candidate])
    execution = candidate if before >= min_speedup * after else best.execution
    seconds = {**best.seconds, str(best.execution): before, str(candidate): after}
    return BenchmarkResult(execution=execution, seconds=seconds)


def time_steps(
    model: nn.Module, batch: tuple[Tensor, Tensor], configs: Sequence[ExecutionConfig]
) -> list[float]:
    """Return the shortest time of a step in each execution mode, measured in turn.

    The shortest, because other programs on the machine can only add time.
    """
    with preserve_rng_state():
        runners = [_Runner(model, execution) for execution in configs]
        seconds: list[list[float]] = []
        while len(seconds) <= ROUNDS or sum(map(sum, seconds)) < MIN_SECONDS:
            seconds.append([runner.step(*batch) for runner in runners])
    return [min(times) for times in zip(*seconds[1:], strict=True)]


class _Runner:
    """A copy of a network that runs in one execution mode."""

    def __init__(self, model: nn.Module, execution: ExecutionConfig) -> None:
        self._model = copy.deepcopy(model).train()
        self._model.to(memory_format=execution.memory_format)  # type: ignore[call-overload]
        self._forward = Forward(self._model, execution)
        self._fused = FusedModules(self._model, enabled=not execution.compiled)

    def step(self, x: Tensor, y: Tensor) -> float:
        """Run forward and backward and return the seconds taken."""
        _wait_for(x.device)
        start = time.perf_counter()
        with self._fused.patched():
            loss = total_loss(F.cross_entropy, self._forward(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._model.zero_grad()
        _wait_for(x.device)
        return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
