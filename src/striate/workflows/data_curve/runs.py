"""Runs of a learning curve, stored as run folders and reused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.core.derive_seed import derive_seed
from striate.core.errors import InterruptedRunError, RunError
from striate.core.files import read_json, storage_errors, write_json
from striate.core.format import count_text
from striate.data.image_data import ImageData
from striate.run import layout as names
from striate.run.build_network import short_name
from striate.run.lock import LOCK, lock_folder
from striate.run.manifest import data_hash
from striate.run.prepare_run import LOADED_DATA_SETTINGS, load_recipe
from striate.run.recipe import NO_EFFECT_SETTINGS, Recipe
from striate.run.run import Run
from striate.workflows.train.train import train, train_recipe

CURVE_FILE = "curve.json"
# Small fractions are trained for as many steps as the whole set, or fewer images would
# also mean less training; but for at most this multiple of the epochs.
MAX_EPOCH_FACTOR = 8

Make = Callable[[ImageData], nn.Module]
Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class CurveRun:
    """One run of a learning curve, with its training set size and accuracy."""

    fraction: float
    seed: int
    path: Path
    images: int
    test_images: int
    accuracy: float
    balanced_accuracy: float


@dataclass(frozen=True, kw_only=True)
class CurvePlan:
    """Settings of a learning curve; `run_all` trains the runs."""

    recipe: Recipe  # settings of every run, except seed, fraction and epochs
    fractions: tuple[float, ...]  # fractions in increasing order
    seeds: int  # number of seeds, counted up from the seed of the recipe
    # function from data to a network; None for the model of the recipe
    make: Make | None = None

    @property
    def plan(self) -> dict[str, Any]:
        """Return all settings of the curve as a JSON-serializable dict."""
        settings = self.recipe.resolved().as_dict()
        return {**settings, "fractions": list(self.fractions), "seeds": self.seeds}

    def folder(self, out: Path | None, overwrite: bool) -> Path:
        """Return the folder of an earlier curve with equal settings, or a new folder.

        Raises:
            RunError: `out` is not a curve, has other settings, or is in use by another
                process.
        """
        if out is None:
            return self._next_free()
        if not out.exists():
            return self._create(out)
        if not (out / CURVE_FILE).is_file():
            what = "the output folder exists and is not a learning curve"
            fix = "choose another --out; only learning curves are overwritten"
            raise RunError(what, where=out, fix=fix)
        if overwrite:
            _clear_curve(out)
            return self._create(out)
        if changed := self._changed_settings(out):
            what = f"the learning curve has different settings: {', '.join(changed)}"
            fix = "choose another --out, or add --overwrite"
            raise RunError(what, where=out, fix=fix)
        return out

    def _next_free(self) -> Path:
        data = Path(self.recipe.data).stem or "data"
        network = "own" if self.make else short_name(self.recipe.model)
        stem = names.safe_name(f"{data}-{network}")
        stems = chain([stem], (f"{stem}-{number}" for number in count(2)))
        for folder in (Path("runs/curve", name) for name in stems):
            if not folder.exists():
                self._create(folder)
            if (folder / CURVE_FILE).is_file() and not self._changed_settings(folder):
                break
        return folder

    def _create(self, curve_folder: Path) -> Path:
        write_json(curve_folder / CURVE_FILE, {"plan": self.plan})
        return curve_folder

    def _changed_settings(self, curve_folder: Path) -> list[str]:
        saved = read_json(curve_folder / CURVE_FILE)["plan"]
        binding = {k: v for k, v in self.plan.items() if k not in NO_EFFECT_SETTINGS}
        return [name for name, value in binding.items() if saved.get(name) != value]

    def run_all(self, curve_folder: Path, log: Log) -> tuple[list[CurveRun], str]:
        """Train the runs that are missing; return all runs and the evaluated split.

        Raises:
            InterruptedRunError: The user stopped training; the same command continues.
            RunError: Another process uses the curve or one of its runs.
        """
        runs: list[CurveRun] = []
        total = len(self.fractions) * self.seeds
        with lock_folder(curve_folder):
            for seed in range(self.recipe.seed, self.recipe.seed + self.seeds):
                images = _Images(replace(self.recipe, seed=seed))
                for fraction in self.fractions:
                    try:
                        run, is_new = self._run(curve_folder, images, fraction)
                    except InterruptedRunError as error:
                        what = (
                            f"stopped after {len(runs)} of {count_text(total, 'run')}"
                        )
                        fix, where = "run the same command to continue", curve_folder
                        raise InterruptedRunError(what, where=where, fix=fix) from error
                    runs.append(_to_curve_run(run, fraction, seed))
                    log(_progress_line(runs[-1], len(runs), total, is_new))
        order = sorted(runs, key=lambda run: (run.fraction, run.seed))
        return order, run.evaluated_split

    def _run(
        self, curve_folder: Path, images: _Images, fraction: float
    ) -> tuple[Run, bool]:
        """Return the run of a fraction, and whether this call trained the run."""
        recipe = replace(images.recipe, epochs=self.epochs(fraction))
        if recipe.precision == "auto":  # which depends on the length of the run
            recipe = replace(recipe, precision="fp32")
        out = curve_folder / f"fraction-{fraction:g}-seed-{recipe.seed}"
        if (run := _finished(out)) is not None:
            images.check(run, fraction)
            return run, False
        _clear_run(out)
        data = images.cut(fraction)
        if self.make is None:
            recipe = replace(recipe, fraction=fraction)
            return train_recipe(recipe, data=data, out=out, quiet=True), True
        fixed = LOADED_DATA_SETTINGS | {"data", "model"}
        settings = {k: v for k, v in recipe.as_dict().items() if k not in fixed}
        torch.manual_seed(derive_seed(recipe.seed, "init"))
        return train(self.make(data), data, out=out, quiet=True, **settings), True

    def epochs(self, fraction: float) -> int:
        """Return the number of epochs for a fraction of the training images."""
        return round(self.recipe.epochs * min(1 / fraction, MAX_EPOCH_FACTOR))


class _Images:
    """Images split with one seed, loaded on first use."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._data: ImageData | None = None

    def cut(self, fraction: float) -> ImageData:
        if self._data is None:
            self._data = load_recipe(self.recipe)
        return self._data.with_fraction(fraction)

    def check(self, run: Run, fraction: float) -> None:
        """Raise an error if the images have changed since a run was trained."""
        if self._data is None:
            return
        now = data_hash(self._data.with_fraction(fraction))
        if run.manifest["data"]["hash"] != now:
            fix = "start again: choose another --out, or add --overwrite"
            what = "the images have changed since this run was trained"
            raise RunError(what, where=run.path, fix=fix)


def _finished(out: Path) -> Run | None:
    with suppress(RunError):
        run = Run(out)
        if run.manifest["status"] == "done":
            return run
    return None


def _clear_run(out: Path) -> None:
    """Delete the files of an interrupted run; raise an error if the run is in use."""
    if not out.is_dir():
        return
    # The curve is locked, but its run may be in use by `striate train --resume`.
    with lock_folder(out), storage_errors(out, 0):
        names.clear_folder(out)


def _clear_curve(out: Path) -> None:
    """Delete the files of a learning curve; raise an error if the curve is in use."""
    with lock_folder(out), ExitStack() as runs, storage_errors(out, 0):
        for lock in out.glob(f"*/{LOCK}"):
            runs.enter_context(lock_folder(lock.parent))
        names.clear_folder(out)


def _to_curve_run(run: Run, fraction: float, seed: int) -> CurveRun:
    score = run.scores[run.evaluated_split]
    images = run.manifest["data"]["splits"]["train"]
    return CurveRun(
        fraction=fraction,
        seed=seed,
        path=run.path,
        images=images,
        test_images=score["count"],
        accuracy=score["accuracy"],
        balanced_accuracy=score["balanced_accuracy"],
    )


def _progress_line(run: CurveRun, number: int, total: int, is_new: bool) -> str:
    suffix = "" if is_new else "  (already done)"
    return (
        f"run {number:>{len(str(total))}}/{total}  fraction {run.fraction:<7.4g} "
        f"seed {run.seed}{count_text(run.images, 'image'):>16}  "
        f"accuracy {100 * run.accuracy:.2f} %{suffix}"
    )
