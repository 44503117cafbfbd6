"""Evaluation: run a network over batches and collect logits, labels and losses."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import evaluation_mode
from striate.engine.distributed.heartbeat import COMPUTING
from striate.engine.tta import TTA, no_tta

if TYPE_CHECKING:
    from striate.engine.distributed.group import RankGroup


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Logits, labels and losses of all images, in the order of the batches, on the CPU.

    Args:
        logits: (N, classes) float32.
        labels: (N,) int64.
        losses: (N,) cross-entropy in nats, without smoothing.
    """

    logits: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)

    @property
    def probs(self) -> Tensor:
        """Return the class probabilities (softmax of the logits), (N, classes)."""
        return self.logits.softmax(1)

    @property
    def accuracy(self) -> float:
        """Return the accuracy: the share of correct predictions."""
        return float((self.logits.argmax(1) == self.labels).float().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Return the balanced accuracy: mean recall over the classes with images."""
        correct = (self.logits.argmax(1) == self.labels).float()
        counts = self.labels.bincount()
        recalls = self.labels.bincount(correct) / counts.clamp(min=1)
        return float(recalls[counts > 0].mean())

    @property
    def loss(self) -> float:
        """Return the mean cross-entropy in nats."""
        return float(self.losses.mean())


def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    tta: TTA = no_tta,
    group: RankGroup | None = None,
) -> Outputs:
    """Run a network on batches in evaluation mode and return all outputs.

    The network's training or evaluation mode is restored afterwards.

    Args:
        model: Any network.
        batches: Inputs and labels; in a distributed run only this rank's share of
            each batch. All ranks then return the outputs of all images.
        tta: Test-time augmentation.
        group: The ranks of a distributed run; None: one process.
    """
    logits, labels = [], []
    with evaluation_mode(model), torch.inference_mode(), _computing(group):
        for x, y in batches:
            labels.append(y.cpu())
            if len(y) or not group:
                logits.append(tta(model, x).float().cpu())
    if group:
        all_logits, all_labels = _gather(logits, labels, group)
    else:
        all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    losses = F.cross_entropy(all_logits, all_labels, reduction="none")
    return Outputs(logits=all_logits, labels=all_labels, losses=losses)


def _computing(group: RankGroup | None) -> AbstractContextManager[None]:
    return group.heartbeat.activity(COMPUTING, "evaluating") if group else nullcontext()


def _gather(
    logits: list[Tensor], labels: list[Tensor], group: RankGroup
) -> tuple[Tensor, Tensor]:
    """Gather logits and labels from all ranks; sort them by batch, then by rank."""
    sizes_and_classes = [len(y) for y in labels], logits[0].shape[1] if logits else 0
    gathered = group.all_gather_object(sizes_and_classes, "the number of outputs")
    sizes = torch.tensor([counts for counts, _ in gathered]).T.reshape(
        -1
    )  # batch by batch
    ends = sizes.cumsum(0)
    count, classes = int(ends[-1]), max(classes for _, classes in gathered)
    all_logits = torch.zeros(count, classes)
    all_labels = torch.zeros(count, dtype=torch.int64)
    own = slice(group.rank_info.rank, None, group.world_size)
    rows = torch.cat(
        [
            torch.arange(end - size, end)
            for size, end in zip(sizes[own].tolist(), ends[own].tolist(), strict=True)
        ]
    )
    if logits:
        all_logits[rows] = torch.cat(logits)
    all_labels[rows] = torch.cat(labels)
    # Every row is set on one rank and zero on the others, so the sum is the row.
    group.all_reduce(all_logits, "the logits")
    group.all_reduce(all_labels, "the labels")
    return all_logits, all_labels
