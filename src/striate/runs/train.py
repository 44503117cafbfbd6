"""The main job: pictures and a network in, a run folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import nn

from striate.core import device as devices
from striate.core.errors import SettingError, StorageError, StriateError
from striate.core.files import hash_file, write_json
from striate.data.image_data import ImageData
from striate.engine.average import Average
from striate.engine.checkpoint import load_weights
from striate.engine.loop import Plan
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.tensorboard import check_tensorboard
from striate.engine.vault import Sealed
from striate.engine.views import VIEWS
from striate.models.catalogue import find
from striate.runs import folder as names
from striate.runs.auto import decide
from striate.runs.manifest import circumstances, exactness, now, update_manifest
from striate.runs.prepare import (
    AUTO,
    LOADED,
    build,
    load_recipe,
    place,
    resolve,
    write_inputs,
)
from striate.runs.recipe import Recipe, make_recipe
from striate.runs.run import CUSTOM, Run, score_dict
from striate.runs.session import Job, Learnt, learn
from striate.runs.speed import laps_of, note_speed, settle, speed_facts, way_of
from striate.runs.steps import batches_of, cost_of_classes
from striate.runs.story import write_report

Begun = Callable[[ImageData, Path], None]


def _nobody(data: ImageData, folder: Path) -> None:
    """Tell nobody that a run has begun."""


def train_recipe(
    recipe: Recipe,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    begun: Begun = _nobody,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Do everything a recipe says: read the data, build the network, train, judge.

    Args:
        recipe: All settings.
        data: Its pictures, where they are read already (`load_recipe`).
        out: The run folder; `runs/train/<data>-<model>` where not given.
        overwrite: Replace a run folder that is there.
        begun: Told the data and the run folder before learning begins.
        quiet: Show no progress.
        tensorboard: Write event files too, for watching the run in TensorBoard.

    Raises:
        StriateError: The data, the settings or the disk do not admit it.
    """
    if tensorboard:
        check_tensorboard()
    if recipe.model != AUTO:
        find(recipe.model)  # a misspelt name is told before any picture is read
    data = load_recipe(recipe, quiet=quiet) if data is None else data
    recipe = resolve(recipe, data)
    model = build(recipe, data)
    with _prepared(model, data, recipe, out, overwrite) as (folder, recipe):
        begun(data, folder)
        return run_in(folder, model, data, recipe, quiet, tensorboard=tensorboard)


def train(
    model: nn.Module,
    data: ImageData,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    **settings: Any,
) -> Run:
    """Train any network on loaded data; the settings are those of `Recipe`.

    Args:
        model: Any module from (N, C, H, W) to (N, classes); trained in place, and
            left with the best weights.
        data: From `load_data`.
        out: The run folder; `runs/train/<data>-<class>` where not given.
        overwrite: Replace a run folder that is there.
        quiet: Show no progress.
        tensorboard: Write event files too, for watching the run in TensorBoard.
        settings: For example `epochs=10, lr=0.01`.

    Raises:
        StriateError: The settings, the network or the disk do not admit it.
    """
    if tensorboard:
        check_tensorboard()
    if decided := LOADED & settings.keys():
        what = f"{', '.join(sorted(decided))} is decided when pictures are loaded"
        raise SettingError(what, where="train", fix="give it to load_data instead")
    name = f"{CUSTOM}{type(model).__module__}.{type(model).__qualname__}"
    fixed = {"data": data.origin or data.name, "model": name}
    recipe = resolve(make_recipe(settings, fixed), data)
    where = Path(out) if out is not None else None
    with _prepared(model, data, recipe, where, overwrite) as (folder, recipe):
        return run_in(folder, model, data, recipe, quiet, tensorboard=tensorboard)


@contextmanager
def _prepared(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
) -> Iterator[tuple[Path, Recipe]]:
    """Put the model where it learns, try it, make the run folder and hold it."""
    place(model, data, recipe)
    found = decide(recipe, model, data)
    short = recipe.model.removeprefix(CUSTOM).rpartition(".")[2]
    name = f"{data.name}-{short}"
    with names.new_folder("train", name, out, overwrite) as folder:
        settled = settle(model, data, found.recipe)
        write_inputs(folder, model, data, settled.recipe, found.notes)
        found.save(folder)
        note_speed(folder, settled)
        yield folder, settled.recipe


def run_in(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    sealed: Sealed | None = None,
    inexact: Sequence[str] = (),
    tensorboard: bool = False,
) -> Run:
    """Learn into a run folder that is held, from a checkpoint where given, and judge.

    Raises:
        StriateError: It was stopped, or blew up, or the disk refused.
    """
    try:
        job = _job(folder, model, data, recipe, quiet, list(inexact), tensorboard)
        learnt = learn(job, sealed)
        if job.inexact:
            update_manifest(folder, exact=exactness(job.inexact))
        run = Run(folder, model=model, data=data)
        _conclude(run, model, learnt)
    except BaseException as error:
        reason = error.what if isinstance(error, StriateError) else repr(error)
        with suppress(StorageError):  # on a full disk the first error is the message
            update_manifest(folder, status="stopped", reason=reason, finished=now())
        raise
    return run


def _job(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    inexact: list[str],
    tensorboard: bool,
) -> Job:
    """Put together everything that learns, and what it learns from."""
    device = devices.choose(recipe.device)
    devices.keep_freed_memory()
    optimizer = make_optimizer(
        model, recipe.optimizer, recipe.rate, recipe.momentum, recipe.weight_decay
    )
    plan = Plan(
        epochs=recipe.epochs,
        lr=recipe.rate,
        schedule=SCHEDULES[recipe.schedule],
        label_smoothing=recipe.label_smoothing,
        patience=recipe.patience,
        classes=cost_of_classes(data, recipe, device),
        balanced=recipe.class_weights != "none",
        view=VIEWS[recipe.test_view],
        seed=recipe.seed,
        way=way_of(recipe),
    )
    return Job(
        folder=folder,
        recipe=recipe,
        model=model,
        optimizer=optimizer,
        plan=plan,
        train=batches_of("train", data, recipe, device),
        val=batches_of("val", data, recipe, device),
        facts=circumstances(recipe, data, device),
        inexact=inexact,
        quiet=quiet,
        tensorboard=tensorboard,
        laps=laps_of(model, data, recipe, quiet),
        average=Average(model, recipe.ema) if recipe.ema else None,
    )


def _conclude(run: Run, model: nn.Module, learnt: Learnt) -> None:
    """Judge the best weights, the test part once, and write the report."""
    load_weights(model, run.path / names.BEST)
    scores = {}
    for part in ("val", "test"):
        if part in run.data.parts:
            predictions = run.judge(run.data.part(part))
            predictions.save(run.path / names.predictions_file(part))
            scores[part] = score_dict(predictions.score())
    write_json(run.path / names.SCORES, scores)
    history, seconds = learnt.history, learnt.seconds
    pictures = len(history) * len(run.data.part("train"))
    rate = pictures / seconds
    update_manifest(
        run.path,
        finished=now(),
        seconds=round(seconds, 3),
        epochs=len(history),
        images_per_second=round(rate, 1),
        speed=speed_facts(learnt.laps, rate),
        best_epoch=max(done.epoch for done in history if done.best) + 1,
        weights=hash_file(run.path / names.BEST),
    )
    write_report(run)
    update_manifest(run.path, status="done")


def summary_json(run: Run, **more: Any) -> str:
    """Return what `striate train --json` prints."""
    test = run.scores.get("test", run.scores["val"])
    chosen = {key: test[key] for key in ("accuracy", "interval", "count", "loss")}
    fields = {
        "run": str(run.path),
        "report": str(run.path / names.REPORT),
        "part": run.judged_part,
        **chosen,
        "seconds": run.manifest["seconds"],
        "parameters": run.manifest["parameters"],
        **more,
    }
    return json.dumps(fields)
