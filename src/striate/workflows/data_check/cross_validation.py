"""Networks that each judge the images which they did not learn: cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from striate.core import device as devices
from striate.core.seeds import derive
from striate.core.spec import Preprocess
from striate.data.batches import Batches
from striate.data.channel_stats import channel_mean_std
from striate.data.subset import Subset
from striate.engine.evaluate import evaluate
from striate.engine.loop import FitConfig, fit
from striate.engine.optim import make_optimizer
from striate.engine.schedule import SCHEDULES
from striate.engine.train_state import EpochDone, StepDone
from striate.models.catalogue import create_model
from striate.run.recipe import Recipe
from striate.run.run import judged_at_once
from striate.run.setup import auto_model

Tick = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one network says of the fold that it did not learn.

    Args:
        rows: (n,) rows of the part.
        probs: (n, C) probabilities.
        known: (C,) whether it has learned an image of the class.
    """

    rows: np.ndarray = field(repr=False)
    probs: np.ndarray = field(repr=False)
    known: np.ndarray = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Jury:
    """Images, and how networks learn them.

    Args:
        subset: All images.
        preprocess: How they meet a network; measured anew for each.
        classes: How many there are.
        recipe: Settings of each training.
    """

    subset: Subset
    preprocess: Preprocess
    classes: int
    recipe: Recipe

    def verdicts(self, folds: np.ndarray, tick: Tick) -> Iterator[Verdict]:
        """Yield what each fold's network says; the same seed says the same.

        Args:
            folds: (N,) number of the fold that each row of the part is in.
            tick: Called with (done, all), in images learned from.
        """
        numbers = np.unique(folds)
        total = (len(numbers) - 1) * len(folds) * self.recipe.epochs
        counter = _Counter(tick, total)
        for fold in numbers.tolist():
            held, learned = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
            if len(learned):
                yield self._verdict(fold, held, learned, counter)

    def _verdict(
        self, fold: int, held: np.ndarray, learned: np.ndarray, counter: _Counter
    ) -> Verdict:
        train, test = (
            self.subset.take(learned.tolist()),
            self.subset.take(held.tolist()),
        )
        mean, std = channel_mean_std(train.pixels)
        preprocess = replace(self.preprocess, mean=mean, std=std)
        seed = derive(self.recipe.seed, "fold", fold)
        device = devices.choose(self.recipe.device)
        batches = Batches(
            subset=train,
            preprocess=preprocess,
            batch_size=self.recipe.images_a_step,
            classes=self.classes,
            seed=seed,
            device=device,
        )
        ahead = Batches(
            subset=test,
            preprocess=preprocess,
            batch_size=judged_at_once(preprocess.height, preprocess.width),
            shuffle=False,
            device=device,
        )
        model = self._network(seed).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.random.fork_rng(devices=[]), devices.flushed_denormals():
            torch.manual_seed(derive(seed, "dropout"))
            self._learn(model, batches, ahead, counter)
            said = evaluate(model, ahead(0))
        known = np.bincount(train.labels.numpy(), minlength=self.classes) > 0
        return Verdict(rows=held, probs=said.probs.numpy(), known=known)

    def _network(self, seed: int) -> nn.Module:
        return create_model(
            auto_model(self.preprocess.channels),
            num_classes=self.classes,
            in_chans=self.preprocess.channels,
            image_size=(self.preprocess.height, self.preprocess.width),
            seed=seed,
        )

    def _learn(
        self, model: nn.Module, batches: Batches, ahead: Batches, counter: _Counter
    ) -> None:
        recipe = self.recipe.resolved()
        lr = recipe.rate
        optimizer = make_optimizer(
            model, recipe.optimizer, lr, recipe.momentum, recipe.weight_decay
        )
        plan = FitConfig(
            epochs=recipe.epochs,
            lr=lr,
            schedule=SCHEDULES[recipe.schedule],
            label_smoothing=recipe.label_smoothing,
        )
        # No epoch is chosen by how it judges the fold, or its answers would be learned.
        fit(model, optimizer, batches, ahead, plan, (counter,))


class _Counter:
    """An observer of the loop that counts images over all trainings."""

    def __init__(self, tick: Tick, total: int) -> None:
        self._tick, self._total, self._done = tick, total, 0

    def on_step(self, done: StepDone) -> None:
        """Count a step's images."""
        self._done += done.images
        self._tick(self._done, self._total)

    def on_epoch(self, done: EpochDone) -> None:
        """Take no note."""
