"""What a step of a run holds: batches of one, and classes of unlike size."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from striate.core.errors import SettingError
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.engine.cost import ClassCost, even_weights, shares
from striate.engine.ranks.ranks import Ranks
from striate.runs.recipe import Recipe
from striate.runs.run import EVALUATION_BATCH


def check_batch(model: nn.Module, recipe: Recipe) -> None:
    """Refuse steps of one picture where a layer needs more.

    A last batch of one joins the batch before it, so it comes to this by wish only.

    Raises:
        SettingError: A batch norm would have one picture; names the layer.
    """
    norms = [name for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    if recipe.batch_size != 1 or not norms:
        return
    what = "batch norm needs two pictures a step to have a variance, got one"
    fix = "use --batch-size 2 or more, or a network without batch norm"
    raise SettingError(what, where=f"layer {norms[0]}", fix=fix)


def batch_notes(data: ImageData, recipe: Recipe) -> tuple[str, ...]:
    """Say what becomes of a picture left over by the batch size."""
    count, size = len(data.part("train")), recipe.pictures_a_step
    if size == 1 or count % size != 1:
        return ()
    over = f"{count:,} pictures in steps of {size} leave one over"
    return (f"{over}; it joins the last step, which takes {size + 1}",)


def batches_of(
    part: str,
    data: ImageData,
    recipe: Recipe,
    device: torch.device,
    ranks: Ranks | None = None,
) -> Batches:
    """Return a part's batches: shuffled and changed to learn from, else as they are.

    Of each batch a process gets its share, where several learn together.
    """
    learns = part == "train"
    return Batches(
        part=data.part(part),
        preprocess=data.preprocess,
        batch_size=recipe.pictures_a_step if learns else EVALUATION_BATCH,
        shuffle=learns,
        balanced=learns and recipe.class_weights == "sampling",
        augment=recipe.augmentation if learns else "none",
        classes=data.num_classes,
        seed=recipe.seed,
        device=device,
        rank=ranks.place.rank if ranks else 0,
        world=ranks.world if ranks else 1,
    )


def cost_of_classes(
    data: ImageData, recipe: Recipe, device: torch.device
) -> ClassCost | None:
    """Return how the cost makes up for uneven classes, where it is to do so."""
    counts = data.part("train").labels.bincount(minlength=data.num_classes)
    if recipe.class_weights == "auto":
        return ClassCost(prior=shares(counts).to(device))
    if recipe.class_weights == "loss":
        return ClassCost(weights=even_weights(counts).to(device))
    return None
