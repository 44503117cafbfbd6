"""Prepare a run: load the images, build and check the model, write input files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core import device as devices
from striate.core.aux_heads import HeadOutputs
from striate.core.derive_seed import derive_seed
from striate.core.errors import GeometryError, SettingError
from striate.core.files import write_csv, write_json, write_text
from striate.core.format import count_text
from striate.core.hooks import (
    model_restored,
    trace_modules,
)
from striate.core.layer_names import layer_name
from striate.core.lazy_layers import materialize_lazy
from striate.core.logits import main_output
from striate.core.model_state import rng_state_restored
from striate.core.settings import AUTO
from striate.data.augment.random_crop import crop_margin
from striate.data.batches import Batches
from striate.data.config import DataConfig
from striate.data.image_data import ImageData
from striate.data.load import load_data
from striate.data.load_options import LoadOptions
from striate.data.progressive_resize import Side
from striate.data.split.assign import is_left_out
from striate.data.split.split_file import write_split
from striate.engine.config import OptimConfig
from striate.engine.execution_config import check_precision
from striate.engine.weights_io import save_weights
from striate.finetune.freeze import (
    check_patterns,
    freeze,
    freeze_stats_of_frozen,
    frozen_layers,
)
from striate.interpret.filters import first_convolution
from striate.layers.drop_path import set_drop_path
from striate.layers.whiten import num_images_for_fit, whiten_layers
from striate.models.config import ModelConfig
from striate.models.head import deepen
from striate.run import layout as names
from striate.run.build_from_recipe import (
    check_batch_norm,
    epoch_image_sizes,
    last_batch_notes,
    process_notes,
    progressive_resize_notes,
    recipe_execution,
)
from striate.run.build_network import CUSTOM, build_network, outputs_fix
from striate.run.manifest import first_manifest
from striate.run.network_errors import ANY_BATCH, first_output
from striate.run.pretrained import (
    load_recipe_weights,
    preprocess_settings,
    pretrained_notes,
    pretrained_record,
    with_weights_statistics,
)
from striate.run.progress import reading_progress
from striate.run.recipe import InputConfig, Recipe
from striate.run.stored_network import store_network
from striate.run.yaml_io import settings_yaml

DATA_SETTINGS = tuple(spec.name for spec in fields(DataConfig))
# Settings that have no effect if the data is already loaded, as in `striate.train`.
LOADED_DATA_SETTINGS = {*DATA_SETTINGS} - {"seed", "cache", "cache_gb", "workers"}


def load_recipe(recipe: Recipe, *, quiet: bool = True) -> ImageData:
    """Load and split the images of a recipe; show progress unless `quiet`."""
    split = str(names.find_split(recipe.split)) if recipe.split else None
    config = replace(recipe, **preprocess_settings(recipe), split=split)
    margin, tick = crop_margin(recipe.augmentation), reading_progress(quiet)
    options = LoadOptions(margin=margin, tick=tick)
    data = load_data(recipe.data, config, options=options)
    return with_weights_statistics(data, recipe)


def auto_model(in_chans: int) -> str:
    """Return the network name for `--model auto`, by number of input channels."""
    return "tutorial_gray" if in_chans == 1 else "tutorial_color"


def resolve_recipe(recipe: Recipe, data: ImageData) -> Recipe:
    """Return the recipe with `auto` replaced by the values in use."""
    is_auto, used = recipe.model == AUTO, data.preprocess
    return replace(
        recipe.resolved(),
        model=auto_model(data.in_chans) if is_auto else recipe.model,
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


def build_model(config: InputConfig, data: ImageData) -> nn.Module:
    """Build the network of a recipe and load its pretrained weights."""
    model = build_network(
        config.model,
        num_classes=data.num_classes,
        in_chans=data.in_chans,
        image_size=data.image_size,
        seed=config.seed,
    )
    if config.pretrained is not None:
        load_recipe_weights(config, model, data)
    if config.head_hidden:
        deepen(model, config.head_hidden, config.seed)
    return model


def prepare_model(model: nn.Module, data: ImageData, recipe: Recipe) -> None:
    """Apply the recipe to a model, move the model to its device, and test the model.

    Raises:
        GeometryError: The image size or the channels do not fit the model.
        SettingError: The number of outputs is not the number of classes, the batch size
            is too small, or the device or the precision is not available.
    """
    device = devices.select_device(recipe.device)
    if recipe.class_weights == "sampling":
        flag, fix = "--class-weights sampling", "use --class-weights auto (pos_weight)"
        data.labels.require_one_label(flag, fix)
    with rng_state_restored():
        torch.manual_seed(derive_seed(recipe.seed, "lazy layers"))
        materialize_lazy(model, (data.in_chans, *data.image_size))
    regularize(model, recipe)
    check_batch_norm(model, data, recipe)
    check_precision(recipe.precision, device)
    if recipe.pretrained is None:  # pretrained filters stay as they are
        _whiten(model, data, recipe.seed)
    freeze_stats_of_frozen(model)
    if recipe.freeze:
        check_patterns(model, recipe.freeze)
        freeze(model, recipe.freeze)
    layout = recipe_execution(recipe).memory_format
    model.to(device, memory_format=layout)  # type: ignore[call-overload]
    _check_output(model, data, device, recipe.model)
    if recipe.model.startswith(CUSTOM):
        _check_training_output(model, data, device)
    check_image_sizes(model, data.in_chans, epoch_image_sizes(data, recipe), device)


def frozen_record(model: nn.Module, config: ModelConfig) -> dict[str, Any]:
    """Return the manifest entry of frozen layers; empty if no layer is frozen.

    Fixed filters that are computed instead of trained do not count as frozen.
    """
    if config.freeze is None and not config.model.startswith(CUSTOM):
        return {}
    layers = frozen_layers(model)
    entry = {"frozen": {**asdict(layers), "text": str(layers)}}
    return entry if layers.layers else {}


def _whiten(model: nn.Module, data: ImageData, seed: int) -> None:
    """Compute the filters of whitening layers from a batch of training images."""
    layers = whiten_layers(model)
    if not layers:
        return
    batches = Batches(
        subset=data.subset("train"),
        preprocess=data.preprocess,
        batch_size=num_images_for_fit(*data.preprocess.spec.shape),
        seed=seed,
    )
    images, _ = next(iter(batches(0)))
    for layer in layers:
        layer.fit(images)


def _check_output(
    model: nn.Module, data: ImageData, device: torch.device, name: str
) -> None:
    """Run one image, so that errors occur before any file is written."""
    _check_weights(model)
    output = first_output(model, (data.in_chans, *data.image_size), device)
    shape = tuple(main_output(output).shape)
    if shape == (data.num_classes,):
        what = "for a batch of one image, the output has no dimension for the images"
        raise SettingError(what, fix=f"{ANY_BATCH}: flatten(1) instead of squeeze()")
    if shape != (1, data.num_classes):
        what = (
            f"model output {shape[1:]} does not match "
            f"{count_text(data.num_classes, 'class', 'classes')}"
        )
        raise SettingError(what, fix=outputs_fix(name, data.num_classes))


def _check_training_output(
    model: nn.Module, data: ImageData, device: torch.device
) -> None:
    """Check the output in training mode, which differs in some networks.

    Training mode changes the statistics of batch norm, so it runs on a copy.
    """
    probe = torch.zeros(2, data.in_chans, *data.image_size, device=device)
    with model_restored(model, Tensor.clone) as trial, torch.no_grad():
        trial.train()
        with suppress(RuntimeError, ValueError):  # the training loop names the step
            output = trial(probe)
            _ = output if isinstance(output, HeadOutputs) else main_output(output)


def _check_weights(model: nn.Module) -> None:
    """Raise an error if the weights of a network cannot be trained."""
    for name, weight in model.named_parameters():
        if weight.dtype in (torch.float16, torch.bfloat16, torch.float64):
            kind = str(weight.dtype).removeprefix("torch.")
            what = f"the weights are {kind}, and images are float32"
            fix = "cast the network to float32 first: model.float()"
            raise SettingError(what, where=layer_name(name), fix=fix)
        if weight.is_inference():
            what = "the weights were made in torch.inference_mode, so they cannot learn"
            fix = "build the network outside of torch.inference_mode"
            raise SettingError(what, where=layer_name(name), fix=fix)


def write_run_inputs(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    notes: Sequence[str] = (),
) -> None:
    """Write the files of a run that exist before training, such as the manifest."""
    manifest = first_manifest(folder.name, data, recipe)
    manifest["notes"] = [*data.notes, *last_batch_notes(data, recipe), *notes]
    manifest["notes"] += pretrained_notes(recipe, data)
    manifest["notes"] += progressive_resize_notes(data, recipe)
    manifest["notes"] += process_notes(recipe)
    manifest |= store_network(folder, recipe.model)
    manifest |= pretrained_record(recipe, data) | frozen_record(model, recipe)
    manifest["parameters"] = sum(p.numel() for p in model.parameters())
    write_json(folder / names.MANIFEST, manifest)
    settings = replace(recipe, trust=False).as_dict()  # never read from a file
    write_text(folder / names.ARGS, settings_yaml(settings))
    write_json(folder / names.CLASSES, list(data.labels.names))
    write_json(folder / names.PREPROCESS, data.preprocess.as_dict())
    write_split(folder / names.SPLIT, data.rows)
    skipped = [("quarantined", skip) for skip in data.quarantined]
    skipped += [
        ("left_out" if is_left_out(skip) else "ignored", skip) for skip in data.ignored
    ]
    rows = [(status, s.path, s.reason, s.detail) for status, s in skipped]
    write_csv(folder / names.QUARANTINE, names.QUARANTINE_COLUMNS, rows)
    first = first_convolution(model)
    if first is not None:
        save_weights(folder / names.FIRST_LAYER, {first[0]: first[1].weight})


def regularize(model: nn.Module, optim: OptimConfig) -> None:
    """Set the dropout and stochastic-depth probabilities of a network."""
    if optim.dropout is not None:
        set_dropout(model, optim.dropout)
    if optim.drop_path:
        set_drop_path(model, optim.drop_path)


def set_dropout(model: nn.Module, rate: float) -> None:
    """Set the dropout probability of all dropout layers of a network.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        >>> set_dropout(model, 0.1)
        >>> model[1]
        Dropout(p=0.1, inplace=False)
    """
    layers = [m for m in model.modules() if isinstance(m, _DropoutNd)]
    if not layers:
        what = "the network has no dropout layer"
        fix = "use a network with dropout (tutorial_color, vgg16), or --drop-path"
        raise SettingError(what, where="--dropout", fix=fix)
    for layer in layers:
        layer.p = rate


def check_image_sizes(
    model: nn.Module, channels: int, sides: Sequence[Side], device: torch.device
) -> None:
    """Check that a network can train on each image size; do not change the network.

    The check runs in training mode, because auxiliary heads are active only there.

    Raises:
        GeometryError: The network fails on a size; the message names the layer.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        >>> check_image_sizes(model, 1, [(8, 8)], torch.device("cpu"))
        >>> check_image_sizes(model, 1, [(4, 4)], torch.device("cpu"))
        Traceback (most recent call last):
        ...
        striate.core.errors.GeometryError: the network cannot train on 4×4 images ...
    """
    active: list[str] = []  # modules whose forward is running

    def enter(name: str, module: nn.Module, inputs: object) -> None:
        active.append(name or type(module).__name__)

    def leave(name: str, module: nn.Module, output: object) -> None:
        active.pop()

    # Training mode changes the statistics of batch norm, so it runs on a copy.
    with model_restored(model, Tensor.clone) as trial, torch.no_grad():
        trial.train()
        for height, width in dict.fromkeys(sides):
            probe = torch.zeros(2, channels, height, width, device=device)
            active.clear()
            try:
                with trace_modules(trial, enter=enter, leave=leave):
                    trial(probe)
            except (RuntimeError, ValueError, GeometryError) as error:
                raise _refusal(error, f"{height}×{width}", active[-1]) from error


def _refusal(error: Exception, size: str, layer: str) -> GeometryError:
    """Return the error for an image size on which a layer fails; name the layer."""
    images = f"{size} images of --progressive-resize"
    what = f"the network cannot train on {images}: {str(error).splitlines()[0]}"
    fix = (
        "leave out --progressive-resize, use a larger fraction, or use a network "
        "with global average pooling: resnet18, antialiased_resnet18, mobilenet_v2"
    )
    return GeometryError(what, where=f"layer {layer}", fix=fix)
