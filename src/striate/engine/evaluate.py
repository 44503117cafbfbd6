"""Evaluation: run a network over batches and collect logits, labels and losses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from striate.core.hooks import evaluation_mode
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.task import MULTI_LABEL, Task, task_of
from striate.engine.tta import TTA, no_tta
from striate.metrics.average_precision import mean_average_precision


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Logits, labels and losses of all images, in their order, on the CPU."""

    logits: Tensor = field(repr=False)  # (N, classes) float32
    # (N,) int64; for several labels per image (N, classes) uint8, multi-hot
    labels: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)  # (N,) cross-entropy in nats, without smoothing

    @property
    def task(self) -> Task:
        """Return the task: one class per image, or several labels."""
        return task_of(self.labels)

    @property
    def probs(self) -> Tensor:
        """Return the class probabilities, (N, classes): softmax, or sigmoid."""
        return self.task.probs(self.logits)

    @property
    def correct(self) -> Tensor:
        """Return whether each prediction is correct, (N,); of labels: all of them."""
        return self.task.correct(self.logits, self.labels)

    @property
    def accuracy(self) -> float:
        """Return the accuracy: the share of correct predictions."""
        return float(self.correct.float().mean())

    @property
    def mean_ap(self) -> float | None:
        """Return the mAP; None for one class per image, or if no image has a label."""
        if self.task is not MULTI_LABEL:
            return None
        value = mean_average_precision(self.labels.numpy(), self.logits.numpy())
        return None if math.isnan(value) else value

    @property
    def balanced_accuracy(self) -> float:
        """Return the balanced accuracy: mean recall over the classes with images.

        For several labels it is the mean over the classes of the mean recall of images
        with and without the class.
        """
        if self.task is MULTI_LABEL:
            return _balanced_label_accuracy(self.logits > 0, self.labels > 0)
        correct = self.correct.float()
        counts = self.labels.bincount()
        recalls = self.labels.bincount(correct) / counts.clamp(min=1)
        return float(recalls[counts > 0].mean())

    @property
    def loss(self) -> float:
        """Return the mean cross-entropy in nats."""
        return float(self.losses.mean())


def _balanced_label_accuracy(predicted: Tensor, actual: Tensor) -> float:
    shares = []
    for value in (True, False):
        own = actual == value
        hits = (own & (predicted == value)).sum(0) / own.sum(0).clamp(min=1)
        shares.append(torch.where(own.any(0), hits, 1.0))
    return float(torch.stack(shares).mean())


def evaluate(
    model: nn.Module,  # any network
    # Inputs and labels; in a distributed run only this rank's share of each batch. All
    # ranks then return the outputs of all images.
    batches: Iterable[tuple[Tensor, Tensor]],
    tta: TTA = no_tta,  # test-time augmentation
    group: RankGroup = ONE_PROCESS,  # the ranks of a distributed run; None: one process
) -> Outputs:
    """Run a network on batches in evaluation mode and return all outputs.

    The network's training or evaluation mode is restored afterwards. In a distributed
    run, `batches` are this rank's share of each batch. All ranks then return the
    outputs of all images.
    """
    logits: list[Tensor | None] = []
    labels: list[Tensor] = []
    with evaluation_mode(model, analysis=False), torch.inference_mode():
        for x, y in batches:
            labels.append(y.cpu())
            logits.append(tta(model, x).float().cpu() if len(y) else None)
    ranks = group.all_gather_object((logits, labels), "the outputs of all images")
    # Batch by batch, in the order of the ranks.
    logits, labels = (
        [part for batch in zip(*lists, strict=True) for part in batch]
        for lists in zip(*ranks, strict=True)
    )
    all_logits = torch.cat([part for part in logits if part is not None])
    all_labels = torch.cat(labels)
    losses = task_of(all_labels).losses(all_logits, all_labels)
    return Outputs(logits=all_logits, labels=all_labels, losses=losses)
