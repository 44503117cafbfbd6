"""The way a run is computed: asked for, remembered, or measured at its start."""

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
from striate.data.batches import rank_slice
from striate.data.cache.cache_folder import open_cache
from striate.data.image_data import ImageData
from striate.engine.benchmark import (
    MIN_STEPS,
    BenchmarkResult,
    ExecutionChoices,
    choose_execution,
)
from striate.engine.distributed.group import RankGroup
from striate.engine.execution import (
    PRECISIONS,
    ExecutionConfig,
    bf16_obstacle,
    has_compiler,
)
from striate.engine.gradient_accumulation import possible_micro_batches
from striate.engine.throughput import ThroughputMeter, measure_peak_flops
from striate.run.builders import sides_of, way_of
from striate.run.layout import MANIFEST
from striate.run.manifest import update_manifest
from striate.run.recipe import Recipe
from striate.workflows.train.ranks import follows, may_compile

AUTO = "auto"
FILE = "speed.json"
REMEMBERED = 500  # choices; then the book is begun anew


@dataclass(frozen=True)
class Settled:
    """A recipe whose every question of speed is answered, and how it was.

    Args:
        recipe: With layout, compilation and precision decided.
        choice: What was measured, now or in an earlier run.
    """

    recipe: Recipe
    choice: BenchmarkResult

    @property
    def notes(self) -> list[str]:
        """Say what was chosen, where it is not the usual way."""
        way = self.choice.execution
        if not self.choice.seconds or way == ExecutionConfig():
            return []
        faster = (
            f"{self.choice.speedup:.1f} times as fast as {next(iter(self.measured))}"
        )
        return [f"computed in {way}: {faster} on this machine"]

    @property
    def measured(self) -> dict[str, float]:
        """Return milliseconds of a step by way."""
        return {way: round(1e3 * s, 2) for way, s in self.choice.seconds.items()}


def settle(
    model: nn.Module, data: ImageData, recipe: Recipe, ranks: RankGroup | None = None
) -> Settled:
    """Answer what a recipe leaves open, and put the model into that layout.

    A run of fewer than 1,000 steps is computed as usual: it would not repay measuring.
    Where several processes learn, rank 0 measures, and all compute as it says.

    Args:
        model: Where it learns.
        data: The images; none of them is looked at.
        recipe: All settings.
        ranks: The processes that learn together; all of them ask.
    """
    free = _free(recipe, devices.select_device(recipe.device), ranks)
    if ranks is None or ranks.is_main:
        choice = _measured(model, data, recipe, free, ranks.world_size if ranks else 1)
    else:
        choice = BenchmarkResult(execution=way_of(recipe))
    if ranks:
        said = ranks.all_gather_object(asdict(choice), "how to compute")[0]
        choice = BenchmarkResult(
            execution=ExecutionConfig(**said["execution"]), seconds=said["seconds"]
        )
    way = choice.execution
    model.to(memory_format=way.memory_format)  # type: ignore[call-overload]
    decided = replace(
        recipe,
        layout=way.layout,
        compile="on" if way.compiled else "off",
        precision=way.precision,
    )
    return Settled(decided, choice)


def _free(
    recipe: Recipe, device: torch.device, ranks: RankGroup | None
) -> ExecutionChoices:
    """Return what may be chosen: on all ranks, because all compute alike."""
    free = ExecutionChoices(
        layout=recipe.layout == AUTO,
        bf16=recipe.precision == AUTO and not bf16_obstacle(device),
        # A gain at one size says nothing of code that must serve several.
        compiled=recipe.compile == AUTO
        and recipe.progressive_resize == 1
        and may_compile(recipe, ranks)
        and (device.type == "cuda" or has_compiler()),
    )
    if ranks is None:
        return free
    every = ranks.all_gather_object(asdict(free), "what may be chosen")
    return ExecutionChoices(
        **{name: all(said[name] for said in every) for name in asdict(free)}
    )


def _measured(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    free: ExecutionChoices,
    world: int,
) -> BenchmarkResult:
    """Return what is fastest for as many images as a process runs at a time."""
    start = way_of(recipe)
    count = len(data.subset("train"))
    steps = recipe.epochs * -(-count // recipe.images_a_step)
    if steps < MIN_STEPS or not any(asdict(free).values()):
        return BenchmarkResult(execution=start)
    mine = rank_slice(min(recipe.images_a_step, count), 0, world)
    size = -(-mine.stop // possible_micro_batches(mine.stop, recipe.accumulate))
    batch = _noise(size, data, devices.select_device(recipe.device))
    key = _key(model, batch[0], start, free)
    book = Book(_cache_file(recipe))
    return book.choice(key, lambda: choose_execution(model, batch, start, free, steps))


def _noise(size: int, data: ImageData, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return a batch like the run's, of images that are none."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(size, data.in_chans, *data.image_size, generator=draw)
    y = torch.arange(size) % data.num_classes
    return x.to(device), y.to(device)


def _key(
    model: nn.Module, x: Tensor, way: ExecutionConfig, free: ExecutionChoices
) -> str:
    """Return a hash of everything that the speed of a way depends on."""
    facts = {
        **devices.compute_environment(x.device),
        "torch": torch.__version__,
        "batch": list(x.shape),
        "network": str(model),
        "sizes": [list(tensor.shape) for tensor in model.state_dict().values()],
        "start": str(way),
        "free": asdict(free),
    }
    text = json.dumps(facts, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _cache_file(recipe: Recipe) -> Path | None:
    cache = open_cache(recipe.cache, recipe.cache_gb)
    return cache.folder / FILE if cache else None


class Book:
    """What was measured on this machine; it is a help, and never in the way.

    Args:
        path: A JSON file in the cache folder; None remembers nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None:
            with suppress(StriateError, TypeError, ValueError):
                self._known = dict(read_json(path))

    def choice(
        self, key: str, measure: Callable[[], BenchmarkResult]
    ) -> BenchmarkResult:
        """Return the choice under a key, measured where none is remembered."""
        with suppress(KeyError, TypeError):
            said = self._known["choices"][key]
            return BenchmarkResult(
                execution=ExecutionConfig(**said["execution"]),
                seconds=dict(said["seconds"]),
            )
        choice = measure()
        choices = self._section("choices")
        if len(choices) >= REMEMBERED:
            choices = {}
        choices[key] = {"way": asdict(choice.execution), "seconds": choice.seconds}
        self._write("choices", choices)
        return choice

    def peak(self, device: torch.device, precision: str, again: bool) -> float:
        """Return the largest FLOP/s that was ever measured on this machine.

        Args:
            device: Where.
            precision: Of the product.
            again: Measure also where it is known: other work may have been in the way.
        """
        name = " ".join([*devices.compute_environment(device).values(), precision])
        peaks = self._section("peaks")
        known = peaks.get(name)
        known = known if isinstance(known, float) else 0.0
        if known and not again:
            return known
        found = measure_peak_flops(device, PRECISIONS[precision])
        if found > known:
            self._write("peaks", {**peaks, name: found})
        return max(found, known)

    def _section(self, name: str) -> dict[str, Any]:
        section = self._known.get(name)
        return section if isinstance(section, dict) else {}

    def _write(self, name: str, section: dict[str, Any]) -> None:
        self._known = {**self._known, name: section}
        if self._path is not None:
            with suppress(StriateError):
                write_json(self._path, self._known)


def laps_of(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    ranks: RankGroup | None = None,
) -> ThroughputMeter:
    """Return what times a run, told what an image costs and what the machine can.

    That takes a moment, which runs that are short and not watched are spared, and all
    processes but rank 0, whose peak is taken for that of each.
    """
    steps = recipe.epochs * len(data.subset("train")) // recipe.images_a_step
    long = steps >= MIN_STEPS
    if follows(ranks) or not (long or (not quiet and sys.stderr.isatty())):
        return ThroughputMeter()
    device = devices.select_device(recipe.device)
    sides = sides_of(data, recipe) or [data.image_size]
    try:
        macs = {side: audit(model, (data.in_chans, *side)).macs for side in {*sides}}
    except StriateError:  # a network that only runs on real numbers
        return ThroughputMeter()
    best = Book(_cache_file(recipe)).peak(device, recipe.precision, long)
    return ThroughputMeter(
        [macs[side] for side in sides], best * (ranks.world_size if ranks else 1)
    )


def note_speed(folder: Path, settled: Settled) -> None:
    """Write what was measured into a run's manifest, and what follows from it."""
    if settled.choice.seconds:
        notes = [*read_json(folder / MANIFEST)["notes"], *settled.notes]
        update_manifest(folder, notes=notes, tuning=settled.measured)


def speed_facts(laps: ThroughputMeter, rate: float, epochs: int) -> dict[str, float]:
    """Return what a manifest says of a run's speed: shares of the time and the peak."""
    facts = {name: round(share, 3) for name, share in laps.time_shares().items()}
    return (
        {**facts, "mfu": round(laps.mfu(rate, epochs), 3)} if laps.peak_flops else facts
    )
