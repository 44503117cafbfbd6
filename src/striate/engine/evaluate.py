"""Evaluation: run a network over batches and collect logits, labels and losses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.core.hooks import evaluation_mode
from striate.engine.distributed.group import ONE_PROCESS, RankGroup
from striate.engine.tta import TTA, no_tta


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Logits, labels and losses of all images, in their order, on the CPU."""

    logits: Tensor = field(repr=False)  # (N, classes) float32
    labels: Tensor = field(repr=False)  # (N,) int64
    losses: Tensor = field(repr=False)  # (N,) cross-entropy in nats, without smoothing

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
    losses = F.cross_entropy(all_logits, all_labels, reduction="none")
    return Outputs(logits=all_logits, labels=all_labels, losses=losses)
