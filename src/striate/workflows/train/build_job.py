"""Training job: model, optimizer, data and settings of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from striate.core import device as devices
from striate.data.batches import Batches
from striate.data.cache.lazy_images import LazyPixels
from striate.data.image_data import ImageData
from striate.data.progressive_resize import ProgressiveResize
from striate.engine.csv_logger import COLUMNS, MULTI_LABEL_COLUMNS
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.ema import EMA
from striate.engine.throughput import ThroughputMeter
from striate.engine.training_loop import FitConfig
from striate.engine.tta import TTA_MODES
from striate.run.build_from_recipe import (
    recipe_execution,
    recipe_fit_config,
    recipe_optimizer,
    resized_batches,
    split_batches,
)
from striate.run.manifest import result_factors
from striate.run.recipe import Recipe
from striate.workflows.train.autotune import make_laps


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Options of a training run that do not change the result."""

    quiet: bool = False  # show no progress
    tensorboard: bool = False  # also write TensorBoard event files

    def for_rank(self, group: RankGroup) -> SessionOptions:
        """Return the options of a process, with progress shown only on rank 0."""
        return replace(self, quiet=self.quiet or not group.is_main)


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """Model, optimizer, data and settings of a training run."""

    folder: Path
    recipe: Recipe
    model: nn.Module  # the model to train, on the training device
    optimizer: Optimizer  # optimizer of the model's parameters
    fit_config: FitConfig  # number of epochs, learning rate and loss
    train: Batches | ProgressiveResize  # training batches
    val: Batches  # validation batches
    data: ImageData  # all images, for the evaluation after training
    # versions, device and settings on which exact results depend
    environment: Mapping[str, str]
    inexact: list[str]  # reasons why the result differs from an uninterrupted run
    options: SessionOptions
    group: RankGroup = ONE_PROCESS  # the ranks of the run
    # timer of data loading and updates
    laps: ThroughputMeter = field(default_factory=ThroughputMeter)
    # moving average of the weights; evaluated and saved in place of the model
    ema: EMA | None = None

    @property
    def eval_model(self) -> nn.Module:
        """Return the model to evaluate and save: the EMA model if there is one."""
        return self.ema.model if self.ema else self.model

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of `results.csv`."""
        return MULTI_LABEL_COLUMNS if self.data.labels.multi_label else COLUMNS

    @property
    def unread(self) -> list[str]:
        """Return a note on images that could not be read during training."""
        arrays = self.train.subset.pixels, self.train.subset.larger
        lazy = [pixels for pixels in arrays if isinstance(pixels, LazyPixels)]
        lost = dict.fromkeys(skip.path for pixels in lazy for skip in pixels.lost)
        if not lost:
            return []
        first = next(iter(lost))
        return [f"unreadable training images: {len(lost):,} (first: {first})"]


def build_job(
    folder: Path,
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    options: SessionOptions,
    inexact: Sequence[str] = (),
    group: RankGroup = ONE_PROCESS,
) -> TrainJob:
    """Build a training job: optimizer, batches, learning rate schedule and loss."""
    device = devices.select_device(recipe.device)
    fit_config = recipe_fit_config(data, recipe, device)
    train = split_batches("train", data, recipe, device, group)
    return TrainJob(
        folder=folder,
        recipe=recipe,
        model=model,
        optimizer=recipe_optimizer(model, recipe),
        fit_config=replace(
            fit_config, tta=TTA_MODES[recipe.tta], execution=recipe_execution(recipe)
        ),
        train=resized_batches(train, data, recipe),
        val=split_batches("val", data, recipe, device, group),
        data=data,
        environment=result_factors(recipe, data, device),
        inexact=list(dict.fromkeys([*data.inexact, *inexact])),
        options=options,
        group=group,
        laps=make_laps(model, data, recipe, options.quiet, group),
        ema=EMA(model, recipe.ema) if recipe.ema else None,
    )
