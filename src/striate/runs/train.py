"""The main job: pictures and a network in, a run folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.core import device as devices
from striate.core.errors import (
    GeometryError,
    InterruptedRunError,
    SettingError,
    StorageError,
    StriateError,
)
from striate.core.files import hash_file, write_csv, write_json, write_text
from striate.core.seeds import derive
from striate.data.batches import Batches
from striate.data.load import ImageData, load_data
from striate.data.sources.source import Skipped
from striate.engine.checkpoint import Keeper, load_weights, save_weights
from striate.engine.interrupt import polite_interrupt
from striate.engine.journal import Journal
from striate.engine.loop import EpochDone, Observer, Plan, fit
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.tensorboard import boards, check_tensorboard
from striate.look.filters import first_convolution
from striate.models.catalogue import create_model, find
from striate.runs import folder as names
from striate.runs.display import Display
from striate.runs.manifest import first_manifest, now, update_manifest
from striate.runs.recipe import Recipe, make_recipe, settings_text
from striate.runs.run import CUSTOM, EVALUATION_BATCH, Run, score_dict
from striate.runs.story import write_report

AUTO = "auto"
Begun = Callable[[ImageData, Path], None]


def _nobody(data: ImageData, folder: Path) -> None:
    """Tell nobody that a run has begun."""


def train_recipe(
    recipe: Recipe,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    begun: Begun = _nobody,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Do everything a recipe says: read the data, build the network, train, judge.

    Args:
        recipe: All settings.
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
    data = load_data(
        recipe.data,
        image_size=recipe.image_size,
        in_chans=recipe.in_chans,
        resize=recipe.resize,
        val_fraction=recipe.val_fraction,
        test_fraction=recipe.test_fraction,
        seed=recipe.seed,
    )
    recipe = _resolve(recipe, data)
    model = create_model(
        recipe.model,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        image_size=data.image_size,
        seed=recipe.seed,
    )
    folder = _prepare(model, data, recipe, out, overwrite)
    begun(data, folder)
    return _run(model, data, recipe, folder, quiet, tensorboard)


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
    name = f"{CUSTOM}{type(model).__module__}.{type(model).__qualname__}"
    fixed = {"data": data.origin or data.name, "model": name}
    recipe = _resolve(make_recipe(settings, fixed), data)
    place = Path(out) if out is not None else None
    folder = _prepare(model, data, recipe, place, overwrite)
    return _run(model, data, recipe, folder, quiet, tensorboard)


def _resolve(recipe: Recipe, data: ImageData) -> Recipe:
    """Decide what was left automatic, so that `args.yaml` holds what was used."""
    model = recipe.model
    if model == AUTO:
        model = "notes_grey" if data.in_chans == 1 else "notes_colour"
    return replace(
        recipe.resolved(),
        model=model,
        image_size=data.image_size,
        in_chans=data.in_chans,
        resize=data.preprocess.resize,
    )


def _prepare(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
) -> Path:
    """Put the model where it learns, try it, and make the run folder."""
    device = devices.choose(recipe.device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_output(model, data, device)
    short = recipe.model.removeprefix(CUSTOM).rpartition(".")[2]
    folder = names.new_folder("train", f"{data.name}-{short}", out, overwrite)
    _write_inputs(folder, model, data, recipe)
    return folder


def _run(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    quiet: bool,
    tensorboard: bool,
) -> Run:
    try:
        history = _learn(model, data, recipe, folder, quiet, tensorboard)
        run = Run(folder, model=model, data=data)
        _conclude(run, model, history)
    except BaseException as error:
        reason = error.what if isinstance(error, StriateError) else repr(error)
        with suppress(StorageError):  # on a full disk the first error is the message
            update_manifest(folder, status="stopped", reason=reason, finished=now())
        raise
    return run


def _check_output(model: nn.Module, data: ImageData, device: torch.device) -> None:
    """Try one picture, so that a misfit is told before anything is written."""
    channels, (height, width) = data.in_chans, data.image_size
    probe = torch.zeros(1, channels, height, width, device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            shape = tuple(model(probe).shape)
    except RuntimeError as error:
        size = f"{height}×{width}×{channels}"
        what = (
            f"the network cannot take pictures of {size}: {str(error).splitlines()[0]}"
        )
        raise GeometryError(what, fix="change --image-size or --in-chans") from error
    finally:
        model.train(training)
    if shape != (1, data.num_classes):
        what = f"the network gives {shape[1:]}, the data has {data.num_classes} classes"
        raise SettingError(what, fix=f"build it with num_classes={data.num_classes}")


def _write_inputs(
    folder: Path, model: nn.Module, data: ImageData, recipe: Recipe
) -> None:
    """Write down everything the run starts from, before it starts."""
    manifest = first_manifest(folder.name, data, recipe.seed)
    manifest["parameters"] = sum(p.numel() for p in model.parameters())
    write_json(folder / names.MANIFEST, manifest)
    write_text(folder / names.ARGS, settings_text(recipe))
    write_json(folder / names.CLASSES, list(data.labels.names))
    write_json(folder / names.PREPROCESS, data.preprocess.as_dict())
    rows = ((r.path, r.label, r.part, r.group, r.content) for r in data.rows)
    columns = ("path", "label", "split", "group", "content")
    write_csv(folder / names.SPLIT, columns, rows)
    _write_skipped(folder / names.QUARANTINE, data.quarantined, data.ignored)
    first = first_convolution(model)
    if first is not None:
        save_weights(folder / names.FIRST_LAYER, {first[0]: first[1].weight})


def _write_skipped(
    path: Path, quarantined: Sequence[Skipped], ignored: Sequence[Skipped]
) -> None:
    rows = [("quarantined", s.path, s.reason, s.detail) for s in quarantined]
    rows += [("ignored", s.path, s.reason, s.detail) for s in ignored]
    write_csv(path, ("status", "path", "reason", "detail"), rows)


def _learn(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    quiet: bool,
    tensorboard: bool,
) -> list[EpochDone]:
    """Run the loop with its journal, its keeper and whoever else watches."""
    device = devices.choose(recipe.device)
    devices.keep_freed_memory()
    lr = recipe.lr or 0.0
    optimizer = make_optimizer(
        model, recipe.optimizer, lr, recipe.momentum, recipe.weight_decay
    )
    plan = Plan(
        epochs=recipe.epochs,
        lr=lr,
        schedule=SCHEDULES[recipe.schedule],
        label_smoothing=recipe.label_smoothing,
        patience=recipe.patience,
    )
    batches = {
        part: Batches(
            part=data.part(part),
            preprocess=data.preprocess,
            batch_size=recipe.batch_size if part == "train" else EVALUATION_BATCH,
            shuffle=part == "train",
            augment=recipe.augment if part == "train" else "none",
            seed=recipe.seed,
            device=device,
        )
        for part in ("train", "val")
    }
    keeper = Keeper(folder / names.WEIGHTS, model, optimizer)
    torch.manual_seed(derive(recipe.seed, "dropout"))
    train_part, val_part = batches["train"], batches["val"]
    with (
        Journal(folder) as journal,
        Display(plan.epochs, train_part, quiet) as display,
        boards(folder / names.TENSORBOARD, tensorboard) as board,
        devices.flushed_denormals(),
        polite_interrupt() as asked,
    ):
        observers: tuple[Observer, ...] = (journal, keeper, display, *board)
        history = fit(model, optimizer, train_part, val_part, plan, observers, asked)
        if asked():
            keeper.save_last()
            done = len(history)
            what = f"stopped on request after {done} of {recipe.epochs} epochs"
            fix = f"the last state is saved in {folder / names.WEIGHTS / 'last'}"
            raise InterruptedRunError(what, where=folder, fix=fix)
    return history


def _conclude(run: Run, model: nn.Module, history: Sequence[EpochDone]) -> None:
    """Judge the best weights, the test part once, and write the report."""
    load_weights(model, run.path / names.BEST)
    scores = {}
    for part in ("val", "test"):
        if part in run.data.parts:
            predictions = run.judge(run.data.part(part))
            predictions.save(run.path / names.predictions_file(part))
            scores[part] = score_dict(predictions.score())
    write_json(run.path / names.SCORES, scores)
    seconds = history[-1].seconds
    pictures = len(history) * len(run.data.part("train"))
    update_manifest(
        run.path,
        finished=now(),
        seconds=round(seconds, 3),
        epochs=len(history),
        images_per_second=round(pictures / seconds, 1),
        best_epoch=max(done.epoch for done in history if done.best) + 1,
        weights=hash_file(run.path / names.BEST),
    )
    write_report(run)
    update_manifest(run.path, status="done")


def summary_json(run: Run) -> str:
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
    }
    return json.dumps(fields)
