"""What a wrong answer costs: cross-entropy, smoothed, weighed by class."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from striate.core.outputs import Loss


def softmax_cost(label_smoothing: float, class_weights: Tensor | None) -> Loss:
    """Return the cost of logits: cross-entropy, its mean over a batch.

    With weights it is Σ wᵧ·cost / N. Torch's own `weight` is not that: it divides by
    the batch's weights, by which a class that is rarer than one picture a batch gets
    less than its due, and it weighs the smoothed target by the classes it is spread
    over, by which every picture pulls towards the rare ones.

    Example:
        >>> weighted = softmax_cost(0.0, torch.tensor([1.0, 3.0]))
        >>> logits, y = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> round(weighted(logits, y).item(), 3)  # 2 ln 2
        1.386
    """
    plain = partial(F.cross_entropy, label_smoothing=label_smoothing)
    if class_weights is None:
        return plain

    def weighted(logits: Tensor, y: Tensor) -> Tensor:
        return (class_weights[y] * plain(logits, y, reduction="none")).mean()

    return weighted


def even_weights(counts: Tensor) -> Tensor:
    """Return what a picture of each class counts so that all classes count alike.

    N / (C·n) for n of N pictures in one of the C classes that have any: as many
    pictures' worth in all as there are, so that the learning rate keeps its meaning.

    Shapes:
        (classes,) → (classes,) float32; 0 for a class without pictures

    Example:
        >>> even_weights(torch.tensor([30, 10, 0])).tolist()
        [0.6666666865348816, 2.0, 0.0]
    """
    present = (counts > 0).sum()
    return torch.where(
        counts > 0, counts.sum() / (present * counts.clamp(min=1)), 0.0
    ).float()
