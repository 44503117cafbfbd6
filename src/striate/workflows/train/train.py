"""The main job: images and a network in, a run folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from striate.core import device as devices
from striate.core.errors import SettingError, StorageError, StriateError
from striate.core.files import hash_file, read_json, write_json
from striate.core.malloc import keep_freed_memory
from striate.data.image_data import ImageData
from striate.engine.checkpoint_store import Checkpoint
from striate.engine.distributed.group import RankGroup
from striate.engine.ema import EMA
from striate.engine.tensorboard import check_tensorboard
from striate.engine.tta import TTA_MODES
from striate.engine.weights_io import load_weights
from striate.finetune.freeze import check_frozen
from striate.models.catalogue import model_entry
from striate.run import layout as names
from striate.run.builders import as_shown, batches_of, optimizer_of, plan_of, way_of
from striate.run.manifest import circumstances, exactness, now, update_manifest
from striate.run.recipe import Recipe, make_recipe
from striate.run.report_page import write_report
from striate.run.run import CUSTOM, Run, score_dict, short_name
from striate.run.setup import (
    AUTO,
    LOADED,
    build,
    load_recipe,
    place,
    resolve,
    write_inputs,
)
from striate.workflows.train.auto_settings import decide
from striate.workflows.train.autotune import laps_of, note_speed, settle, speed_facts
from striate.workflows.train.ranks import (
    begun_before,
    check_data,
    check_together,
    follows,
    in_turn,
    share_folder,
    together,
)
from striate.workflows.train.trainer import Job, Learned, learn
from striate.workflows.train.worker_rank import follow

if TYPE_CHECKING:
    from striate.workflows.train.resume import Resumed

Begun = Callable[[ImageData, Path], None]
GoneOn = Callable[["Resumed"], None]


def _nobody(data: ImageData, folder: Path) -> None:
    """Tell nobody that a run has begun."""


def _nobody_goes_on(resumed: Resumed) -> None:
    """Tell nobody how a run goes on."""


def train_recipe(
    recipe: Recipe,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    begun: Begun = _nobody,
    gone_on: GoneOn = _nobody_goes_on,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Do everything a recipe says: read the data, build the network, train, judge.

    Args:
        recipe: All settings.
        data: Its images, where they are read already (`load_recipe`).
        out: The run folder; `runs/train/<data>-<model>` where not given.
        overwrite: Replace a run folder that is there.
        begun: Told the data and the run folder before learning begins.
        gone_on: Told how it goes on, in its place, where torchrun starts it again.
        quiet: Show no progress.
        tensorboard: Write event files too, for watching the run in TensorBoard.

    Raises:
        StriateError: The data, the settings or the disk do not admit it.
    """
    if recipe.model != AUTO:
        model_entry(recipe.model)  # a misspelt name is told before any image is read
    return _trained(
        recipe, None, data, out, overwrite, quiet, tensorboard, begun, gone_on
    )


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
    if settings.get("pretrained") is not None:
        what = "this network is an object, which has its weights already"
        fix = "load them into it first: striate.load_pretrained(model, path)"
        raise SettingError(what, where="pretrained", fix=fix)
    if settings.get("head_hidden"):
        what = "this network is an object, whose head is its own"
        fix = "put the layer into it before: striate.models.head.deepen"
        raise SettingError(what, where="head_hidden", fix=fix)
    if decided := LOADED & settings.keys():
        what = f"{', '.join(sorted(decided))} is decided when images are loaded"
        raise SettingError(what, where="train", fix="give it to load_data instead")
    name = f"{CUSTOM}{type(model).__module__}.{type(model).__qualname__}"
    fixed = {"data": data.origin or data.name, "model": name}
    recipe = resolve(make_recipe(settings, fixed), data)
    where = Path(out) if out is not None else None
    return _trained(recipe, model, data, where, overwrite, quiet, tensorboard)


def _trained(
    recipe: Recipe,
    model: nn.Module | None,
    data: ImageData | None,
    out: Path | None,
    overwrite: bool,
    quiet: bool,
    tensorboard: bool,
    begun: Begun = _nobody,
    gone_on: GoneOn = _nobody_goes_on,
) -> Run:
    """Train a network, the recipe's where none is given, as one of its processes."""
    if tensorboard:
        check_tensorboard()
    key = f"{out}|{recipe.data}|{recipe.model}"
    with together(recipe) as ranks:
        earlier, learned = begun_before(key, ranks)
        if earlier and learned:
            how = quiet, tensorboard, ranks
            return _gone_on(earlier, data, *how, model=model, begun=gone_on)
        out, overwrite = earlier or out, overwrite or earlier is not None
        quiet = quiet or follows(ranks)
        if data is None:
            with in_turn(ranks):
                data = load_recipe(recipe, quiet=quiet)
        if model is None:
            recipe = resolve(recipe, data)
            model = build(recipe, data)
        new = _prepared(model, data, recipe, out, overwrite, ranks, key)
        with new as (folder, recipe):
            if not follows(ranks):
                begun(data, folder)
            given = folder, model, data, recipe, quiet
            return run_in(*given, tensorboard=tensorboard, ranks=ranks)


def _gone_on(
    folder: Path,
    data: ImageData | None,
    quiet: bool,
    tensorboard: bool,
    ranks: RankGroup | None,
    model: nn.Module | None = None,
    begun: GoneOn = _nobody_goes_on,
) -> Run:
    """Go on with what torchrun began before a fault."""
    from striate.workflows.train.resume import go_on  # it stands on this file

    return go_on(
        folder,
        {},
        model=model,
        data=data,
        begun=begun,
        quiet=quiet,
        tensorboard=tensorboard,
        ranks=ranks,
    )


@contextmanager
def _prepared(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
    ranks: RankGroup | None,
    key: str,
) -> Iterator[tuple[Path, Recipe]]:
    """Put the model where it learns, try it, make the run folder and hold it."""
    check_data(data, ranks)
    place(model, data, recipe)
    found = decide(recipe, model, data, ranks)
    check_together(found.recipe, ranks)
    if ranks and not ranks.is_main:
        decided = settle(model, data, found.recipe, ranks).recipe
        yield share_folder(None, ranks), decided
        return
    name = f"{data.name}-{short_name(recipe.model)}"
    with names.new_folder("train", name, out, overwrite) as folder:
        if ranks:
            ranks.store_set(key, str(folder.resolve()))
        settled = settle(model, data, found.recipe, ranks)
        write_inputs(folder, model, data, settled.recipe, found.notes)
        found.save(folder)
        note_speed(folder, settled)
        if ranks:
            share_folder(folder, ranks)
        yield folder, settled.recipe


def run_in(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    sealed: Checkpoint | None = None,
    inexact: Sequence[str] = (),
    tensorboard: bool = False,
    ranks: RankGroup | None = None,
) -> Run:
    """Learn into a run folder that is held, from a checkpoint where given, and judge.

    Raises:
        StriateError: It was stopped, or blew up, or the disk refused.
    """
    how = list(inexact), tensorboard, ranks
    if ranks and not ranks.is_main:
        return follow(folder, _job(folder, model, data, recipe, quiet, *how), ranks)
    try:
        job = _job(folder, model, data, recipe, quiet, *how)
        learned = learn(job, sealed)
        if job.inexact:
            update_manifest(folder, exact=exactness(job.inexact))
        _conclude(Run(folder, model=model, data=data), model, learned, ranks)
    except BaseException as error:
        reason = error.what if isinstance(error, StriateError) else repr(error)
        with suppress(StorageError):  # on a full disk the first error is the message
            update_manifest(folder, status="stopped", reason=reason, finished=now())
        raise
    # Anew: what was read on the way is from before the run was done.
    return Run(folder, model=model, data=data)


def _job(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    inexact: list[str],
    tensorboard: bool,
    ranks: RankGroup | None,
) -> Job:
    """Put together everything that learns, and what it learns from."""
    device = devices.select_device(recipe.device)
    keep_freed_memory()
    plan = plan_of(data, recipe, device)
    return Job(
        folder=folder,
        recipe=recipe,
        model=model,
        optimizer=optimizer_of(model, recipe),
        plan=replace(plan, tta=TTA_MODES[recipe.tta], execution=way_of(recipe)),
        train=as_shown(batches_of("train", data, recipe, device, ranks), data, recipe),
        val=batches_of("val", data, recipe, device, ranks),
        facts=circumstances(recipe, data, device),
        inexact=inexact,
        quiet=quiet,
        tensorboard=tensorboard,
        laps=laps_of(model, data, recipe, quiet, ranks),
        ranks=ranks,
        train_data=data,
        average=EMA(model, recipe.ema) if recipe.ema else None,
    )


def _conclude(
    run: Run, model: nn.Module, learned: Learned, ranks: RankGroup | None
) -> None:
    """Judge the best weights, the test split once, and write the report."""
    load_weights(model, run.path / names.BEST)
    # Not by `run.manifest`, which would keep what is not complete yet.
    if before := read_json(run.path / names.MANIFEST).get("frozen"):
        check_frozen(model, before["sha256"])
    if ranks:
        ranks.barrier("the others to read the best weights")
    scores = {}
    for split in run.splits_to_evaluate:
        predictions = run.judge(run.data.subset(split), ranks)
        predictions.save(run.path / names.predictions_file(split))
        scores[split] = score_dict(predictions.score())
    write_json(run.path / names.SCORES, scores)
    history, seconds = learned.history, learned.seconds
    images = len(history) * len(run.data.subset("train"))
    rate = images / seconds
    update_manifest(
        run.path,
        finished=now(),
        seconds=round(seconds, 3),
        epochs=len(history),
        images_per_second=round(rate, 1),
        speed=speed_facts(learned.laps, rate, len(history)),
        best_epoch=max(done.epoch for done in history if done.best) + 1,
        weights=hash_file(run.path / names.BEST),
    )
    write_report(run)
    update_manifest(run.path, status="done")
    if ranks:
        ranks.barrier("the others to see that the run is done")


def summary_json(run: Run, **more: Any) -> str:
    """Return what `striate train --json` prints."""
    test = run.scores.get("test", run.scores["val"])
    chosen = {key: test[key] for key in ("accuracy", "interval", "count", "loss")}
    fields = {
        "run": str(run.path),
        "report": str(run.path / names.REPORT),
        "split": run.evaluated_split,
        **chosen,
        "seconds": run.manifest["seconds"],
        "parameters": run.manifest["parameters"],
        **more,
    }
    return json.dumps(fields)
