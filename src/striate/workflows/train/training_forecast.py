"""Forecast of the time and the memory of a training run, before it starts."""

from __future__ import annotations

import copy
import sys
import time
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from striate.audit.network import audit
from striate.core import device as devices
from striate.core.aux_heads import total_loss
from striate.core.format import duration_text, format_bytes
from striate.data.cache.free_memory import available_bytes
from striate.data.image_data import ImageData
from striate.engine.benchmark import BenchmarkResult
from striate.engine.gradient_accumulation import possible_micro_batches
from striate.engine.rng import preserve_rng_state
from striate.finetune.split_model import probe_batch
from striate.run.build_from_recipe import epoch_image_sizes
from striate.run.network_errors import error_text
from striate.run.recipe import Recipe

MIN_STEPS, MIN_SECONDS = 100, 10.0  # a run with less of both needs no forecast
PROBE_COST = 0.01  # largest fraction of the training images that the probe runs
PROBE_SHARE = 4  # a probe step has at most one batch divided by this number
MIN_PROBE = 2  # images; batch norm may reject one
SHORT_STEP = 0.05  # seconds
EVALUATION_SHARE = 1 / 3  # time of an evaluated image, in training images
MEMORY_ADVICE = "reduce --batch-size or --image-size, or add --accumulate 4"


@dataclass(frozen=True, kw_only=True)
class TrainingForecast:
    """Expected time and peak memory of a training run.

    Args:
        seconds: Time of all epochs, validation included; None for a short run.
        memory_bytes: Largest memory of a training step; None if it is unknown.
        free_bytes: Free memory of the device before training; None if it is unknown.
        error: Why a value could not be computed.
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    error: str | None = None

    @property
    def fits(self) -> bool:
        """Return whether the expected memory is free, as far as both are known."""
        if self.memory_bytes is None or self.free_bytes is None:
            return True
        return self.memory_bytes <= self.free_bytes

    @property
    def notes(self) -> list[str]:
        """Return the forecast as a note; if memory is missing, what to do.

        Example:
            >>> TrainingForecast(seconds=90.0, memory_bytes=10**9).notes
            ['forecast: about 1 min 30 s, 1.00 GB of memory']
            >>> TrainingForecast(memory_bytes=3 * 10**9, free_bytes=10**9).notes[0][:44]
            'not enough memory: a training step needs abo'
        """
        if not self.fits and self.memory_bytes and self.free_bytes is not None:
            need, free = format_bytes(self.memory_bytes), format_bytes(self.free_bytes)
            text = f"a training step needs about {need}, and {free} are free"
            return [f"not enough memory: {text}; {MEMORY_ADVICE}"]
        parts = []
        if self.seconds is not None:
            parts.append(f"about {duration_text(self.seconds)}")
        if self.memory_bytes is not None:
            free = f" ({format_bytes(self.free_bytes)} free)" if self.free_bytes else ""
            parts.append(f"{format_bytes(self.memory_bytes)} of memory{free}")
        return [f"forecast: {', '.join(parts)}"] if self.seconds is not None else []

    def as_record(self) -> dict[str, Any]:
        """Return the forecast for the manifest of the run."""
        return {"forecast": asdict(self)}


def forecast_memory(
    model: nn.Module, data: ImageData, recipe: Recipe
) -> TrainingForecast:
    """Return the memory of a training step and the free memory; allocate nothing."""
    memory = free = error = None
    try:
        free = free_bytes(devices.select_device(recipe.device))
        memory = _memory(model, data, recipe)
    except Exception as failure:  # a network may reject the meta device
        error = error_text(failure)
    return TrainingForecast(memory_bytes=memory, free_bytes=free, error=error)


def forecast_training(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    benchmark: BenchmarkResult,
    memory: TrainingForecast | None = None,
) -> TrainingForecast:
    """Return the forecast of a run; it never ends the run and changes nothing.

    The memory is that of `striate summary`, which allocates nothing, or was computed by
    `forecast_memory`. The time is that of one training step on a part of a batch, or
    was measured by the benchmark.
    """
    if memory is None or memory.memory_bytes is None:
        memory = forecast_memory(model, data, recipe)
    if not memory.fits:
        return memory
    try:
        device = devices.select_device(recipe.device)
        seconds = _seconds(model, data, recipe, benchmark, device)
        steps = recipe.epochs * -(-len(data.subset("train")) // recipe.images_per_step)
    except Exception as failure:  # a network may reject this batch
        return replace(memory, error=memory.error or error_text(failure))
    if seconds is None or (steps < MIN_STEPS and seconds < MIN_SECONDS):
        return memory
    return replace(memory, seconds=seconds)


def warn_of_missing_memory(forecast: TrainingForecast) -> None:
    """Print a warning to stderr if the expected memory is not free."""
    if not forecast.fits:
        print(f"warning: {forecast.notes[0]}", file=sys.stderr, flush=True)


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None if it is unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()


def _micro_batch(data: ImageData, recipe: Recipe) -> int:
    """Return the images of one forward pass: a batch, or its largest micro-batch."""
    size = min(recipe.images_per_step, len(data.subset("train")))
    return -(-size // possible_micro_batches(size, recipe.accumulate))


def _memory(model: nn.Module, data: ImageData, recipe: Recipe) -> int | None:
    shape = (data.in_chans, *data.image_size)
    size = _micro_batch(data, recipe)
    result = audit(model, shape, batch_size=size, optimizer=recipe.optimizer)
    return None if result.memory is None else result.memory.peak


def _seconds(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    benchmark: BenchmarkResult,
    device: torch.device,
) -> float | None:
    """Return the time of all epochs, from the time of one image."""
    size = _micro_batch(data, recipe)
    count = len(data.subset("train"))
    measured = benchmark.seconds.get(str(benchmark.execution))
    if measured is not None:
        per_image = measured / size
    else:
        budget = int(PROBE_COST * recipe.epochs * count)  # images
        part = min(max(size // PROBE_SHARE, MIN_PROBE), size, budget // 2)
        if part < min(MIN_PROBE, size):
            return None
        per_image = _probe(model, data, (part, size), device, budget)
    images = count + EVALUATION_SHARE * len(data.subset("val"))
    height, width = data.image_size
    sides = epoch_image_sizes(data, recipe) or [data.image_size]
    area = fmean(h * w for h, w in sides) / (height * width)
    return recipe.epochs * images * per_image * area


def _probe(
    model: nn.Module,
    data: ImageData,
    sizes: tuple[int, int],
    device: torch.device,
    budget: int,
) -> float:
    """Return the time per image of a training step.

    `sizes` are the images of a part and of a whole batch. The probe runs at most
    `budget` images.
    """
    copied = copy.deepcopy(model).train()
    part, size = sizes

    def step(count: int) -> float:
        x = probe_batch((data.in_chans, *data.image_size), count).to(device)
        y = (torch.arange(count) % data.num_classes).to(device)
        start = time.perf_counter()
        total_loss(F.cross_entropy, copied(x), y).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    with preserve_rng_state():
        step(part)  # warms up
        seconds = step(part)
        repeats = min((budget - 2 * part) // size, 3)
        if seconds > SHORT_STEP or repeats < 1:
            return seconds / part
        # Of a small step, much is overhead; the first whole step allocates memory.
        whole = min(step(size) for _ in range(repeats))
        return min(seconds / part, whole / size)
