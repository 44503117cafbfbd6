"""The main job: pictures and a network in, a run folder out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.core import device as devices
from striate.core.errors import (
    GeometryError,
    SettingError,
    StorageError,
    StriateError,
)
from striate.core.files import hash_file, write_csv, write_json, write_text
from striate.data.batches import Batches
from striate.data.load import ImageData, load_data
from striate.data.sources.source import Skipped
from striate.engine.checkpoint import load_weights, save_weights
from striate.engine.loop import Plan
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.vault import Sealed
from striate.look.filters import first_convolution
from striate.models.catalogue import create_model, find
from striate.runs import folder as names
from striate.runs.manifest import (
    circumstances,
    exactness,
    first_manifest,
    now,
    update_manifest,
)
from striate.runs.recipe import Recipe, make_recipe, settings_text
from striate.runs.run import CUSTOM, EVALUATION_BATCH, Run, score_dict
from striate.runs.session import Job, Learnt, learn
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
) -> Run:
    """Do everything a recipe says: read the data, build the network, train, judge.

    Args:
        recipe: All settings.
        out: The run folder; `runs/train/<data>-<model>` where not given.
        overwrite: Replace a run folder that is there.
        begun: Told the data and the run folder before learning begins.
        quiet: Show no progress.

    Raises:
        StriateError: The data, the settings or the disk do not admit it.
    """
    if recipe.model != AUTO:
        find(recipe.model)  # a misspelt name is told before any picture is read
    data = read_data(recipe, recipe.data)
    recipe = _resolve(recipe, data)
    model = build(recipe, data)
    with _prepared(model, data, recipe, out, overwrite) as folder:
        begun(data, folder)
        return run_in(folder, model, data, recipe, quiet)


def train(
    model: nn.Module,
    data: ImageData,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
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
        settings: For example `epochs=10, lr=0.01`.

    Raises:
        StriateError: The settings, the network or the disk do not admit it.
    """
    name = f"{CUSTOM}{type(model).__module__}.{type(model).__qualname__}"
    fixed = {"data": data.origin or data.name, "model": name}
    recipe = _resolve(make_recipe(settings, fixed), data)
    place = Path(out) if out is not None else None
    with _prepared(model, data, recipe, place, overwrite) as folder:
        return run_in(folder, model, data, recipe, quiet)


def read_data(recipe: Recipe, source: str) -> ImageData:
    """Read and split the pictures of a recipe."""
    return load_data(
        source,
        image_size=recipe.image_size,
        in_chans=recipe.in_chans,
        resize=recipe.resize,
        val_fraction=recipe.val_fraction,
        test_fraction=recipe.test_fraction,
        seed=recipe.seed,
    )


def build(recipe: Recipe, data: ImageData) -> nn.Module:
    """Build the network of a recipe, as it is before it learns."""
    return create_model(
        recipe.model,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        image_size=data.image_size,
        seed=recipe.seed,
    )


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


@contextmanager
def _prepared(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
) -> Iterator[Path]:
    """Put the model where it learns, try it, make the run folder and hold it."""
    place(model, data, recipe)
    short = recipe.model.removeprefix(CUSTOM).rpartition(".")[2]
    name = f"{data.name}-{short}"
    with names.new_folder("train", name, out, overwrite) as folder:
        write_inputs(folder, model, data, recipe)
        yield folder


def place(model: nn.Module, data: ImageData, recipe: Recipe) -> None:
    """Put the model where it learns, and try it.

    Raises:
        GeometryError: It cannot take the pictures.
        SettingError: It gives another number of classes, or there is no such device.
    """
    device = devices.choose(recipe.device)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_output(model, data, device)


def run_in(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    sealed: Sealed | None = None,
    inexact: Sequence[str] = (),
) -> Run:
    """Learn into a run folder that is held, from a checkpoint where given, and judge.

    Raises:
        StriateError: It was stopped, or blew up, or the disk refused.
    """
    try:
        job = _job(folder, model, data, recipe, quiet, list(inexact))
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


def write_inputs(
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


def _job(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    quiet: bool,
    inexact: list[str],
) -> Job:
    """Put together everything that learns, and what it learns from."""
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
        seed=recipe.seed,
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
    return Job(
        folder=folder,
        recipe=recipe,
        model=model,
        optimizer=optimizer,
        plan=plan,
        train=batches["train"],
        val=batches["val"],
        facts=circumstances(recipe, data, device),
        inexact=inexact,
        quiet=quiet,
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
