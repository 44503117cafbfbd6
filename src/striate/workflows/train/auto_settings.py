"""Automatic settings of a run: `--batch-size auto` and `--lr auto`."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from striate.audit.network import ForwardError, audit
from striate.core import device as devices
from striate.core.errors import NonFiniteError, SettingError
from striate.core.files import write_csv
from striate.core.format import count_text
from striate.core.settings import AUTO
from striate.data.image_data import ImageData
from striate.engine.config import DEFAULT_LR
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.gradient_accumulation import possible_micro_batches
from striate.engine.lr_finder import LRPoint, lr_range_test, suggest_lr
from striate.engine.recoverable_step import RecoverableStep
from striate.engine.rng import preserve_rng_state
from striate.engine.task import task_of
from striate.report.png import save_curve
from striate.run import layout as names
from striate.run.build_from_recipe import (
    class_weighting,
    recipe_optimizer,
    split_batches,
)
from striate.run.recipe import Recipe, TrainConfig
from striate.run.report_page import lr_range_chart
from striate.workflows.train.training_forecast import free_bytes

MEMORY_SHARE = 0.5  # of the free memory; images and the system need the rest
MIN_STEPS_PER_EPOCH = 32  # with fewer updates, the model learns less
MIN_BATCH_SIZE = 2


@dataclass(frozen=True, kw_only=True)
class AutoSettings:
    """Recipe with automatically chosen settings."""

    recipe: Recipe  # the recipe, with numbers in place of `auto`
    notes: tuple[str, ...] = ()  # text on how each setting was chosen
    # points of the learning rate range test; empty if the test did not run
    lr_range: tuple[LRPoint, ...] = field(default=(), repr=False)

    def save(self, folder: Path) -> None:
        """Write the learning rate range test into a run folder, as CSV and chart."""
        if self.lr_range:
            rows = [(step.lr, step.loss) for step in self.lr_range]
            write_csv(folder / names.LR_RANGE, ("lr", "loss"), rows)
            chart = lr_range_chart(rows, self.recipe.max_lr)
            save_curve(chart, folder / names.PLOTS / "lr_range.png")


def resolve_auto_settings(
    recipe: Recipe, model: nn.Module, data: ImageData, group: RankGroup = ONE_PROCESS
) -> AutoSettings:
    """Replace `auto` settings by numbers; model and random state are not changed.

    The batch size comes first, since the learning rate depends on it. In a distributed
    run, rank 0 chooses for all.

    Raises:
        SettingError: Not even a batch of two images fits into memory.
    """
    automatic = AutoSettings(recipe=recipe)
    if AUTO not in (recipe.batch_size, recipe.lr):
        return automatic
    with group.rank_first(0, "automatic settings"):
        if group.is_main:
            automatic = _choose(automatic, model, data)
    values = {"batch_size": automatic.recipe.batch_size, "lr": automatic.recipe.lr}
    values = group.broadcast(values, "the automatic settings of rank 0")
    return replace(automatic, recipe=replace(recipe, **values))


def _choose(automatic: AutoSettings, model: nn.Module, data: ImageData) -> AutoSettings:
    recipe = automatic.recipe
    if recipe.batch_size == AUTO:
        size, note = _largest_batch_size(recipe, model, data)
        recipe = replace(recipe, batch_size=size)
        automatic = AutoSettings(recipe=recipe, notes=(note,))
    if recipe.lr == AUTO:
        automatic = _with_learning_rate(automatic, model, data)
    return automatic


def _with_learning_rate(
    automatic: AutoSettings, model: nn.Module, data: ImageData
) -> AutoSettings:
    recipe = automatic.recipe
    recipe = replace(recipe, lr=DEFAULT_LR[recipe.optimizer])
    device = devices.select_device(recipe.device)
    balance = class_weighting(data, recipe, device)
    lr_range = lr_range_test(
        model,
        lambda copied: recipe_optimizer(copied, recipe),
        split_batches("train", data, recipe, device),
        task_of(data.subset("train").labels).loss(recipe.label_smoothing, balance),
        seed=recipe.seed,
        micro_batches=recipe.accumulate,
    )
    lr = suggest_lr(lr_range)
    note = "the loss did not fall in the range test; "
    note += f"the learning rate is the default, {recipe.max_lr:g}"
    if lr:
        note = f"learning rate by range test: {lr:g} (plots/lr_range.png)"
    return AutoSettings(
        recipe=replace(recipe, lr=lr or recipe.lr),
        notes=(*automatic.notes, note),
        lr_range=tuple(lr_range),
    )


def _largest_batch_size(
    config: TrainConfig, model: nn.Module, data: ImageData
) -> tuple[int, str]:
    """Return the largest batch size that fits into memory, and a note on the choice."""
    device = devices.select_device(config.device)
    largest = max(len(data.subset("train")) // MIN_STEPS_PER_EPOCH, MIN_BATCH_SIZE)
    size = 1 << (largest.bit_length() - 1)
    free = free_bytes(device)
    while True:
        # Micro-batches run one after the other: the largest decides.
        count = possible_micro_batches(size, config.accumulate)
        need = _peak_bytes(model, data, -(-size // count))
        small = free is None or need is None or need <= MEMORY_SHARE * free
        if small and _step_fits(replace(config, batch_size=size), model, data, device):
            break
        if size <= MIN_BATCH_SIZE:
            what = f"a batch of {count_text(size, 'image')} does not fit into memory"
            fix = "use a smaller --image-size or a smaller model"
            raise SettingError(what, where="--batch-size auto", fix=fix)
        size //= 2
    reason = "a larger one would leave fewer than 32 steps per epoch"
    if 2 * size <= largest:
        reason = "a larger one would not fit into memory"
    tested = "one step was tested"
    if need is not None:
        tested = f"one step needs {need / 1e6:,.0f} MB"
    return size, f"batch size {size}: {tested}; {reason}"


def _peak_bytes(model: nn.Module, data: ImageData, size: int) -> int | None:
    """Return the peak memory of a training step in bytes; None if not computable."""
    shape = (data.in_chans, *data.image_size)
    with suppress(ForwardError):
        memory = audit(model, shape, batch_size=size).memory
        return None if memory is None else memory.peak
    return None


def _step_fits(
    config: TrainConfig, model: nn.Module, data: ImageData, device: torch.device
) -> bool:
    """Return whether a training step, run on a copy of the model, fits into memory."""
    copied = copy.deepcopy(model).train()
    config = replace(config, lr=DEFAULT_LR[config.optimizer])
    balance, count = class_weighting(data, config, device), config.accumulate
    task = task_of(data.subset("train").labels)
    loss = task.loss(config.label_smoothing, balance)
    optimizer = recipe_optimizer(copied, config)
    train_step = RecoverableStep(
        copied, optimizer, loss, seed=config.seed, micro_batches=count
    )
    batches = split_batches("train", data, config, device)
    try:
        # The run itself reports NaN or infinite values, with images and layer.
        with preserve_rng_state(), suppress(NonFiniteError):
            x, y = next(iter(batches(0)))
            train_step(x, y, 0)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "memory" in str(error):
            return False
        raise
    return True
