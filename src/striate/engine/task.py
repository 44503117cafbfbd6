"""Loss and probabilities of images with one class each, or with several labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.engine.loss import (
    ClassBalance,
    binary_cross_entropy_loss,
    cross_entropy_loss,
)

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss


@dataclass(frozen=True, kw_only=True)
class Task:
    """Loss, probabilities and predictions for a kind of labels."""

    # training loss from label smoothing and class balance
    loss: Callable[[float, ClassBalance | None], Loss]
    losses: Callable[[Tensor, Tensor], Tensor]  # loss of each image in nats, (N,)
    probs: Callable[[Tensor], Tensor]  # probabilities of the logits, (N, classes)
    # whether each prediction is correct, (N,); for several labels with threshold 0.5
    correct: Callable[[Tensor, Tensor], Tensor]


def _cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


def _is_class(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(1) == labels


def _binary_cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean binary cross-entropy over the classes of each image, (N,)."""
    loss = F.binary_cross_entropy_with_logits
    return loss(logits, labels.to(logits.dtype), reduction="none").mean(1)


def _sigmoid(logits: Tensor) -> Tensor:
    """Return probabilities in double precision, in which few of them are equal."""
    return torch.sigmoid(logits.double())


def _are_classes(logits: Tensor, labels: Tensor) -> Tensor:
    return ((logits > 0) == (labels > 0)).all(1)


# Each image has one class; labels are class indices (N,).
SINGLE_LABEL = Task(
    loss=cross_entropy_loss,
    losses=_cross_entropies,
    probs=_softmax,
    correct=_is_class,
)
# Each image has several classes or none; labels are multi-hot rows (N, classes).
MULTI_LABEL = Task(
    loss=binary_cross_entropy_loss,
    losses=_binary_cross_entropies,
    probs=_sigmoid,
    correct=_are_classes,
)


def task_of(labels: Tensor) -> Task:
    """Return the task of class indices (N,), or of multi-hot labels (N, classes).

    Example:
        >>> task_of(torch.zeros(3, 2)) is MULTI_LABEL
        True
    """
    return MULTI_LABEL if labels.ndim == 2 else SINGLE_LABEL
