"""The trainings of a learning curve: run folders in a folder, made once, read again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.core.errors import InterruptedRunError, RunError
from striate.core.files import read_json, storage_errors, write_json
from striate.core.seeds import derive
from striate.data.image_data import ImageData
from striate.run import layout as names
from striate.run.lock import LOCK, held
from striate.run.manifest import data_hash
from striate.run.recipe import INCIDENTAL, Recipe
from striate.run.run import Run
from striate.run.setup import LOADED, load_recipe
from striate.workflows.train.train import train, train_recipe

PLAN = "curve.json"
# Small fractions take as many steps as the whole, or what they lack in images would
# be mixed up with what they lack in training; but at most so many times the epochs.
MOST_EPOCHS = 8

Make = Callable[[ImageData], nn.Module]
Told = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CurveRun:
    """One training of a curve: how much it saw, and what it reached."""

    fraction: float
    seed: int
    path: Path
    images: int
    judged: int
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a curve is made of, and how its runs come to be.

    Args:
        recipe: Of every run, but for seed, fraction and epochs.
        fractions: In growing order.
        seeds: How many, from the recipe's own.
        make: From data to a network; None for the recipe's model.
    """

    recipe: Recipe
    fractions: tuple[float, ...]
    seeds: int
    make: Make | None = None

    @property
    def plan(self) -> dict[str, Any]:
        """Return all settings, to be written down; see `_differing` for what binds."""
        settings = self.recipe.resolved().as_dict()
        return {**settings, "fractions": list(self.fractions), "seeds": self.seeds}

    def folder(self, out: Path | None, overwrite: bool) -> Path:
        """Return the curve's folder: that of the same plan, or a new one.

        Raises:
            RunError: `out` is something else, a curve of another plan, or one to be
                overwritten that another process is at work on.
        """
        if out is None:
            return self._next_free()
        if not out.exists():
            return self._begin(out)
        if not (out / PLAN).is_file():
            fix = "choose another --out; only curves are ever overwritten"
            raise RunError("this exists and is no curve", where=out, fix=fix)
        if overwrite:
            _clear_curve(out)
            return self._begin(out)
        if differing := self._differing(out):
            what = f"the curve there has other settings: {', '.join(differing)}"
            fix = "choose another --out, or add --overwrite"
            raise RunError(what, where=out, fix=fix)
        return out

    def _next_free(self) -> Path:
        data = Path(self.recipe.data).stem or "data"
        stem = names.plain_name(f"{data}-{'own' if self.make else self.recipe.model}")
        number = 1
        while True:
            place = Path("runs/curve") / (stem if number == 1 else f"{stem}-{number}")
            if not place.exists():
                return self._begin(place)
            if (place / PLAN).is_file() and not self._differing(place):
                return place
            number += 1

    def _begin(self, place: Path) -> Path:
        write_json(place / PLAN, {"plan": self.plan})
        return place

    def _differing(self, place: Path) -> list[str]:
        had = read_json(place / PLAN)["plan"]
        binding = {k: v for k, v in self.plan.items() if k not in INCIDENTAL}
        return [name for name, value in binding.items() if had.get(name) != value]

    def run_all(self, place: Path, told: Told) -> tuple[list[CurveRun], str]:
        """Train what is not trained yet; return all runs and the part they judged.

        Raises:
            InterruptedRunError: The user stopped it; the same command goes on.
            RunError: Another process is at work on the curve, or on a run of it.
        """
        with held(place):
            return self._run_all(place, told)

    def _run_all(self, place: Path, told: Told) -> tuple[list[CurveRun], str]:
        found: list[CurveRun] = []
        splits: set[str] = set()
        total = len(self.fractions) * self.seeds
        for seed in range(self.recipe.seed, self.recipe.seed + self.seeds):
            images = _Images(replace(self.recipe, seed=seed))
            for fraction in self.fractions:
                try:
                    run, new = self._run(place, images, fraction)
                except InterruptedRunError as error:
                    what = f"stopped after {len(found)} of {total} runs"
                    fix = "the same command goes on from there"
                    raise InterruptedRunError(what, where=place, fix=fix) from error
                found.append(_read(run, fraction, seed))
                splits.add(run.evaluated_split)
                told(_line(found[-1], len(found), total, new))
        return sorted(found, key=lambda run: (run.fraction, run.seed)), splits.pop()

    def _run(self, place: Path, images: _Images, fraction: float) -> tuple[Run, bool]:
        """Return the run of a fraction and seed, and whether it is new."""
        recipe = replace(images.recipe, epochs=self.epochs(fraction))
        if recipe.precision == "auto":  # decided by length, and these are to be alike
            recipe = replace(recipe, precision="fp32")
        out = place / f"fraction-{fraction:g}-seed-{recipe.seed}"
        if (run := _finished(out)) is not None:
            images.check(run, fraction)
            return run, False
        _clear_run(out)
        data = images.cut(fraction)
        if self.make is None:
            recipe = replace(recipe, fraction=fraction)
            return train_recipe(recipe, data=data, out=out, quiet=True), True
        decided = LOADED | {"data", "model"}
        settings = {k: v for k, v in recipe.as_dict().items() if k not in decided}
        torch.manual_seed(derive(recipe.seed, "init"))
        return train(self.make(data), data, out=out, quiet=True, **settings), True

    def epochs(self, fraction: float) -> int:
        """Return how often a fraction is gone through."""
        return round(self.recipe.epochs * min(1 / fraction, MOST_EPOCHS))


class _Images:
    """The images of one seed, read when first needed."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._data: ImageData | None = None

    def cut(self, fraction: float) -> ImageData:
        if self._data is None:
            self._data = load_recipe(self.recipe)
        return self._data.with_fraction(fraction)

    def check(self, run: Run, fraction: float) -> None:
        """Refuse a finished run of other images than those at hand."""
        if self._data is None:
            return
        if run.manifest["data"]["hash"] != data_hash(
            self._data.with_fraction(fraction)
        ):
            fix = "begin anew: choose another --out, or add --overwrite"
            what = "the images have changed since this run of the curve"
            raise RunError(what, where=run.path, fix=fix)


def _finished(out: Path) -> Run | None:
    with suppress(RunError):
        run = Run(out)
        if run.manifest["status"] == "done":
            return run
    return None


def _clear_run(out: Path) -> None:
    """Empty the folder of a run that was killed half way; one at work is refused."""
    if not out.is_dir():
        return
    # The curve is held, but its run may be: `striate train --resume` goes on with it.
    with held(out), storage_errors(out, 0):
        names.clear(out)


def _clear_curve(out: Path) -> None:
    """Empty a curve's folder, unless it or a run of it is at work."""
    with held(out), ExitStack() as runs, storage_errors(out, 0):
        for lock in out.glob(f"*/{LOCK}"):
            runs.enter_context(held(lock.parent))
        names.clear(out)


def _read(run: Run, fraction: float, seed: int) -> CurveRun:
    score = run.scores[run.evaluated_split]
    used = run.manifest["data"]["splits"]["train"]
    return CurveRun(
        fraction=fraction,
        seed=seed,
        path=run.path,
        images=used,
        judged=score["count"],
        accuracy=score["accuracy"],
        balanced_accuracy=score["balanced_accuracy"],
    )


def _line(run: CurveRun, done: int, total: int, new: bool) -> str:
    which = f"fraction {run.fraction:<7.4g} seed {run.seed}"
    reached = f"{run.images:>9,} images  accuracy {100 * run.accuracy:.2f} %"
    again = "" if new else "  (there already)"
    return f"run {done:>{len(str(total))}}/{total}  {which}{reached}{again}"
