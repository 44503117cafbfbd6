"""What a step of a run holds: its batch, its rate, its cost of unlike classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from striate.core.errors import SettingError
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.progressive_resize import ProgressiveResize, Side, sides_by_epoch
from striate.engine.distributed.group import RankGroup
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.execution import ExecutionConfig
from striate.engine.loop import FitConfig
from striate.engine.loss import ClassBalance, balanced_class_weights, class_priors
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.run.recipe import AUTO, Recipe
from striate.run.run import judged_at_once


def check_batch(model: nn.Module, recipe: Recipe) -> None:
    """Refuse steps of one image where a layer needs more.

    A last batch of one joins the batch before it, so it comes to this by wish only.

    Raises:
        SettingError: A batch norm would have one image; names the layer.
    """
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    if recipe.batch_size != 1 or not norms:
        return
    what = "batch norm needs two images a step to have a variance, got one"
    fix = "use --batch-size 2 or more, or a network without batch norm"
    raise SettingError(what, where=f"layer {norms[0]}", fix=fix)


def batch_notes(data: ImageData, recipe: Recipe) -> tuple[str, ...]:
    """Say what becomes of an image left over by the batch size."""
    count, size = len(data.subset("train")), recipe.images_a_step
    if size == 1 or count % size != 1:
        return ()
    over = f"{count:,} images in steps of {size} leave one over"
    return (f"{over}; it joins the last step, which takes {size + 1}",)


def batches_of(
    split: str,
    data: ImageData,
    recipe: Recipe,
    device: torch.device,
    ranks: RankGroup | None = None,
) -> Batches:
    """Return a part's batches: shuffled and changed to learn from, else as they are.

    Of each batch a process gets its share, where several learn together.

    Raises:
        SettingError: Rare classes are to be shown oftener, of images in blocks.
    """
    learns = split == "train"
    balanced = learns and recipe.class_weights == "sampling"
    if balanced and data.subset(split).blocks:
        what = "streamed images come in their order, none oftener than others"
        fix = "use --class-weights auto or loss"
        raise SettingError(what, where="--class-weights sampling", fix=fix)
    size = recipe.images_a_step if learns else judged_at_once(*data.image_size)
    return Batches(
        subset=data.subset(split),
        preprocess=data.preprocess,
        batch_size=size,
        shuffle=learns,
        balanced=balanced,
        augment=recipe.augmentation if learns else "none",
        classes=data.num_classes,
        seed=recipe.seed,
        device=device,
        rank=ranks.rank_info.rank if ranks else 0,
        world_size=ranks.world_size if ranks else 1,
    )


def sides_of(data: ImageData, recipe: Recipe) -> tuple[Side, ...]:
    """Return height and width of training images in each epoch, where they grow.

    Raises:
        SettingError: They are so small that nothing would grow.
    """
    full = data.image_size
    if recipe.progressive_resize == 1:
        return ()
    sides = sides_by_epoch(full, recipe.progressive_resize, recipe.epochs)
    if recipe.epochs > 1 and sides[0] == full:
        size, start = f"{full[0]}×{full[1]}", recipe.progressive_resize
        what = f"images of {size} do not grow from {start:g} of it"
        fix = "leave it away; sides are multiples of 16"
        raise SettingError(what, where="--progressive-resize", fix=fix)
    return sides


def growth_notes(data: ImageData, recipe: Recipe) -> tuple[str, ...]:
    """Say in which epochs images have which size."""
    sides = sides_of(data, recipe)
    return (f"images grow: {spans(sides)}",) if sides else ()


def spans(sides: Sequence[Side]) -> str:
    """Write sizes with the epochs, counted from 1, in which they are shown.

    Example:
        >>> spans([(16, 16), (16, 16), (28, 28)])
        '16×16 in epochs 1–2, 28×28 in epoch 3'
    """
    words, first = [], 1
    for (height, width), run in groupby(sides):
        last = first + len(list(run)) - 1
        epochs = f"epoch {first}" if first == last else f"epochs {first}–{last}"
        words.append(f"{height}×{width} in {epochs}")
        first = last + 1
    return ", ".join(words)


def as_shown(
    batches: Batches, data: ImageData, recipe: Recipe
) -> Batches | ProgressiveResize:
    """Return training batches in the sizes that the recipe shows them in."""
    sides = sides_of(data, recipe)
    return ProgressiveResize(batches=batches, sides=sides) if sides else batches


def optimizer_of(
    model: nn.Module, recipe: Recipe, scales: Mapping[nn.Parameter, float] | None = None
) -> Optimizer:
    """Return the optimizer that a recipe names.

    Args:
        model: What learns.
        recipe: Its rate must have been decided.
        scales: Shares of the rate by parameter, where they differ.
    """
    settings = recipe.optimizer, recipe.rate, recipe.momentum, recipe.weight_decay
    return make_optimizer(model, *settings, scales)


def plan_of(data: ImageData, recipe: Recipe, device: torch.device) -> FitConfig:
    """Return how long, how fast and by what cost a recipe learns."""
    return FitConfig(
        epochs=recipe.epochs,
        lr=recipe.rate,
        schedule=SCHEDULES[recipe.schedule],
        label_smoothing=recipe.label_smoothing,
        patience=recipe.patience,
        class_balance=cost_of_classes(data, recipe, device),
        balanced=recipe.class_weights != "none",
        seed=recipe.seed,
        micro_batches=recipe.accumulate,
    )


def cost_of_classes(
    data: ImageData, recipe: Recipe, device: torch.device
) -> ClassBalance | None:
    """Return how the cost makes up for uneven classes, where it is to do so."""
    counts = data.subset("train").labels.bincount(minlength=data.num_classes)
    if recipe.class_weights == "auto":
        return ClassBalance(prior=class_priors(counts).to(device))
    if recipe.class_weights == "loss":
        return ClassBalance(weights=balanced_class_weights(counts).to(device))
    return None


def way_of(recipe: Recipe) -> ExecutionConfig:
    """Return how a run is computed; what is still left open is as usual.

    Example:
        >>> print(way_of(Recipe(data="digits", layout="nchw")))
        nchw fp32
    """
    usual = ExecutionConfig()
    return ExecutionConfig(
        layout=usual.layout if recipe.layout == AUTO else recipe.layout,
        compiled=recipe.compile == "on",
        precision=usual.precision if recipe.precision == AUTO else recipe.precision,
    )


def rank_notes(recipe: Recipe) -> tuple[str, ...]:
    """Say how many processes learn, and with how many threads."""
    place = RankInfo.from_environment()
    if place.world_size == 1:
        return ()
    threads = torch.get_num_threads()
    each = "1 thread" if threads == 1 else f"{threads} threads"
    share = (
        f"{place.world_size} processes of {each} share each step's {recipe.batch_size}"
    )
    norms = "whole batch" if recipe.sync_batch_norm else "own share of it"
    return (f"{share} images; batch norm sees the {norms}",)
