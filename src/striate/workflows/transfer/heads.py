"""Heads on backbone features: logistic regression, or training with an optimizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from striate.core import device as devices
from striate.core.errors import SettingError
from striate.core.format import count_text
from striate.core.hooks import evaluation_mode
from striate.data.batches import Batches
from striate.data.cache.feature_cache import FeatureRows
from striate.data.image_data import ImageData
from striate.engine.callbacks import Callback, EpochResult
from striate.engine.config import OptimConfig
from striate.engine.evaluate import Outputs, evaluate
from striate.engine.rng import preserve_rng_state
from striate.engine.task import task_of
from striate.engine.training_loop import Epochs, fit
from striate.finetune.batch_norm import adapt_batch_norm
from striate.finetune.discriminative_lr import TrainableStages
from striate.finetune.logistic import LogisticFit, LossFunction, fit_logistic
from striate.finetune.split_model import cut_at
from striate.finetune.unfreezing import GradualUnfreezing
from striate.run.build_from_recipe import (
    class_weighting,
    recipe_fit_config,
    recipe_optimizer,
    split_batches,
)
from striate.run.evaluation_batch_size import (
    MAX_EVALUATION_BATCH,
    evaluation_batch_size,
)
from striate.run.progress import ProgressCallback
from striate.run.recipe import TrainConfig
from striate.run.train_accuracy import training_sample
from striate.run.transfer_plan import LOGISTIC, TUNED
from striate.workflows.transfer.features import BackboneFeatures


@dataclass(frozen=True, kw_only=True)
class FeatureBatches:
    """Batches of backbone features, with the same order of images as `batches`."""

    batches: Batches  # of the images; only their order is used
    # features of the original images and of each augmented view; each epoch uses the
    # next item
    rows: Sequence[FeatureRows] = field(repr=False)
    device: torch.device  # device of the batches

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (features, labels) of each batch in an epoch, from batch `start`."""
        rows = self.rows[epoch % len(self.rows)]
        for index in self.batches.indices(epoch, start):
            labels = self.batches.subset.labels[index]
            yield rows[index].to(self.device), labels.to(self.device)

    def __len__(self) -> int:
        return len(self.batches)


@dataclass(frozen=True)
class _SingleEpoch:
    """All epochs joined to one epoch, so that the head is evaluated only at the end."""

    batches: FeatureBatches
    epochs: int

    def __call__(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        return chain.from_iterable(map(self.batches, range(self.epochs)))

    def __len__(self) -> int:
        return self.epochs * len(self.batches)


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """Result of training a head: history by epoch, and the logistic fit, if used."""

    # results of each epoch; logistic regression has one epoch
    history: list[EpochResult]
    # the fit with its regularization strengths, if the head is logistic
    logistic: LogisticFit | None = None


@dataclass(frozen=True, kw_only=True)
class HeadTrainer:
    """Training and evaluation of the head of a split model on backbone features."""

    head: nn.Sequential  # the layers after the cut point, trained in place
    stages: TrainableStages  # learning rates and unfreezing by stage
    features: BackboneFeatures
    data: ImageData  # the images of the features
    config: TrainConfig

    @property
    def device(self) -> torch.device:
        """Return the training device."""
        return devices.select_device(self.config.device)

    def fit(self, kind: str, quiet: bool = True, keep_best: bool = True) -> HeadResult:
        """Fit the head, which is one of the kinds `HEADS`.

        Without `keep_best`, keep and evaluate only the weights of the last epoch.
        """
        if kind == LOGISTIC:
            return self._fit_logistic()
        if kind == TUNED:
            self._fit_classifier()
        return self._train(quiet, keep_best)

    def evaluate(self, split: str, index: Tensor | None = None) -> Outputs:
        """Return the outputs of the head for the images of a split, in image order.

        With `index`, only the images at these indices are evaluated.
        """
        rows, labels = self.features.rows[split], self.data.subset(split).labels
        size = evaluation_batch_size(*self.data.image_size)
        order = torch.split(torch.arange(len(rows)) if index is None else index, size)
        device = self.device
        pairs = ((rows[i].to(device), labels[i].to(device)) for i in order)
        return evaluate(self.head, pairs)

    def train_outputs(self) -> Outputs:
        """Return the outputs for a sample of training images, without augmentation."""
        count = len(self.features.rows["train"])
        index = torch.tensor(training_sample(count, self.config.seed))
        return self.evaluate("train", index)

    def _fit_logistic(self) -> HeadResult:
        linear, splits = linear_layer_of(self.head), self.features.rows
        x = torch.cat([r.load() for r in (splits["train"], *self.features.views)])
        fitted = self._fit_linear(linear, x)
        train, val = self.evaluate("train"), self.evaluate("val")
        epoch = EpochResult(
            epoch=1,
            train_loss=train.loss,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            val_balanced_accuracy=val.balanced_accuracy,
            val_map=val.mean_ap,
            lr=0.0,
            best=True,
        )
        return HeadResult(history=[epoch], logistic=fitted)

    def _fit_linear(self, linear: nn.Linear, x: Tensor) -> LogisticFit:
        """Fit a layer to features of training images and their augmented views."""
        subset = self.data.subset("train")
        copies = len(x) // len(subset)
        fitted = fit_logistic(
            x,
            torch.cat([subset.labels] * copies),
            self.data.num_classes,
            groups=image_groups(self.data, self.features) * copies,
            eval_mask=torch.arange(len(x)) < len(subset),
            loss=logistic_loss(self.data, self.config),
            seed=self.config.seed,
        )
        with torch.no_grad():
            linear.weight.copy_(fitted.weight)
            if linear.bias is not None:
                linear.bias.copy_(fitted.bias)
        return fitted

    def _fit_classifier(self) -> None:
        """Fit the last layer before fine-tuning the other layers of the head.

        Kumar et al. 2022, "Fine-tuning can distort pretrained features": linear probing
        first, then fine-tuning of all layers. Random last weights would distort the
        others.
        """
        head, device, rows = self.head, self.device, self.features.rows["train"]
        equal = ceil(len(rows) / MAX_EVALUATION_BATCH)  # equal batches, equal weights
        order = torch.arange(len(rows)).tensor_split(equal)
        adapt_batch_norm(head, (rows[i].to(device) for i in order))
        inner = cut_at(head, rows[torch.arange(min(2, len(rows)))].to(device))
        with evaluation_mode(head, analysis=False), torch.inference_mode():
            x = [inner.features(head, rows[i].to(device)).cpu() for i in order]
        self._fit_linear(linear_layer_of(inner.head), torch.cat(x))

    def _train(self, quiet: bool, keep_best: bool) -> HeadResult:
        head, stages = self.head, self.stages
        config = recipe_fit_config(self.data, self.config, self.device)
        train, val = self._batches("train"), self._batches("val")
        epochs: Epochs = train
        if not keep_best and not stages.config.unfreeze:  # else stages follow by epoch
            epochs = _SingleEpoch(train, config.epochs)
            config = replace(config, epochs=1)
        best, balanced = _BestWeights(head), config.balanced
        with (
            preserve_rng_state(),
            devices.flush_denormals(),
            ProgressCallback(config.epochs, train.batches, quiet, balanced) as display,
        ):
            # Muon needs the whole model.
            optimizer = recipe_optimizer(stages.model, self.config, stages.lr_scales())
            unfreezing = GradualUnfreezing(stages)
            callbacks = (best, unfreezing, display)
            history = fit(head, optimizer, epochs, val, config, callbacks=callbacks)
            unfreezing.end()
        if keep_best:
            head.load_state_dict(best.state)
        return HeadResult(history=history)

    def _batches(self, split: str) -> FeatureBatches:
        """Return feature batches of a split; with augmented views for `train`."""
        batches = split_batches(split, self.data, self.config, self.device)
        views = self.features.views if split == "train" else ()
        rows = (self.features.rows[split], *views)
        return FeatureBatches(batches=batches, rows=rows, device=self.device)


def linear_layer_of(head: nn.Sequential) -> nn.Linear:
    """Return the linear layer of a head that has no other layer except dropout."""
    layers = [m for m in head.modules() if not any(m.children())]
    layers = [m for m in layers if not isinstance(m, _DropoutNd | nn.Identity)]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        what = (
            "a logistic head needs one linear layer, got "
            f"{count_text(len(layers), 'layer')}"
        )
        fix = "remove --cut, or train all these layers with --head trained"
        raise SettingError(what, where="--head logistic", fix=fix)
    return layers[0]


def logistic_loss(data: ImageData, optim: OptimConfig) -> LossFunction:
    """Return the loss function of logistic regression, with the recipe's class weights.

    Every image is used exactly once per step. So class weights in the loss replace
    sampling of rare classes; the average effect is equal. Of several labels per image,
    the losses of the classes are added, so that each class has its own regression.
    """
    if optim.class_weights == "sampling":
        optim = replace(optim, class_weights="loss")
    balance = class_weighting(data, optim, torch.device("cpu"))
    loss = task_of(data.subset("train").labels).loss(0.0, balance)
    if not data.labels.multi_label:
        return loss
    return lambda logits, y: data.num_classes * loss(logits, y)


def image_groups(data: ImageData, features: BackboneFeatures) -> list[str]:
    """Return the group of each training image, or its content hash without a group."""
    rows = {row.path: row for row in data.rows if row.split == "train"}
    names = data.subset("train").paths
    groups = [rows[name].group if name in rows else "" for name in names]
    hashes = features.keys["train"]
    return [f"g {g}" if g else h for g, h in zip(groups, hashes, strict=True)]


class _BestWeights(Callback):
    """Callback that keeps a copy of the weights of the best epoch."""

    def __init__(self, head: nn.Module) -> None:
        self._head = head
        self._copy_weights()

    def on_epoch_end(self, epoch: EpochResult) -> None:
        """Copy the weights if this epoch is the best so far."""
        if epoch.best:
            self._copy_weights()

    def _copy_weights(self) -> None:
        self.state = {k: v.clone() for k, v in self._head.state_dict().items()}
