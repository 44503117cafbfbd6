"""Cross-validation: predict every image by a network not trained on that image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from striate.core import device as devices
from striate.core.derive_seed import derive_seed
from striate.core.preprocess_config import Preprocess
from striate.data.batches import Batches
from striate.data.channel_stats import channel_mean_std
from striate.data.subset import Subset
from striate.engine.callbacks import Callback, StepResult
from striate.engine.evaluate import evaluate
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.training_loop import FitConfig, fit
from striate.models.catalogue import create_named_model
from striate.run.evaluation_batch_size import evaluation_batch_size
from striate.run.prepare_run import auto_model
from striate.run.recipe import Recipe

Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class FoldPrediction:
    """Predictions of one network for its held-out fold."""

    rows: np.ndarray = field(repr=False)  # (n,) indices of the images in the subset
    probs: np.ndarray = field(repr=False)  # (n, classes) predicted probabilities
    # (classes,) whether the training folds contain the class
    trained_classes: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class CrossValidation:
    """Cross-validation of a network on a set of images."""

    subset: Subset  # all images
    preprocess: Preprocess  # preprocessing; mean and std are computed for each network
    classes: int  # number of classes
    recipe: Recipe  # training settings of each network

    def predictions(self, folds: np.ndarray, tick: Tick) -> Iterator[FoldPrediction]:
        """Train one network per fold, and yield the predictions for each fold."""
        numbers = np.unique(folds)
        total = (len(numbers) - 1) * len(folds) * self.recipe.epochs
        counter = _Counter(tick, total)
        for fold in numbers.tolist():
            val_rows = np.flatnonzero(folds == fold)
            train_rows = np.flatnonzero(folds != fold)
            if len(train_rows):
                yield self._predict_fold(fold, val_rows, train_rows, counter)

    def _predict_fold(
        self, fold: int, val_rows: np.ndarray, train_rows: np.ndarray, counter: _Counter
    ) -> FoldPrediction:
        train = self.subset.take(train_rows.tolist())
        mean, std = channel_mean_std(train.pixels)
        preprocess = replace(self.preprocess, mean=mean, std=std)
        seed = derive_seed(self.recipe.seed, "fold", fold)
        device = devices.select_device(self.recipe.device)
        batches = Batches(
            subset=train,
            preprocess=preprocess,
            batch_size=self.recipe.images_per_step,
            classes=self.classes,
            seed=seed,
            device=device,
        )
        val_batches = Batches(
            subset=self.subset.take(val_rows.tolist()),
            preprocess=preprocess,
            batch_size=evaluation_batch_size(preprocess.height, preprocess.width),
            shuffle=False,
            device=device,
        )
        model = create_named_model(
            auto_model(preprocess.channels),
            num_classes=self.classes,
            in_chans=preprocess.channels,
            image_size=(preprocess.height, preprocess.width),
            seed=seed,
        )
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.random.fork_rng(devices=[]), devices.flush_denormals():
            torch.manual_seed(derive_seed(seed, "dropout"))
            self._train(model, batches, val_batches, counter)
            evaluation = evaluate(model, val_batches(0))
        trained_classes = np.bincount(train.labels.numpy(), minlength=self.classes) > 0
        return FoldPrediction(
            rows=val_rows,
            probs=evaluation.probs.numpy(),
            trained_classes=trained_classes,
        )

    def _train(
        self,
        model: nn.Module,
        batches: Batches,
        val_batches: Batches,
        counter: _Counter,
    ) -> None:
        recipe = self.recipe.resolved()
        lr = recipe.max_lr
        optimizer = make_optimizer(
            model, recipe.optimizer, lr, recipe.momentum, recipe.weight_decay
        )
        fit_config = FitConfig(
            epochs=recipe.epochs,
            lr=lr,
            schedule=SCHEDULES[recipe.schedule],
            label_smoothing=recipe.label_smoothing,
        )
        # The last epoch is used; choosing one on the fold would use its labels.
        fit(model, optimizer, batches, val_batches, fit_config, callbacks=(counter,))


class _Counter(Callback):
    """Callback that counts the processed training images over all networks."""

    def __init__(self, tick: Tick, total: int) -> None:
        self._tick, self._total, self._count = tick, total, 0

    def on_step_end(self, event: StepResult, /) -> None:
        """Add the images of a training step to the count."""
        self._count += event.images
        self._tick(self._count, self._total)
