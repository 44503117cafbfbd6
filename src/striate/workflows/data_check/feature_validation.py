"""Cross-validation of logistic regression on the features of a pretrained network.

`striate train` classifies photographs in the same way by default. The frozen network
has seen none of the labels, so each image runs through it only once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from striate.core import device as devices
from striate.core.hooks import evaluation_mode
from striate.core.preprocess_config import Preprocess
from striate.data.cache.image_rows import batch_pixels
from striate.data.decode.preprocess import normalize
from striate.data.subset import Subset
from striate.finetune.logistic import cross_validate, fit_logistic
from striate.finetune.split_model import cut_at, probe_batch
from striate.models.catalogue import create_named_model
from striate.models.weights import put_pretrained
from striate.run.choose_recipe import BACKBONE
from striate.run.pretrained import WeightsFile, read_state
from striate.run.recipe import Recipe
from striate.workflows.data_check.cross_validation import FoldPrediction, Tick

BATCH = 32  # images at a time; larger batches are not faster on a CPU


@dataclass(frozen=True, kw_only=True)
class FeatureValidation:
    """Cross-validation of a linear classifier on frozen features of all images."""

    subset: Subset = field(repr=False)  # all images
    preprocess: Preprocess  # the preprocessing that the weights expect
    classes: int  # number of classes
    weights: WeightsFile  # weights of the pretrained network
    recipe: Recipe  # its seed and device are used

    def predictions(self, folds: np.ndarray, tick: Tick) -> Iterator[FoldPrediction]:
        """Fit one classifier per fold, and yield the predictions for each fold.

        The regularization strength is the best of all folds: one number, which cannot
        memorize a label.
        """
        numbers = np.unique(folds)
        if len(numbers) < 2:
            return
        x, y = self._features(tick), self.subset.labels
        results = cross_validate(x, y, self.classes, fold=torch.from_numpy(folds))
        penalty = min(results, key=lambda result: result.loss).penalty
        for fold in numbers.tolist():
            train = torch.from_numpy(folds != fold)
            fitted = fit_logistic(x[train], y[train], self.classes, penalty=penalty)
            logits = x[~train].double() @ fitted.weight.T + fitted.bias
            counts = y[train].bincount(minlength=self.classes)
            yield FoldPrediction(
                rows=np.flatnonzero(folds == fold),
                probs=logits.softmax(1).numpy(),
                trained_classes=(counts > 0).numpy(),
            )

    def _features(self, tick: Tick) -> Tensor:
        """Return the features of all images, (N, width), in front of the classifier."""
        model, count = self._backbone(), len(self.subset)
        order = torch.split(torch.arange(count), BATCH)
        device = next(model.parameters()).device
        parts: list[Tensor] = []
        with evaluation_mode(model), torch.inference_mode(), devices.flush_denormals():
            height, width, channels = self.preprocess.shape
            probe = probe_batch((channels, height, width)).to(device)
            cut = cut_at(model, probe)
            for batch in batch_pixels(self.subset.pixels, order):
                x = normalize(batch.pixels, self.preprocess).to(device)
                parts.append(cut.features(model, x).flatten(1).float().cpu())
                tick(min(BATCH * len(parts), count), count)
        return torch.cat(parts).clone()

    def _backbone(self) -> nn.Module:
        """Build the pretrained network; its last layer is not used."""
        model = create_named_model(
            BACKBONE,
            num_classes=self.classes,
            in_chans=self.preprocess.channels,
            image_size=(self.preprocess.height, self.preprocess.width),
            seed=self.recipe.seed,
        )
        state, path = read_state(self.weights), self.weights.path
        put_pretrained(model, state, path, head=False, same_network=True)
        device = devices.select_device(self.recipe.device)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model
