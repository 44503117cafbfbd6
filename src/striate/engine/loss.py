"""What a wrong answer costs: cross-entropy, smoothed, and fair to rare classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss


@dataclass(frozen=True, kw_only=True)
class ClassBalance:
    """How classes of unlike size count; one of the two.

    Args:
        weights: (classes,) What an image of each class counts.
        prior: (classes,) Share of each class in what is trained on.
    """

    weights: Tensor | None = None
    prior: Tensor | None = None


def cross_entropy_loss(
    label_smoothing: float, classes: ClassBalance | None = None
) -> Loss:
    """Return the mean cost of a batch's logits.

    Args:
        label_smoothing: Share of the target spread over all classes (Szegedy 2015).
        classes: Makes up for uneven classes; None for plain cross-entropy.

    Example:
        >>> balance = ClassBalance(weights=torch.tensor([1.0, 3.0]))
        >>> weighted = cross_entropy_loss(0.0, balance)
        >>> logits, y = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> round(weighted(logits, y).item(), 3)  # 2 ln 2
        1.386
    """
    plain = partial(F.cross_entropy, label_smoothing=label_smoothing)
    if classes is None:
        return plain
    if classes.prior is not None:
        return partial(_adjusted, classes.prior, label_smoothing)
    assert classes.weights is not None  # noqa: S101 - one of the two
    return partial(_weighted, classes.weights, label_smoothing)


def _weighted(weights: Tensor, smoothing: float, logits: Tensor, y: Tensor) -> Tensor:
    """Return Σ wᵧ·cost / N.

    Torch's own `weight` is not that: it divides by the batch's weights, by which a
    class rarer than one image a batch gets less than its due, and it weighs the
    smoothed target by the classes it is spread over, by which every image pulls
    towards the rare ones. A mixed image counts as its parts do, each by its share.
    """
    if y.ndim == 1:
        costs = F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
        return (weights[y] * costs).mean()
    parts = y * weights
    logs = F.log_softmax(logits, dim=1)
    hit, even = (parts * logs).sum(1), parts.sum(1) * logs.mean(1)
    return -((1 - smoothing) * hit + smoothing * even).mean()


def _adjusted(prior: Tensor, smoothing: float, logits: Tensor, y: Tensor) -> Tensor:
    """Return the cost of logits to which the log of the classes' shares is added.

    What is frequent then need not be learned as evidence, so the network's own logits
    speak as if all classes were equally frequent (Menon et al. 2021, equation 10).
    The smoothed target is spread by the same shares: spread evenly it would contradict
    them, and beyond 20 to 1 the common classes get lost
    (docs/notebook/splits-and-imbalance.md).
    """
    logs = F.log_softmax(logits + prior.log(), dim=1)
    hit = logs.gather(1, y[:, None])[:, 0] if y.ndim == 1 else (y * logs).sum(1)
    spread = logs @ prior.to(logs.dtype)  # double, where a logistic head is fitted
    return -((1 - smoothing) * hit + smoothing * spread).mean()


def class_priors(counts: Tensor) -> Tensor:
    """Return the share of each class, at least that of one image.

    Example:
        >>> class_priors(torch.tensor([3, 1])).tolist()
        [0.75, 0.25]
    """
    some = counts.clamp(min=1).float()
    return some / some.sum()


def balanced_class_weights(counts: Tensor) -> Tensor:
    """Return what an image of each class counts so that all classes count alike.

    N / (C·n) for n of N images in one of the C classes that have any: as many
    images' worth in all as there are, so that the learning rate keeps its meaning.

    Shapes:
        (classes,) → (classes,) float32; 0 for a class without images

    Example:
        >>> balanced_class_weights(torch.tensor([30, 10, 0])).tolist()
        [0.6666666865348816, 2.0, 0.0]
    """
    present = (counts > 0).sum()
    even = counts.sum() / (present * counts.clamp(min=1))
    return torch.where(counts > 0, even, 0.0).float()
