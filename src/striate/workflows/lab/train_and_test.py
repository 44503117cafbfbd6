"""Train one arm with one seed, and measure errors on training and test images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from striate.core import device as devices
from striate.core.derive_seed import derive_seed
from striate.core.errors import GeometryError, StriateError
from striate.data.batches import Batches
from striate.data.image_data import ImageData
from striate.engine.callbacks import Callback, EpochResult
from striate.engine.ema import EMA
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.training_loop import FitSession, fit
from striate.engine.tta import TTA_MODES
from striate.run.build_from_recipe import (
    recipe_execution,
    recipe_fit_config,
    recipe_optimizer,
    split_batches,
)
from striate.run.build_network import build_network
from striate.run.parse_settings import make_recipe
from striate.run.prepare_run import prepare_model
from striate.run.recipe import Recipe
from striate.workflows.lab.card import Arm
from striate.workflows.lab.lab_data import DATA_SETTINGS, SPLIT_SIZES, load_trial_data
from striate.workflows.lab.trial import Trial

# Fixed, so that a trial has the same result on every machine of a kind: measuring the
# fastest execution could choose differently from trial to trial.
EXECUTION = {"layout": "nchw", "compile": "off", "precision": "fp32"}


@dataclass(frozen=True, kw_only=True)
class PreparedTrial:
    """Data, network and settings of a trial, before training."""

    trial: Trial
    data: ImageData
    model: nn.Module
    recipe: Recipe

    @property
    def device(self) -> torch.device:
        """Return the device of the trial."""
        return devices.select_device(self.recipe.device)

    def batches(self, split: str) -> Batches:
        """Return the batches of a split; those of `train` are shuffled."""
        return split_batches(split, self.data, self.recipe, self.device)

    def training_batches_in_order(self) -> Batches:
        """Return the training images without augmentation, in a fixed order."""
        val = self.batches("val")
        return replace(val, subset=self.data.subset("train"))


@dataclass(frozen=True, kw_only=True)
class TrainedTrial:
    """A trained network, and the results of its epochs."""

    prepared: PreparedTrial
    history: Sequence[EpochResult]
    model: nn.Module  # the trained network, or its moving average

    def outputs(self, split: str) -> Outputs:
        """Return the outputs for a split; `train` without augmentation."""
        prepared = self.prepared
        batches = (
            prepared.training_batches_in_order()
            if split == "train"
            else prepared.batches(split)
        )
        tta = TTA_MODES[prepared.recipe.tta]
        return evaluate(self.model, batches(0), tta)


def prepare_trial(trial: Trial, arm: Arm) -> PreparedTrial:
    """Load the images of a trial and build its network.

    Raises:
        StriateError: The settings are invalid, or the network does not fit the images;
            the message names the arm.
    """
    with errors_of_arm(trial.arm):
        data = load_trial_data(trial.settings, trial.seed)
    return prepare_on(data, trial, arm)


def prepare_on(data: ImageData, trial: Trial, arm: Arm) -> PreparedTrial:
    """Build the network of a trial for loaded images.

    Raises:
        StriateError: As for `prepare_trial`.
    """
    left_out = {*SPLIT_SIZES, *DATA_SETTINGS} - {"seed"}
    settings = {k: v for k, v in trial.settings.items() if k not in left_out}
    settings = {"model": "custom:lab", **settings, "seed": trial.seed}
    with errors_of_arm(trial.arm):
        recipe = make_recipe(EXECUTION | settings, {}).resolved()
        model = _build(arm, data, recipe)
        prepare_model(model, data, recipe)
    return PreparedTrial(trial=trial, data=data, model=model, recipe=recipe)


@contextmanager
def errors_of_arm(name: str) -> Iterator[None]:
    """Context manager: errors name the arm in which they occurred."""
    try:
        yield
    except StriateError as error:
        error.where = f"arm '{name}'" + (f", {error.where}" if error.where else "")
        raise


def _build(arm: Arm, data: ImageData, recipe: Recipe) -> nn.Module:
    seed = derive_seed(recipe.seed, "init")
    if arm.network is None:
        return build_network(
            recipe.model,
            num_classes=data.num_classes,
            in_chans=data.in_chans,
            image_size=data.image_size,
            seed=recipe.seed,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return arm.network(data)
        except (RuntimeError, ValueError) as error:
            height, width = data.image_size
            what = f"the network does not fit images of {height}×{width}: {error}"
            raise GeometryError(
                what, fix="use other images, or --image-size"
            ) from error


def train_trial(
    prepared: PreparedTrial, callbacks: Sequence[Callback] = ()
) -> TrainedTrial:
    """Train the network of a trial to the last epoch; the last weights count.

    No epoch is chosen by validation images: the choice would add noise, and for the
    cards with few images also a bias.
    """
    recipe, model = prepared.recipe, prepared.model
    config = recipe_fit_config(prepared.data, recipe, prepared.device)
    ema = EMA(model, recipe.ema) if recipe.ema else None
    with devices.flush_denormals():
        history = fit(
            model,
            recipe_optimizer(model, recipe),
            prepared.batches("train"),
            prepared.batches("val"),
            replace(config, execution=recipe_execution(recipe)),
            callbacks=[ema, *callbacks] if ema else callbacks,
            session=FitSession(eval_model=ema.model if ema else None),
        )
    return TrainedTrial(
        prepared=prepared, history=history, model=ema.model if ema else model
    )


def measure_errors(trained: TrainedTrial) -> dict[str, Any]:
    """Return errors and losses on training and test images, and the curve by epoch."""
    train, test = trained.outputs("train"), trained.outputs("test")
    return {
        "train_error": 1 - train.accuracy,
        "test_error": 1 - test.accuracy,
        "train_loss": train.loss,
        "test_loss": test.loss,
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "weights": sum(p.numel() for p in trained.model.parameters()),
        "epoch": [result.epoch for result in trained.history],
        "epoch_train_loss": [result.train_loss for result in trained.history],
        "epoch_val_error": [1 - result.val_accuracy for result in trained.history],
        "weights_sha256": weights_sha256(trained.model.state_dict()),
    }


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of all tensors of a network, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def train_and_test(trial: Trial, arm: Arm) -> dict[str, Any]:
    """Train one arm with one seed; return errors on training and test images."""
    return measure_errors(train_trial(prepare_trial(trial, arm)))
