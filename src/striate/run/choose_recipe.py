"""Choose how `striate train DATA` trains: on a pretrained backbone, or from scratch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from striate.core.errors import WeightsError
from striate.core.files import read_json
from striate.core.format import count_text
from striate.core.settings import AUTO, flag_name
from striate.data.config import AugmentConfig
from striate.data.dataset_size import DatasetSize, dataset_size
from striate.engine.distributed.rank_info import RankInfo
from striate.run import layout as names
from striate.run.manifest import update_manifest
from striate.run.parse_settings import AUTO_SETTINGS
from striate.run.presets import PRESETS
from striate.run.pretrained import find_weights
from striate.run.recipe import TRAINING_LOOP_SETTINGS, Recipe
from striate.run.transfer_plan import LOGISTIC, TRAINED

BACKBONE = "mobilenet_v2"  # small and fast on a CPU, with free weights
# Shorter side in pixels (docs/notebook/accuracy-recipes.md): from `PHOTO_SIDE` on, a
# pretrained backbone is better; from `SMALL_SIDE` on, the preset small-images.
PHOTO_SIDE, SMALL_SIDE = 48, 24
LARGE_DATASET = 10_000  # more images need fewer epochs and larger batches
AUGMENTED_VIEWS = 3  # copies of each training image if augmentation is requested
AUGMENT_SETTINGS = {spec.name for spec in fields(AugmentConfig)}
# Settings of gradient descent; with one of them the optimizer trains the head.
OPTIMIZER_SETTINGS = {
    *("epochs", "batch_size", "lr", "optimizer", "momentum", "weight_decay"),
    *("schedule", "patience"),
}
# Settings that train all layers: a head on frozen features cannot use them.
NETWORK_SETTINGS = {
    *("dropout", "drop_path", "mixup", "cutmix", "ema", "sync_batch_norm"),
    *("progressive_resize", "freeze", "head_hidden"),
}
# Settings that a head on frozen features does not need: speed, safety and logs.
UNUSED_SETTINGS = {*TRAINING_LOOP_SETTINGS, "tensorboard"} - NETWORK_SETTINGS


@dataclass(frozen=True, kw_only=True)
class RecipeChoice:
    """Choice between a pretrained backbone and training from scratch."""

    recipe: Recipe  # the recipe with the chosen network
    # fields of `TransferOptions` to train a head; None: train the whole network
    transfer: Mapping[str, Any] | None = field(default=None)
    text: str = ""  # what was chosen and why, and the flags for another choice

    def record(self, folder: Path) -> None:
        """Write the choice as the first note into the manifest of a run folder."""
        if self.text:
            notes = read_json(folder / names.MANIFEST)["notes"]
            update_manifest(folder, notes=[self.text, *notes])


def choose_recipe(recipe: Recipe, explicit: Collection[str]) -> RecipeChoice:
    """Choose the network of a recipe with `model="auto"` and no pretrained weights.

    Args:
        recipe: The recipe.
        explicit: Names of the settings that the user has set. The choice respects all
            of them.

    Raises:
        DataError: The data set does not exist, or its layout is not supported.
    """
    if recipe.model != AUTO or recipe.pretrained is not None:
        return RecipeChoice(recipe=recipe)
    sample = dataset_size(recipe.data)
    reason = _reason_against_transfer(recipe, sample, explicit)
    if not reason:
        try:
            find_weights(BACKBONE, recipe.cache, offline=recipe.offline)
        except WeightsError as error:
            reason = f"the pretrained weights are not available ({error.what})"
    if reason or sample is None:
        return _from_scratch(recipe, sample, explicit, reason)
    return _transfer(recipe, sample, explicit)


def _reason_against_transfer(
    recipe: Recipe, sample: DatasetSize | None, explicit: Collection[str]
) -> str:
    """Return why a pretrained backbone does not fit; empty if it fits."""
    flags = sorted(flag_name(name) for name in NETWORK_SETTINGS.intersection(explicit))
    if flags:
        return f"{' and '.join(flags)} cannot be used with frozen features"
    if RankInfo.from_environment().world_size > 1:
        return "transfer learning needs a single process"
    if sample is None:
        return "the images are in tar shards or at a network address"
    if sample.side < PHOTO_SIDE:
        return f"images of {sample.side} pixels are too small for a pretrained network"
    return ""


def _transfer(
    recipe: Recipe, sample: DatasetSize, explicit: Collection[str]
) -> RecipeChoice:
    """Return the choice of a head on the frozen features of a pretrained backbone."""
    options: dict[str, Any] = {"head": LOGISTIC}
    kind = "logistic regression"
    automatic = {name for name in AUTO_SETTINGS if getattr(recipe, name) == AUTO}
    if trained := sorted(
        flag_name(n) for n in OPTIMIZER_SETTINGS.intersection(explicit) - automatic
    ):
        options["head"] = TRAINED
        kind = f"a linear layer, trained by {recipe.optimizer} ({' '.join(trained)})"
    if AUGMENT_SETTINGS.intersection(explicit):
        options["views"] = AUGMENTED_VIEWS
    unused = automatic | UNUSED_SETTINGS.intersection(explicit)
    text = (
        f"chosen: {kind} on the features of a frozen {BACKBONE}, pretrained on "
        f"ImageNet, for {count_text(sample.images, 'image')} in "
        f"{count_text(sample.classes, 'class', 'classes')} (shorter side "
        f"{sample.side} pixels)"
    )
    if unused:
        flags = " and ".join(sorted(map(flag_name, unused)))
        text += f"; {flags} {'has' if len(unused) == 1 else 'have'} no effect on it"
    text += f"; to fine-tune all layers: --pretrained {BACKBONE}"
    text += "; to train from scratch: --preset photographs"
    usual = Recipe(data=recipe.data)
    defaults = {name: getattr(usual, name) for name in unused - {"tensorboard"}}
    recipe = replace(recipe, model=BACKBONE, pretrained=BACKBONE, **defaults)
    return RecipeChoice(recipe=recipe, transfer=options, text=text)


def _from_scratch(
    recipe: Recipe, sample: DatasetSize | None, explicit: Collection[str], reason: str
) -> RecipeChoice:
    """Return the choice of a network and settings to train from scratch."""
    preset, settings = "", {}
    if sample is not None and sample.side >= SMALL_SIDE:
        preset = "photographs" if sample.side >= PHOTO_SIDE else "small-images"
        settings = dict(PRESETS[preset].settings)
        if preset == "small-images" and sample.images > LARGE_DATASET:
            settings |= {"model": "fast_small_wide", "epochs": 8, "batch_size": 256}
    own = {name: settings[name] for name in settings if name not in explicit}
    recipe = replace(recipe, **own)
    network = "a small network" if recipe.model == AUTO else recipe.model
    text = f"chosen: {network}, trained from scratch"
    text += f" (--preset {preset})" if preset else ""
    text += f", because {reason}; another network: --model NAME"
    if NETWORK_SETTINGS.intersection(explicit) and preset == "photographs":
        text += f"; to train from pretrained weights: --pretrained {BACKBONE}"
    return RecipeChoice(recipe=recipe, text=text)
