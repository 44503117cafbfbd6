"""Which way of running a network is fastest here: a short measurement of a copy.

A way other than the usual one changes the last bits of a result (another order of
sums), and half precision more than those. So a rival must be clearly faster, not
luckily so; and who asks keeps the answer, so that a run goes on as it began.
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
from striate.engine.execution import ExecutionConfig, Forward
from striate.engine.fused_modules import FusedModules
from striate.engine.rng import preserve_rng_state

ROUNDS = 3  # timed steps of each rival, turn about; one before them warms up
MIN_SECONDS = 0.2  # seconds in which more rounds are free: the best of many is steadier
MIN_SPEEDUP = 1.1  # times as fast as the usual way, to be taken for its layout
MIN_SPEEDUP_BF16 = 1.2  # the same, for half precision
# A comparison of two takes 8 steps, and there are two: below 2 % of so many.
MIN_STEPS = 1_000
MIN_COMPILED_SECONDS = (
    3_600.0  # seconds of learning of which a minute of compiling is 2 %
)


@dataclass(frozen=True, kw_only=True)
class BenchmarkResult:
    """The way that was chosen, and what was measured.

    Args:
        way: The fastest, if clearly so.
        seconds: Of a step without its update, by way; empty if nothing was measured.
    """

    way: ExecutionConfig
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Return how many times as fast as the first way measured it is."""
        times = list(self.seconds.values())
        return times[0] / self.seconds[str(self.way)] if times else 1.0


@dataclass(frozen=True, kw_only=True)
class ExecutionChoices:
    """What of a way is free to choose; the rest was asked for.

    Args:
        layout: Memory layout.
        half: Half precision, which the device must have.
        compiled: Compilation, for which there must be a compiler.
    """

    layout: bool = True
    half: bool = False
    compiled: bool = False


def choose_execution(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    start: ExecutionConfig,
    free: ExecutionChoices,
    steps: int,
) -> BenchmarkResult:
    """Measure rivals of a way one after the other, and take what is clearly faster.

    Model, random state and everything else stay as they are: copies run.

    Args:
        model: Any network.
        batch: Inputs and class numbers of the size that is learned from.
        start: The way to begin with.
        free: What may be changed.
        steps: Of the whole run; a short one is not worth a measurement.
    """
    if steps < MIN_STEPS:
        return BenchmarkResult(way=start)
    choice = BenchmarkResult(way=start)
    if free.layout:
        layout = "nchw" if start.layout == "nhwc" else "nhwc"
        choice = _against(
            choice, replace(start, layout=layout), MIN_SPEEDUP, model, batch
        )
    if free.half:
        rival = replace(choice.way, precision="bf16")
        choice = _against(choice, rival, MIN_SPEEDUP_BF16, model, batch)
    long = steps * choice.seconds.get(str(choice.way), 0.0) >= MIN_COMPILED_SECONDS
    if free.compiled and long:
        rival = replace(choice.way, compiled=True)
        choice = _against(choice, rival, MIN_SPEEDUP, model, batch)
    return choice


def _against(
    holder: BenchmarkResult,
    rival: ExecutionConfig,
    needed: float,
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
) -> BenchmarkResult:
    taken = time_steps(model, batch, [holder.way, rival])
    wins = taken[0] >= needed * taken[1]
    seconds = {**holder.seconds, str(holder.way): taken[0], str(rival): taken[1]}
    return BenchmarkResult(way=rival if wins else holder.way, seconds=seconds)


def time_steps(
    model: nn.Module, batch: tuple[Tensor, Tensor], ways: Sequence[ExecutionConfig]
) -> list[float]:
    """Return the seconds of a step of each way, turn about, the best of some.

    The best, because what else runs on a machine only ever adds.
    """
    with preserve_rng_state():
        runners = [_Runner(model, way) for way in ways]
        taken: list[list[float]] = []
        while len(taken) <= ROUNDS or sum(map(sum, taken)) < MIN_SECONDS:
            taken.append([runner.step(*batch) for runner in runners])
    return [min(times) for times in zip(*taken[1:], strict=True)]


class _Runner:
    """A copy of a network that runs in a way."""

    def __init__(self, model: nn.Module, way: ExecutionConfig) -> None:
        self._model = copy.deepcopy(model).train()
        self._model.to(memory_format=way.memory_format)  # type: ignore[call-overload]
        self._forward = Forward(self._model, way)
        self._quick = FusedModules(self._model, wanted=not way.compiled)

    def step(self, x: Tensor, y: Tensor) -> float:
        """Return the seconds of a step, all but its update."""
        _wait_for(x.device)
        start = time.perf_counter()
        with self._quick.lent():
            cost = total_loss(F.cross_entropy, self._forward(x), y)
        cost.backward()  # type: ignore[no-untyped-call]
        self._model.zero_grad()
        _wait_for(x.device)
        return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(device)
