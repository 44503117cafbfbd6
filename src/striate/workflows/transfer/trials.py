"""Trials of a transfer plan: candidates trained on a subset of training images."""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode
from striate.data.image_data import ImageData
from striate.engine.config import OptimConfig
from striate.engine.evaluate import Outputs
from striate.finetune.cut_points import CutPoints
from striate.finetune.linear_probe import order_in_class
from striate.metrics.temperature import apply_temperature, fit_temperature, log_losses
from striate.run.recipe import Recipe
from striate.run.transfer_plan import LOGISTIC, MIN_TRIAL_STEPS, TransferTrial
from striate.workflows.transfer.features import (
    BackboneFeatures,
    FeatureSource,
    compute_features,
    probe_images,
)
from striate.workflows.transfer.heads import HeadTrainer
from striate.workflows.transfer.options import SplitModel, TransferOptions, split_model

MAX_PLAN_IMAGES = 3000  # training images of a plan
TRIAL_IMAGES = 500  # of them that a trial is trained on
EVAL_IMAGES = 1000  # others that it is evaluated on
MAX_SHARE = 2 / 3  # of the images that a trial is trained on
EPOCH_SHARE = 2 / 3  # shorter trials are unfair to candidates that train slowly
TIMED_IMAGES = 8  # images of the batch that is timed


def limit_training_images(data: ImageData, seed: int) -> ImageData:
    """Limit the number of training images, so that trials are short.

    At least two groups of every class are kept, if available: one group to train, one
    group to evaluate.
    """
    subset = data.subset("train")
    if len(subset) <= MAX_PLAN_IMAGES:
        return data
    position, count = order_in_class(subset.labels, range(len(subset)), seed)
    share = MAX_PLAN_IMAGES / len(subset)
    index = _indices((position / count <= share) | (position <= 2))
    limited = subset.take(index.tolist())
    return replace(data, subsets={**data.subsets, "train": limited})


def split_for_trials(
    y: Tensor, groups: Sequence[Hashable], seed: int
) -> tuple[Tensor, Tensor]:
    """Split training images for trials; return indices to train on and to evaluate.

    The split is stratified and keeps groups together. Each class has a group of train
    images, and one group of evaluation images if there are two groups.

    Raises:
        DataError: No class has two groups.

    Example:
        >>> y = torch.tensor([0, 0, 0, 1, 1])
        >>> train, evaluate = split_for_trials(y, "abcde", 0)
        >>> len(train), len(evaluate)
        (3, 2)
    """
    position, count = order_in_class(y, groups, seed)
    share = min(MAX_SHARE, TRIAL_IMAGES / len(y))
    train = (position == 1) | (position / count <= share)
    first = (position == 2) | ((position - 1) / count <= share)
    enough = position / count <= share + EVAL_IMAGES / len(y)
    evaluate = ~train & (first | enough)
    if not evaluate.any():
        what = "no images are left to evaluate trials: each class has only one group"
        fix = "remove --cut auto, or use more groups per class"
        raise DataError(what, where="the training split", fix=fix)
    return _indices(train), _indices(evaluate)


@dataclass(frozen=True, kw_only=True)
class TrialRunner:
    """Runner of trials: a model, and training images for the candidates."""

    model: nn.Module = field(repr=False)  # the model; each trial trains a copy
    data: ImageData  # the images, limited by `limit_training_images`
    recipe: Recipe  # settings of the heads
    # spatial averages of the features at every cut point
    features: BackboneFeatures = field(repr=False)
    # indices to train and to evaluate, from `split_for_trials`
    trial_split: tuple[Tensor, Tensor] = field(repr=False)
    cut_points: CutPoints
    total_images: int  # number of images in all splits, before the limit
    train_images: int  # number of images in the training split, before the limit

    def run(self, options: TransferOptions) -> TransferTrial:
        """Train and evaluate one candidate."""
        start = time.perf_counter()
        model = copy.deepcopy(self.model)
        recipe, kind = self.recipe, options.head_kind
        split = split_model(model, self.data, recipe, options)
        features, data = self._split(self._features(model, split, kind))
        head_only = kind == LOGISTIC
        images = len(data.subset("train"))
        short = 1 if head_only else trial_epochs(recipe, images)
        full = 1 if head_only else recipe.epochs
        stages, config = split.stages, split.stages.config
        trainer = HeadTrainer(
            head=split.cut.head,
            stages=stages,
            features=features,
            data=data,
            config=replace(recipe, epochs=short, patience=0),
        )
        fit_start = time.perf_counter()
        trainer.fit(kind, keep_best=False)
        fit_end = time.perf_counter()
        outputs = trainer.evaluate("val")
        evaluation = time.perf_counter() - fit_end
        # The fit has evaluated once, too.
        epoch = max(fit_end - fit_start - evaluation, 0.0) / short
        return TransferTrial(
            head=kind,
            cut=split.cut.name,
            stages=tuple(stage.name for stage in stages.stages),
            batch_norm="" if head_only else config.batch_norm,
            lr=0.0 if head_only else recipe.max_lr,
            layer_decay=1.0 if head_only else config.layer_decay,
            epochs=short,
            steps=0 if head_only else short * steps_per_epoch(recipe, images),
            train_images=images,
            correct=tuple((outputs.logits.argmax(1) == outputs.labels).tolist()),
            losses=tuple(_losses(outputs).tolist()),
            seconds=time.perf_counter() - start,
            full_seconds=self._feature_seconds(model, split.cut)
            + full * self._epoch_seconds(epoch, evaluation, data),
        )

    def _feature_seconds(self, model: nn.Module, cut: FeatureSource) -> float:
        """Estimate the seconds to compute the features of images not in trials."""
        x = probe_images(model, self.data, TIMED_IMAGES)
        x = x.contiguous(memory_format=torch.channels_last)
        with evaluation_mode(model, analysis=False), torch.inference_mode():
            cut.features(model, x)
            start = time.perf_counter()
            cut.features(model, x)
        seconds = (time.perf_counter() - start) / TIMED_IMAGES
        return (self.total_images - len(self.data.subset("train"))) * seconds

    def _epoch_seconds(self, epoch: float, evaluation: float, data: ImageData) -> float:
        """Estimate the seconds of a training epoch with all training images."""
        train = self.train_images / len(data.subset("train"))
        val = len(self.data.subset("val")) / len(data.subset("val"))
        return epoch * train + evaluation * val

    def _features(
        self, model: nn.Module, split: SplitModel, kind: str
    ) -> BackboneFeatures:
        if kind == LOGISTIC and self.cut_points.last_is_vector:
            return self.features.columns(self.cut_points.columns(-1))
        cut, backbone, only = split.cut, split.backbone, ("train",)
        return compute_features(
            model, cut, backbone, self.data, self.recipe, splits=only
        )

    def _split(self, features: BackboneFeatures) -> tuple[BackboneFeatures, ImageData]:
        """Return the features and images of a trial, split into `train` and `val`."""
        subset, hashes = self.data.subset("train"), features.keys["train"]
        index = dict(zip(("train", "val"), self.trial_split, strict=True))
        rows = {name: features.rows["train"].take(i) for name, i in index.items()}
        keys = {name: tuple(hashes[k] for k in i.tolist()) for name, i in index.items()}
        subsets = {name: subset.take(i.tolist()) for name, i in index.items()}
        data = replace(self.data, subsets=subsets)
        return replace(features, rows=rows, keys=keys), data


def trial_epochs(optim: OptimConfig, images: int) -> int:
    """Return the epochs of a trial: two thirds of those of the recipe, or more.

    Example:
        >>> recipe = Recipe(data="digits", epochs=12, batch_size=32)
        >>> trial_epochs(recipe, 500), trial_epochs(recipe, 40)
        (8, 12)
    """
    enough = ceil(MIN_TRIAL_STEPS / steps_per_epoch(optim, images))
    return min(optim.epochs, max(ceil(optim.epochs * EPOCH_SHARE), enough))


def steps_per_epoch(optim: OptimConfig, images: int) -> int:
    """Return the number of steps per epoch for a number of images."""
    return ceil(images / int(optim.batch_size))


def _losses(outputs: Outputs) -> np.ndarray:
    """Return the cross-entropy of each prediction after temperature scaling, (N,).

    The loss separates candidates better than accuracy on a hundred images. Temperature
    scaling corrects for the low confidence after few epochs.
    """
    probs, truth = outputs.probs.double().numpy(), outputs.labels.numpy()
    return log_losses(apply_temperature(probs, fit_temperature(probs, truth)), truth)


def _indices(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()
