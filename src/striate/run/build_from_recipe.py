"""Build batches, optimizer, training and execution settings from a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from striate.core.errors import SettingError
from striate.core.format import count_text
from striate.core.hooks import evaluation_mode
from striate.core.layer_names import named_layers
from striate.core.settings import AUTO
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.data.progressive_resize import ProgressiveResize, Side, sides_by_epoch
from striate.engine.config import OptimConfig, RuntimeConfig
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.distributed.rank_info import RankInfo
from striate.engine.execution_config import ExecutionConfig
from striate.engine.loss import (
    ClassBalance,
    balanced_class_weights,
    class_priors,
    positive_weights,
)
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.task import task_of
from striate.engine.training_loop import FitConfig
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.recipe import TrainConfig


def check_batch_norm(model: nn.Module, data: ImageData, optim: OptimConfig) -> None:
    """Raise an error if a batch norm gets one value per channel: one image of 1×1.

    A last batch of one image is merged into the batch before it, so only the batch size
    matters.
    """
    norms = {n: m for n, m in named_layers(model) if isinstance(m, _BatchNorm)}
    if optim.batch_size != 1 or not norms:
        return
    height, width = min((data.image_size, *epoch_image_sizes(data, optim)))
    weight = next(model.parameters())
    x = weight.new_zeros(1, data.in_chans, height, width)
    single: list[str] = []

    def record(name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].numel() == args[0].shape[1]:
            single.append(name)

    with ExitStack() as stack, evaluation_mode(model), torch.no_grad():
        for name, norm in norms.items():
            hook = norm.register_forward_pre_hook(partial(record, name))
            stack.callback(hook.remove)
        model(x)
    if single:
        what = "batch norm needs at least two values per channel, got one"
        fix = "use --batch-size 2 or more, or a network without this layer"
        raise SettingError(what, where=f"layer {single[0]}", fix=fix)


def last_batch_notes(data: ImageData, optim: OptimConfig) -> tuple[str, ...]:
    """Return a note if the last batch of an epoch would have only one image."""
    count, size = len(data.subset("train")), optim.images_per_step
    if size == 1 or count % size != 1:
        return ()
    remainder = f"{count_text(count, 'image')} in batches of {size} leave one image"
    return (f"{remainder}; the last batch gets this image too ({size + 1} images)",)


def split_batches(
    split: str,
    data: ImageData,
    config: TrainConfig,
    device: torch.device,
    group: RankGroup = ONE_PROCESS,
) -> Batches:
    """Return the batches of a split; training batches are shuffled and augmented.

    In distributed training, each process gets its share of every batch.

    Raises:
        SettingError: Class-balanced sampling is not possible with streamed images.
    """
    training = split == "train"
    balanced = training and config.class_weights == "sampling"
    if balanced and data.subset(split).blocks:
        reason = "the images are streamed in order"
        what = f"class-balanced sampling is not possible: {reason}"
        fix = "use --class-weights auto or loss"
        raise SettingError(what, where="--class-weights sampling", fix=fix)
    size = evaluation_batch_size(*data.image_size)
    return Batches(
        subset=data.subset(split),
        preprocess=data.preprocess,
        batch_size=config.images_per_step if training else size,
        shuffle=training,
        balanced=balanced,
        augment=config.augmentation if training else "none",
        classes=data.num_classes,
        seed=config.seed,
        device=device,
        rank=group.rank,
        world_size=group.world_size,
    )


def epoch_image_sizes(data: ImageData, optim: OptimConfig) -> tuple[Side, ...]:
    """Return the (height, width) of each epoch; empty without progressive resizing.

    Raises:
        SettingError: The images are too small for progressive resizing.
    """
    full = data.image_size
    if optim.progressive_resize == 1:
        return ()
    sides = sides_by_epoch(full, optim.progressive_resize, optim.epochs)
    if optim.epochs > 1 and sides[0] == full:
        size, start = f"{full[0]}×{full[1]}", optim.progressive_resize
        what = f"images of {size} are too small to start at {start:g} of the size"
        fix = "leave out --progressive-resize; image sizes are multiples of 16"
        raise SettingError(what, where="--progressive-resize", fix=fix)
    return sides


def progressive_resize_notes(data: ImageData, optim: OptimConfig) -> tuple[str, ...]:
    """Return a note on image sizes by epoch; empty without progressive resizing."""
    sides = epoch_image_sizes(data, optim)
    return (f"progressive resizing: {image_sizes_text(sides)}",) if sides else ()


def image_sizes_text(sides: Sequence[Side]) -> str:
    """Return a text that lists each image size with its epochs, counted from 1.

    Example:
        >>> image_sizes_text([(16, 16), (16, 16), (28, 28)])
        '16×16 in epochs 1–2, 28×28 in epoch 3'
    """
    texts, first = [], 1
    for (height, width), run in groupby(sides):
        last = first + len(list(run)) - 1
        epochs = f"epoch {first}" if first == last else f"epochs {first}–{last}"
        texts.append(f"{height}×{width} in {epochs}")
        first = last + 1
    return ", ".join(texts)


def resized_batches(
    batches: Batches, data: ImageData, optim: OptimConfig
) -> Batches | ProgressiveResize:
    """Return the training batches, with progressive resizing if the recipe has it."""
    sides = epoch_image_sizes(data, optim)
    return ProgressiveResize(batches=batches, sides=sides) if sides else batches


def recipe_optimizer(
    model: nn.Module,
    optim: OptimConfig,
    scales: Mapping[nn.Parameter, float] | None = None,
) -> Optimizer:
    """Create the optimizer of a recipe.

    The learning rate must be a number, not `auto`. `scales` are factors on it.
    """
    return make_optimizer(
        model,
        optim.optimizer,
        lr=optim.max_lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        lr_scales=scales,
    )


def recipe_fit_config(
    data: ImageData, optim: OptimConfig, device: torch.device
) -> FitConfig:
    """Return the training-loop settings of a recipe: epochs, lr, schedule, loss."""
    return FitConfig(
        epochs=optim.epochs,
        lr=optim.max_lr,
        schedule=SCHEDULES[optim.schedule],
        label_smoothing=optim.label_smoothing,
        patience=optim.patience,
        class_balance=class_weighting(data, optim, device),
        task=task_of(data.subset("train").labels),
        balanced=optim.class_weights != "none",
        seed=optim.seed,
        micro_batches=optim.accumulate,
    )


def class_weighting(
    data: ImageData, optim: OptimConfig, device: torch.device
) -> ClassBalance | None:
    """Return the class weights or priors for the loss, or None."""
    labels = data.subset("train").labels
    if data.labels.multi_label:
        if optim.class_weights == "none":
            return None
        weights = positive_weights(labels.sum(0), len(labels))
        return ClassBalance(weights=weights.to(device))
    counts = labels.bincount(minlength=data.num_classes)
    if optim.class_weights == "auto":
        return ClassBalance(prior=class_priors(counts).to(device))
    if optim.class_weights == "loss":
        return ClassBalance(weights=balanced_class_weights(counts).to(device))
    return None


def recipe_execution(runtime: RuntimeConfig) -> ExecutionConfig:
    """Return layout, precision and compile settings; `auto` gives the default.

    Example:
        >>> print(recipe_execution(RuntimeConfig(layout="nchw")))
        nchw fp32
    """
    default = ExecutionConfig()
    return ExecutionConfig(
        layout=default.layout if runtime.layout == AUTO else runtime.layout,
        compiled=runtime.compile == "on",
        precision=default.precision if runtime.precision == AUTO else runtime.precision,
    )


def process_notes(config: TrainConfig) -> tuple[str, ...]:
    """Return a note on processes and threads; empty without distributed training."""
    rank_info = RankInfo.from_environment()
    if rank_info.world_size == 1:
        return ()
    threads = torch.get_num_threads()
    text = count_text(threads, "thread")
    world_size, batch_size = rank_info.world_size, config.batch_size
    share = (
        f"{count_text(world_size, 'process', 'processes')} of {text} share "
        f"each batch of {batch_size}"
    )
    norms = "whole batch" if config.sync_batch_norm else "images of each process"
    return (f"{share} images; batch norm uses the {norms}",)
