"""Train a model on images as a new run, and write the run folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from torch import nn

from striate.core.errors import SettingError
from striate.core.files import read_json
from striate.core.hooks import unwrap_compiled
from striate.core.torch_modes import own_torch_modes
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.torch_dataset.source import TorchData
from striate.engine.config import TUNED_LR
from striate.engine.distributed.group import RankGroup
from striate.engine.tensorboard import check_tensorboard
from striate.run import layout as names
from striate.run.build_network import CUSTOM, resolve_network, short_name
from striate.run.manifest import update_manifest
from striate.run.parse_settings import make_recipe
from striate.run.prepare_run import (
    LOADED_DATA_SETTINGS,
    build_model,
    load_recipe,
    prepare_model,
    resolve_recipe,
    write_run_inputs,
)
from striate.run.pretrained import with_known_network
from striate.run.progress import ignore, line_printer
from striate.run.recipe import Recipe
from striate.run.recipe_types import TrainSettings
from striate.run.run import Run
from striate.run.verdict import run_verdict
from striate.workflows.train.auto_settings import resolve_auto_settings
from striate.workflows.train.autotune import autotune, save_autotune
from striate.workflows.train.build_job import SessionOptions
from striate.workflows.train.ranks import (
    check_distributed,
    check_same_data,
    find_earlier_attempt,
    join_rank_group,
    share_folder,
)
from striate.workflows.train.resume import OnResume, resume_run
from striate.workflows.train.run_job import train_in_folder
from striate.workflows.train.training_forecast import (
    TrainingForecast,
    forecast_memory,
    forecast_training,
    warn_of_missing_memory,
)

OnBegin = Callable[[ImageData, Path], None]


@own_torch_modes()
def train_recipe(
    recipe: Recipe,
    *,
    data: ImageData | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    on_begin: OnBegin = ignore,
    on_resume: OnResume = ignore,
    quiet: bool = False,
    tensorboard: bool = False,
) -> Run:
    """Read the data, build the model, train and evaluate, as set in a recipe.

    Args:
        recipe: All settings.
        data: The images, if they are already loaded (`load_recipe`).
        out: The run folder (default: `runs/train/<data>-<model>`).
        overwrite: Replace an existing run folder.
        on_begin: Called with the data and the run folder before training begins.
        on_resume: Called in place of `on_begin` if torchrun restarts the run.
        quiet: Show no progress.
        tensorboard: Also write TensorBoard event files.

    Raises:
        StriateError: The data or the settings are invalid, or a file could not be
            written.
    """
    recipe = resolve_network(with_known_network(recipe))
    if recipe.pretrained is not None and recipe.lr is None:
        recipe = replace(recipe, lr=TUNED_LR[recipe.optimizer])
    options = SessionOptions(quiet=quiet, tensorboard=tensorboard)
    return _train_or_resume(
        recipe, None, data, out, overwrite, options, on_begin, on_resume
    )


@own_torch_modes()
def train(
    model: nn.Module,
    data: ImageData | TorchData,
    val: TorchData | None = None,
    test: TorchData | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    **settings: Unpack[TrainSettings],
) -> Run:
    """Train any model on loaded data, with the settings of `Recipe`.

    Args:
        model: Any module from (N, C, H, W) to (N, classes); trained in place, and
            returned with the best weights. Lazy layers get their shapes from the
            data. Of a module that `torch.compile` returned, the network inside is
            trained; `compile="on"` compiles the training step.
        data: The images, from `load_data`; or a torch `Dataset` or `DataLoader` of
            (image, label) with images as PIL images, uint8 arrays (H, W[, C]) or
            tensors (C, H, W), see `load_data`.
        val: `Dataset` or `DataLoader` of the validation split; None takes it from
            `data`.
        test: `Dataset` or `DataLoader` of the test split.
        out: The run folder (default: `runs/train/<data>-<class>`).
        overwrite: Replace an existing run folder.
        quiet: Show no progress.
        tensorboard: Also write TensorBoard event files.
        settings: Settings of `Recipe`, for example `epochs=10, lr=0.01`.

    Raises:
        StriateError: The settings, the data or the model are invalid, or a file could
            not be written.

    Example:
        >>> import tempfile, torch
        >>> from torch.utils.data import TensorDataset
        >>> images = torch.arange(24.0).view(12, 1, 2, 1).expand(-1, -1, -1, 2) / 24
        >>> toy = TensorDataset(images, torch.arange(12) // 6)
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> folder = f"{tempfile.mkdtemp()}/toy"
        >>> run = train(net, toy, toy, epochs=1, out=folder, quiet=True)
        >>> run.data.image_size, run.scores["val"]["count"]
        ((2, 2), 12)
    """
    if settings.get("pretrained") is not None:
        what = "pretrained cannot be used with a model object"
        fix = "load the weights first: striate.load_pretrained(model, path)"
        raise SettingError(what, where="pretrained", fix=fix)
    if settings.get("head_hidden"):
        what = "head_hidden cannot be used with a model object"
        fix = "add the hidden layer first: striate.models.head.deepen"
        raise SettingError(what, where="head_hidden", fix=fix)
    if fixed := LOADED_DATA_SETTINGS & settings.keys():
        what = f"{', '.join(sorted(fixed))} must be set when images are loaded"
        raise SettingError(what, where="train", fix="pass the setting to load_data")
    model = unwrap_compiled(model)
    data = _loaded(data, val, test, settings)
    if data.batch_size and "batch_size" not in settings:
        settings["batch_size"] = data.batch_size
    name = f"{CUSTOM}{type(model).__module__}.{type(model).__qualname__}"
    origin = {"data": data.origin or data.name, "model": name}
    recipe = resolve_recipe(make_recipe(settings, origin), data)
    folder = Path(out) if out is not None else None
    options = SessionOptions(quiet=quiet, tensorboard=tensorboard)
    return _train_or_resume(
        recipe, model, data, folder, overwrite, options, _print_forecast(quiet)
    )


def _print_forecast(quiet: bool) -> OnBegin:
    """Return a callback that prints the forecast of a run to stderr."""

    def on_begin(data: ImageData, folder: Path) -> None:
        forecast = TrainingForecast(**read_json(folder / names.MANIFEST)["forecast"])
        for note in forecast.notes if forecast.fits else ():
            line_printer(quiet)(note)

    return on_begin


def _loaded(
    data: ImageData | TorchData,
    val: TorchData | None,
    test: TorchData | None,
    settings: Mapping[str, Any],
) -> ImageData:
    """Load the images of torch data sets; return an `ImageData` unchanged."""
    if not isinstance(data, ImageData):
        # First the settings: a wrong one fails before any image is read.
        recipe = make_recipe(settings, {"data": "torch", "model": CUSTOM})
        seed, workers = recipe.seed, recipe.workers
        return load_data(data, val=val, test=test, seed=seed, workers=workers)
    if val is not None or test is not None:
        what = "val and test cannot be added to loaded images"
        fix = "load all splits: striate.load_data(train, val=val, test=test)"
        raise SettingError(what, where="train", fix=fix)
    return data


def _train_or_resume(
    recipe: Recipe,
    model: nn.Module | None,
    data: ImageData | None,
    out: Path | None,
    overwrite: bool,
    options: SessionOptions,
    on_begin: OnBegin = ignore,
    on_resume: OnResume = ignore,
) -> Run:
    """Train a new run, or resume the run if torchrun restarts the command."""
    if options.tensorboard:
        check_tensorboard()
    key = f"{out}|{recipe.data}|{recipe.model}"
    with join_rank_group(recipe) as group:
        earlier, has_checkpoint = find_earlier_attempt(key, group)
        if earlier and has_checkpoint:
            return resume_run(
                earlier,
                {},
                model=model,
                data=data,
                on_resume=on_resume,
                options=options,
                group=group,
            )
        out, overwrite = earlier or out, overwrite or earlier is not None
        options = options.for_rank(group)
        if group.is_main:
            names.check_out(out, overwrite)
        if data is None:
            with group.local_main_first("reading the images"):
                data = load_recipe(recipe, quiet=options.quiet)
        if model is None:
            recipe = resolve_recipe(recipe, data)
            model = build_model(recipe, data)
        new = _new_folder(model, data, recipe, out, overwrite, group, key)
        with new as (folder, recipe):
            if group.is_main:
                on_begin(data, folder)
            return train_in_folder(folder, model, data, recipe, options, group=group)


@contextmanager
def _new_folder(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    out: Path | None,
    overwrite: bool,
    group: RankGroup,
    key: str,
) -> Iterator[tuple[Path, Recipe]]:
    """Resolve automatic settings, then create and lock the run folder."""
    check_same_data(data, group)
    prepare_model(model, data, recipe)
    memory = forecast_memory(model, data, recipe) if group.is_main else None
    if memory is not None:
        warn_of_missing_memory(memory)
    automatic = resolve_auto_settings(recipe, model, data, group)
    check_distributed(automatic.recipe, group)
    if not group.is_main:
        tuned = autotune(model, data, automatic.recipe, group)
        yield share_folder(None, group), tuned.recipe
        return
    name = f"{data.name}-{short_name(recipe.model)}"
    with names.new_folder("train", name, out, overwrite) as folder:
        group.store_set(key, str(folder.resolve()))
        tuned = autotune(model, data, automatic.recipe, group)
        forecast = forecast_training(model, data, tuned.recipe, tuned.benchmark, memory)
        notes = [*automatic.notes, *forecast.notes]
        write_run_inputs(folder, model, data, tuned.recipe, notes)
        update_manifest(folder, **forecast.as_record())
        automatic.save(folder)
        save_autotune(folder, tuned)
        share_folder(folder, group)
        yield folder, tuned.recipe


def summary_json(run: Run, **extra: Any) -> str:
    """Return the summary of a run as JSON text, for `striate train --json`."""
    scores = run.scores.get("test", run.scores["val"])
    figures = {key: scores[key] for key in ("accuracy", "interval", "count", "loss")}
    several = ("map", "map_interval", "micro_f1", "macro_f1")
    figures |= {key: scores[key] for key in several if key in scores}
    fields = {
        "run": str(run.path),
        "report": str(run.path / names.REPORT),
        "split": run.evaluated_split,
        **figures,
        "train_accuracy": run.manifest["train_accuracy"],
        "verdict": run_verdict(run).as_dict(),
        "seconds": run.manifest["seconds"],
        "parameters": run.manifest["parameters"],
        "forecast": run.manifest.get("forecast"),
        **extra,
    }
    return json.dumps(fields)
