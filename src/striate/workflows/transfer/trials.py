"""Ways to reuse a network, tried on a part of the training images."""

from __future__ import annotations

import copy
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from striate.core import device as devices
from striate.core.errors import DataError
from striate.core.hooks import evaluation_mode
from striate.data.image_data import ImageData
from striate.engine.evaluate import Outputs
from striate.finetune.cut_points import CutPoints
from striate.finetune.freeze import Frozen
from striate.finetune.linear_probe import turns
from striate.finetune.split_model import probe
from striate.metrics.temperature import apply_temperature, fit_temperature, log_losses
from striate.run.recipe import Recipe
from striate.run.transfer_plan import LOGISTIC, STEPS, TransferTrial
from striate.workflows.transfer.features import Body, Featured, featured
from striate.workflows.transfer.heads import answers, fit_head
from striate.workflows.transfer.options import TransferOptions, halve

MOST = 3000  # training images that a plan looks at
LEARNED = 500  # of them that a trial learns from
JUDGING = 1000  # others that judge it
SHARE = 2 / 3  # of the images, at most
LASTING = 2 / 3  # of the epochs: shorter trials wrong what needs time
TIMED = 8  # images that a pass is timed with


def some_of(data: ImageData, seed: int) -> ImageData:
    """Return data with so few training images that planning stays short.

    Of a class however rare there are two: one to learn from, and one to judge by.
    """
    subset = data.subset("train")
    if len(subset) <= MOST:
        return data
    turn, count = turns(subset.labels, range(len(subset)), seed)
    index = _where((turn / count <= MOST / len(subset)) | (turn <= 2))
    return replace(data, subsets={**data.subsets, "train": subset.take(index.tolist())})


def dealt(y: Tensor, groups: Sequence[Hashable], seed: int) -> tuple[Tensor, Tensor]:
    """Return which training images trials learn from, and which judge them.

    Groups come whole and classes alike. Of each class one group learns at least, and
    one judges where there is another.

    Raises:
        DataError: No class has another.

    Example:
        >>> learns, judges = dealt(torch.tensor([0, 0, 0, 1, 1]), "abcde", 0)
        >>> len(learns), len(judges)
        (3, 2)
    """
    turn, count = turns(y, groups, seed)
    most = min(SHARE, LEARNED / len(y))
    learns = (turn == 1) | (turn / count <= most)
    first = (turn == 2) | ((turn - 1) / count <= most)
    enough = turn / count <= most + JUDGING / len(y)
    judges = ~learns & (first | enough)
    if not judges.any():
        what = "a plan has nothing to judge by: each class is one group of images"
        fix = "leave --cut auto out, or train on more groups a class"
        raise DataError(what, where="the training split", fix=fix)
    return _where(learns), _where(judges)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A network, and training images to try it with.

    Args:
        model: As it came; each trial has a copy of its own.
        data: `some_of` the images.
        recipe: How heads learn.
        found: What stands at every cut, of the training images.
        hands: Which of these learn in trials and which judge, see `dealt`.
        ladder: The cuts.
        every: All images of all parts, and those of the training split.
    """

    model: nn.Module = field(repr=False)
    data: ImageData
    recipe: Recipe
    found: Featured = field(repr=False)
    hands: tuple[Tensor, Tensor] = field(repr=False)
    ladder: CutPoints
    every: tuple[int, int]

    def run(self, wanted: TransferOptions) -> TransferTrial:
        """Try a way.

        Raises:
            StriateError: It does not go, or the disk refused.
        """
        began = time.perf_counter()
        model = copy.deepcopy(self.model)
        halves, recipe = halve(model, self.data, self.recipe, wanted)
        found = self._features(model, halves.cut, halves.body, recipe, wanted)
        found, data = self._parted(found)
        alone = wanted.kind == LOGISTIC
        learned = len(data.subset("train"))
        short, full = (1, 1) if alone else (epochs_of(recipe, learned), recipe.epochs)
        tail, depth = halves.cut.tail, halves.depth
        brief = replace(recipe, epochs=short, patience=0)
        fitting = time.perf_counter()
        fit_head(tail, wanted.kind, found, data, brief, depth=depth, best=False)
        fitted = time.perf_counter()
        said = answers(tail, "val", found, data, brief)
        judging = time.perf_counter() - fitted
        learning = max(fitted - fitting - judging, 0.0) / short  # it judged once, too
        passing = self._passing(model, halves.cut)
        tuning = depth.tuning
        return TransferTrial(
            head=wanted.kind,
            cut=halves.cut.name,
            stages=tuple(stage.name for stage in depth.stages),
            batch_norm="" if alone else tuning.batch_norm,
            lr=0.0 if alone else recipe.rate,
            lr_decay=1.0 if alone else tuning.lr_decay,
            epochs=short,
            steps=0 if alone else short * steps_of(recipe, learned),
            learned=learned,
            right=tuple((said.logits.argmax(1) == said.labels).tolist()),
            costs=tuple(_costs(said).tolist()),
            seconds=time.perf_counter() - began,
            whole=passing + full * self._epoch(learning, judging, data),
        )

    def _passing(self, model: nn.Module, cut: Body) -> float:
        """Return the seconds that images not yet seen take as far as a cut."""
        left = self.every[0] - len(self.data.subset("train"))
        return left * seconds_a_image(model, cut, self.data, self.recipe)

    def _epoch(self, learning: float, judging: float, tried: ImageData) -> float:
        """Return the seconds of an epoch of all images, from those of a trial's."""
        judged = len(self.data.subset("val")) / len(tried.subset("val"))
        return learning * self.every[1] / len(tried.subset("train")) + judging * judged

    def _features(
        self,
        model: nn.Module,
        cut: Body,
        body: Frozen,
        recipe: Recipe,
        wanted: TransferOptions,
    ) -> Featured:
        if wanted.kind == LOGISTIC and self.ladder.whole:
            return self.found.columns(self.ladder.columns(-1))
        return featured(model, cut, body, self.data, recipe, splits=("train",))

    def _parted(self, found: Featured) -> tuple[Featured, ImageData]:
        """Part the training images: some to learn from, others to judge by."""
        subset = self.data.subset("train")
        index = dict(zip(("train", "val"), self.hands, strict=True))
        mine = found.keys["train"]
        rows = {name: found.rows["train"].take(i) for name, i in index.items()}
        keys = {name: tuple(mine[k] for k in i.tolist()) for name, i in index.items()}
        subsets = {name: subset.take(i.tolist()) for name, i in index.items()}
        return replace(found, rows=rows, keys=keys), replace(self.data, subsets=subsets)


def epochs_of(recipe: Recipe, images: int) -> int:
    """Return how many epochs a trial takes: two thirds, or what few images need.

    Example:
        >>> recipe = Recipe(data="digits", epochs=12, batch_size=32)
        >>> epochs_of(recipe, 500), epochs_of(recipe, 40)
        (8, 12)
    """
    enough = ceil(STEPS / steps_of(recipe, images))
    return min(recipe.epochs, max(ceil(recipe.epochs * LASTING), enough))


def steps_of(recipe: Recipe, images: int) -> int:
    """Return the steps of an epoch."""
    return ceil(images / int(recipe.batch_size))


def _costs(said: Outputs) -> np.ndarray:
    """Return what each answer costs, were all as sure as they should be.

    Costs tell ways apart that the right answers of a hundred images do not; and how
    sure a network is grows with the epochs, of which a trial has fewer.
    """
    probs, truth = said.probs.double().numpy(), said.labels.numpy()
    return log_losses(apply_temperature(probs, fit_temperature(probs, truth)), truth)


def _where(mask: Tensor) -> Tensor:
    return mask.nonzero().flatten()


def seconds_a_image(
    model: nn.Module, body: Body, data: ImageData, recipe: Recipe
) -> float:
    """Return what an image takes here as far as a cut, the second batch timed."""
    device = devices.select_device(recipe.device)
    x = probe((data.in_chans, *data.image_size), TIMED).to(device)
    x = x.contiguous(memory_format=torch.channels_last)
    with evaluation_mode(model), torch.inference_mode():
        body.features(model, x)
        began = time.perf_counter()
        body.features(model, x)
    return (time.perf_counter() - began) / TIMED
