"""Autotuning of memory layout, compilation and precision, with cached measurements.

This module also measures the peak FLOP/s of the machine, for the MFU of a run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from striate.audit.network import audit
from striate.core import device as devices
from striate.core.errors import StriateError
from striate.core.files import read_json, write_json
from striate.core.settings import AUTO
from striate.data.batches import rank_slice
from striate.data.cache.cache_folder import open_cache
from striate.data.config import DataConfig
from striate.data.image_data import ImageData
from striate.engine.benchmark import (
    MIN_STEPS,
    BenchmarkResult,
    ExecutionChoices,
    choose_execution,
)
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.execution_config import (
    PRECISIONS,
    ExecutionConfig,
    bf16_obstacle,
    has_compiler,
)
from striate.engine.gradient_accumulation import possible_micro_batches
from striate.engine.throughput import ThroughputMeter, measure_peak_flops
from striate.finetune.split_model import probe_batch
from striate.run.build_from_recipe import epoch_image_sizes, recipe_execution
from striate.run.layout import MANIFEST
from striate.run.manifest import update_manifest
from striate.run.recipe import Recipe, TrainConfig
from striate.workflows.train.ranks import can_compile

CACHE_FILE = "speed.json"
MAX_RESULTS = 500  # in the cache file; then it starts empty again


@dataclass(frozen=True)
class AutotuneResult:
    """Fastest execution settings, with the measured times."""

    recipe: Recipe  # the recipe, with layout, compilation and precision set
    benchmark: BenchmarkResult  # the measured times, new or from the cache

    @property
    def notes(self) -> list[str]:
        """Return a note if the execution settings are not the default."""
        execution = self.benchmark.execution
        if not self.benchmark.seconds or execution == ExecutionConfig():
            return []
        first = next(iter(self.milliseconds))
        faster = f"{self.benchmark.speedup:.1f} times as fast as {first}"
        return [f"execution: {execution}, {faster} on this machine"]

    @property
    def milliseconds(self) -> dict[str, float]:
        """Return the milliseconds per step of each measured configuration."""
        seconds = self.benchmark.seconds
        return {execution: round(1e3 * s, 2) for execution, s in seconds.items()}


def autotune(
    model: nn.Module, data: ImageData, recipe: Recipe, group: RankGroup = ONE_PROCESS
) -> AutotuneResult:
    """Choose `auto` execution settings by measurement, and apply the memory layout.

    A run of fewer than 1,000 steps is too short for a measurement to pay off. In a
    distributed run, rank 0 measures for all ranks. All ranks must call this.
    """
    free = _free_settings(recipe, devices.select_device(recipe.device), group)
    benchmark = None
    with group.rank_first(0, "the measurement of execution settings"):
        if group.is_main:
            cache = AutotuneCache(_cache_file(recipe))
            benchmark = _benchmark(model, data, recipe, free, group.world_size, cache)
    benchmark = group.broadcast(benchmark, "the execution settings")
    execution = benchmark.execution
    model.to(memory_format=execution.memory_format)  # type: ignore[call-overload]
    recipe = replace(
        recipe,
        layout=execution.layout,
        compile="on" if execution.compiled else "off",
        precision=execution.precision,
    )
    return AutotuneResult(recipe, benchmark)


def _free_settings(
    config: TrainConfig, device: torch.device, group: RankGroup
) -> ExecutionChoices:
    """Return the execution settings that are `auto` and available on all ranks."""
    free = ExecutionChoices(
        layout=config.layout == AUTO,
        bf16=config.precision == AUTO and not bf16_obstacle(device),
        # A gain at one size says nothing of code that must serve several.
        compiled=config.compile == AUTO
        and config.progressive_resize == 1
        and can_compile(config, group)
        and (device.type == "cuda" or has_compiler()),
    )
    what = "which execution settings are possible"
    ranks = group.all_gather_object(asdict(free), what)
    possible = {name: all(rank[name] for rank in ranks) for name in asdict(free)}
    return ExecutionChoices(**possible)


def _benchmark(
    model: nn.Module,
    data: ImageData,
    config: TrainConfig,
    free: ExecutionChoices,
    world_size: int,
    cache: AutotuneCache,
) -> BenchmarkResult:
    """Return the fastest execution settings for the batch size of one process."""
    start = recipe_execution(config)
    count = len(data.subset("train"))
    steps = config.epochs * -(-count // config.images_per_step)
    if steps < MIN_STEPS or not any(asdict(free).values()):
        return BenchmarkResult(execution=start)
    images = rank_slice(min(config.images_per_step, count), 0, world_size).stop
    size = -(-images // possible_micro_batches(images, config.accumulate))
    device = devices.select_device(config.device)
    x = probe_batch((data.in_chans, *data.image_size), size).to(device)
    y = (torch.arange(size) % data.num_classes).to(device)

    def measure() -> BenchmarkResult:
        return choose_execution(model, (x, y), start, free, steps)

    return cache.benchmark(_cache_key(model, x, start, free), measure)


def _cache_key(
    model: nn.Module, x: Tensor, execution: ExecutionConfig, free: ExecutionChoices
) -> str:
    """Return a hash of all settings and versions on which the speed depends."""
    facts = {
        **devices.compute_environment(x.device),
        "torch": torch.__version__,
        "batch": list(x.shape),
        "network": str(model),
        "sizes": [list(tensor.shape) for tensor in model.state_dict().values()],
        "start": str(execution),
        "free": asdict(free),
    }
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _cache_file(config: DataConfig) -> Path | None:
    cache = open_cache(config.cache, config.cache_gb)
    return cache.folder / CACHE_FILE if cache else None


class AutotuneCache:
    """Cache file of speed measurements on this machine.

    Without a path, nothing is stored.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._sections: dict[str, Any] = {}
        if path is not None:
            with suppress(StriateError, TypeError, ValueError):
                self._sections = dict(read_json(path))

    def benchmark(
        self, key: str, measure: Callable[[], BenchmarkResult]
    ) -> BenchmarkResult:
        """Return the cached result for a key; measure and store it if missing."""
        with suppress(KeyError, TypeError):
            stored = self._sections["choices"][key]
            execution, seconds = (
                ExecutionConfig(**stored["execution"]),
                stored["seconds"],
            )
            return BenchmarkResult(execution=execution, seconds=dict(seconds))
        result = measure()
        results = self._section("choices")
        results = {} if len(results) >= MAX_RESULTS else results
        results[key] = asdict(result)
        self._write("choices", results)
        return result

    def peak(self, device: torch.device, precision: str, again: bool) -> float:
        """Return the peak FLOP/s: the largest value ever measured on this machine.

        With `again`, measure even if a value is cached, and keep the larger value.
        """
        name = " ".join([*devices.compute_environment(device).values(), precision])
        peaks = self._section("peaks")
        cached = peaks.get(name)
        cached = cached if isinstance(cached, float) else 0.0
        if cached and not again:
            return cached
        measured = measure_peak_flops(device, PRECISIONS[precision])
        if measured > cached:
            self._write("peaks", {**peaks, name: measured})
        return max(measured, cached)

    def _section(self, name: str) -> dict[str, Any]:
        section = self._sections.get(name)
        return section if isinstance(section, dict) else {}

    def _write(self, name: str, section: dict[str, Any]) -> None:
        self._sections = {**self._sections, name: section}
        if self._path is not None:
            with suppress(StriateError):
                write_json(self._path, self._sections)


def make_laps(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    group: RankGroup = ONE_PROCESS,
) -> ThroughputMeter:
    """Return the throughput meter of a run, with MACs of the model and peak FLOP/s.

    Measuring the peak takes a few seconds. So short runs without a progress display
    skip the measurement, and only rank 0 measures, for all ranks.
    """
    steps = recipe.epochs * len(data.subset("train")) // recipe.images_per_step
    long = steps >= MIN_STEPS
    if not group.is_main or not (long or (not quiet and sys.stderr.isatty())):
        return ThroughputMeter()
    device = devices.select_device(recipe.device)
    sides = epoch_image_sizes(data, recipe) or [data.image_size]
    try:
        macs = {side: audit(model, (data.in_chans, *side)).macs for side in {*sides}}
    except StriateError:  # a model that only runs on real values
        return ThroughputMeter()
    flops = AutotuneCache(_cache_file(recipe)).peak(device, recipe.precision, long)
    return ThroughputMeter([macs[side] for side in sides], flops * group.world_size)


def save_autotune(folder: Path, result: AutotuneResult) -> None:
    """Write the measured times and a note on the choice to the manifest of a run."""
    if result.benchmark.seconds:
        notes = [*read_json(folder / MANIFEST)["notes"], *result.notes]
        update_manifest(folder, notes=notes, tuning=result.milliseconds)


def throughput_facts(
    laps: ThroughputMeter, rate: float, epochs: int
) -> dict[str, float]:
    """Return time shares of data, compute and optimizer, and MFU, for the manifest."""
    facts = {name: round(share, 3) for name, share in laps.time_shares().items()}
    if laps.peak_flops:
        facts["mfu"] = round(laps.mfu(rate, epochs), 3)
    return facts
