"""Forecast of the time and the memory of a training run, before it starts."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
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
from striate.run.recipe import Recipe

MIN_STEPS = 100  # a shorter run is over before a forecast helps
PROBE_SHARE = 4  # a probe step has this fraction of a batch: below 1 % of the run
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
    """

    seconds: float | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None

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


def forecast_training(
    model: nn.Module, data: ImageData, recipe: Recipe, benchmark: BenchmarkResult
) -> TrainingForecast:
    """Return the forecast of a run; it never ends the run and changes nothing.

    The memory is that of `striate summary`, which allocates nothing. The time is that
    of one training step on a quarter of a batch, or was measured by the benchmark.
    """
    memory = seconds = None
    device = devices.select_device(recipe.device)
    with suppress(Exception):  # a network may reject the meta device or this batch
        memory = _memory(model, data, recipe)
    free = free_bytes(device)
    forecast = TrainingForecast(memory_bytes=memory, free_bytes=free)
    steps = recipe.epochs * -(-len(data.subset("train")) // recipe.images_per_step)
    if steps >= MIN_STEPS and forecast.fits:
        with suppress(Exception):
            seconds = _seconds(model, data, recipe, benchmark, device)
    return TrainingForecast(seconds=seconds, memory_bytes=memory, free_bytes=free)


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
) -> float:
    """Return the time of all epochs, from the time of one image."""
    size = _micro_batch(data, recipe)
    measured = benchmark.seconds.get(str(benchmark.execution))
    per_image = (
        _probe(model, data, size, device) if measured is None else measured / size
    )
    images = len(data.subset("train")) + EVALUATION_SHARE * len(data.subset("val"))
    height, width = data.image_size
    sides = epoch_image_sizes(data, recipe) or [data.image_size]
    area = fmean(h * w for h, w in sides) / (height * width)
    return recipe.epochs * images * per_image * area


def _probe(model: nn.Module, data: ImageData, size: int, device: torch.device) -> float:
    """Return the time per image of a training step on a part of a batch."""
    copied = copy.deepcopy(model).train()

    def step(count: int) -> float:
        x = probe_batch((data.in_chans, *data.image_size), count).to(device)
        y = (torch.arange(count) % data.num_classes).to(device)
        start = time.perf_counter()
        total_loss(F.cross_entropy, copied(x), y).backward()  # type: ignore[no-untyped-call]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    part = max(size // PROBE_SHARE, 1)
    with preserve_rng_state():
        step(part)  # warms up
        seconds = step(part)
        if seconds > SHORT_STEP:
            return seconds / part
        # Of a small step, most is overhead: only a whole batch tells.
        return min(step(size) for _ in range(3)) / size
