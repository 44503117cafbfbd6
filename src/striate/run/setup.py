"""What stands before a run learns: images, a network that fits them, a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from striate.core import device as devices
from striate.core.errors import GeometryError, SettingError
from striate.core.files import write_csv, write_json, write_text
from striate.data.augment.random_crop import crop_margin
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.sources.source import Skipped
from striate.data.split.split_file import write_split
from striate.engine.execution import check_precision
from striate.engine.weights_io import save_weights
from striate.finetune.freeze import check_patterns, freeze, frozen, keep_frozen
from striate.interpret.filters import first_convolution
from striate.layers.whiten import num_images_for_fit, whiten_layers
from striate.models.catalogue import create_model
from striate.models.head import deepen
from striate.run import layout as names
from striate.run.builders import (
    batch_notes,
    check_batch,
    growth_notes,
    rank_notes,
    sides_of,
    way_of,
)
from striate.run.input_sizes import check_sides
from striate.run.manifest import first_manifest
from striate.run.pretrained import (
    as_weights_want,
    load_weights_of,
    reading_settings,
    weights_facts,
    weights_notes,
)
from striate.run.progress import reading
from striate.run.recipe import Recipe
from striate.run.regularization import regularize
from striate.run.run import CUSTOM
from striate.run.yaml_io import settings_text

AUTO = "auto"
# Settings that say how images are read; `load_data` takes them under these names.
READING = (
    *("image_size", "in_chans", "resize", "background", "white_level", "jpeg"),
    *("normalize", "mean", "std", "val_fraction", "test_fraction", "fraction"),
    *("folds", "fold", "seed", "cache", "cache_gb", "workers"),
)
# `train` gets loaded data, where settings of the split and the input would do nothing.
LOADED = {*READING, "split"} - {"seed", "cache", "cache_gb", "workers"}


def load_recipe(recipe: Recipe, *, quiet: bool = True) -> ImageData:
    """Read the images that a recipe is about, split as it says; tell unless quiet.

    Raises:
        StriateError: The data or the settings do not admit it.
    """
    settings = {name: getattr(recipe, name) for name in READING}
    data = load_data(
        recipe.data,
        **{**settings, **reading_settings(recipe)},
        split=names.find_split(recipe.split) if recipe.split else None,
        margin=crop_margin(recipe.augmentation),
        tick=reading(quiet),
    )
    return as_weights_want(data, recipe)


def auto_model(in_chans: int) -> str:
    """Return the network that `auto` stands for."""
    return "tutorial_gray" if in_chans == 1 else "tutorial_color"


def resolve(recipe: Recipe, data: ImageData) -> Recipe:
    """Decide what was left automatic, so that `args.yaml` holds what was used."""
    model = recipe.model
    if model == AUTO:
        model = auto_model(data.in_chans)
    used = data.preprocess
    return replace(
        recipe.resolved(),
        model=model,
        image_size=data.image_size,
        in_chans=data.in_chans,
        resize=used.resize,
        background=used.background,
        white_level=used.white_level,
        jpeg=used.jpeg,
        val_fraction=data.split_config.val,
        test_fraction=data.split_config.test,
        fraction=data.split_config.fraction,
        folds=data.split_config.folds,
        fold=data.split_config.fold,
        split=data.earlier_split or None,
    )


def build(recipe: Recipe, data: ImageData) -> nn.Module:
    """Build the network of a recipe, as it is before it learns.

    Raises:
        WeightsError: It begins with weights that are not its own.
    """
    model = create_model(
        recipe.model,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        image_size=data.image_size,
        seed=recipe.seed,
    )
    if recipe.pretrained is not None:
        load_weights_of(recipe, model, data)
    if recipe.head_hidden:
        deepen(model, recipe.head_hidden, recipe.seed)
    return model


def place(model: nn.Module, data: ImageData, recipe: Recipe) -> None:
    """Put the model where it learns, and try it.

    Raises:
        GeometryError: It cannot take the images.
        SettingError: It gives another number of classes, needs more images a step,
            or there is no such device, or it loses by half precision.
    """
    device = devices.select_device(recipe.device)
    regularize(model, recipe)
    check_batch(model, recipe)
    check_precision(recipe.precision, device)
    if recipe.pretrained is None:  # filters that were learned with are kept
        _whiten(model, data, recipe)
    keep_frozen(model)
    if recipe.freeze:
        check_patterns(model, recipe.freeze)
        freeze(model, recipe.freeze)
    layout = way_of(recipe).memory_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    _check_output(model, data, device)
    check_sides(model, data.in_chans, sides_of(data, recipe), device)


def frozen_facts(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Return what a manifest says of layers that do not learn; empty without any.

    Filters that a network computes instead of learning are its own affair.
    """
    if recipe.freeze is None and not recipe.model.startswith(CUSTOM):
        return {}
    found = frozen(model)
    return {"frozen": {**asdict(found), "said": str(found)}} if found.layers else {}


def _whiten(model: nn.Module, data: ImageData, recipe: Recipe) -> None:
    """Show training images to layers whose filters are computed from them."""
    layers = whiten_layers(model)
    if not layers:
        return
    some = Batches(
        subset=data.subset("train"),
        preprocess=data.preprocess,
        batch_size=num_images_for_fit(*data.preprocess.spec.shape),
        seed=recipe.seed,
    )
    images, _ = next(iter(some(0)))
    for layer in layers:
        layer.fit(images)


def _check_output(model: nn.Module, data: ImageData, device: torch.device) -> None:
    """Try one image, so that a misfit is told before anything is written."""
    channels, (height, width) = data.in_chans, data.image_size
    probe = torch.zeros(1, channels, height, width, device=device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            shape = tuple(model(probe).shape)
    except RuntimeError as error:
        size = f"{height}×{width}×{channels}"
        what = f"the network cannot take images of {size}: {str(error).splitlines()[0]}"
        raise GeometryError(what, fix="change --image-size or --in-chans") from error
    finally:
        model.train(training)
    if shape != (1, data.num_classes):
        what = f"the network gives {shape[1:]}, the data has {data.num_classes} classes"
        raise SettingError(what, fix=f"build it with num_classes={data.num_classes}")


def write_inputs(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    notes: Sequence[str] = (),
) -> None:
    """Write down everything the run starts from, before it starts."""
    manifest = first_manifest(folder.name, data, recipe)
    manifest["notes"] = [*data.notes, *batch_notes(data, recipe), *notes]
    manifest["notes"] += weights_notes(recipe, data)
    manifest["notes"] += [*growth_notes(data, recipe), *rank_notes(recipe)]
    manifest |= weights_facts(recipe, data) | frozen_facts(model, recipe)
    manifest["parameters"] = sum(p.numel() for p in model.parameters())
    write_json(folder / names.MANIFEST, manifest)
    write_text(folder / names.ARGS, settings_text(recipe))
    write_json(folder / names.CLASSES, list(data.labels.names))
    write_json(folder / names.PREPROCESS, data.preprocess.as_dict())
    write_split(folder / names.SPLIT, data.rows)
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
