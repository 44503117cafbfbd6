"""Loss functions: cross-entropy and binary cross-entropy, with class balancing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from striate.core.aux_heads import Loss

MAX_POSITIVE_WEIGHT = 100.0  # of rare classes: larger weights make training unstable


@dataclass(frozen=True, kw_only=True)
class ClassBalance:
    """Correction of the loss for class imbalance, by class weights or class priors."""

    # (classes,) weight of each class in the loss; for several labels per image the
    # weight of the images that have the class
    weights: Tensor | None = None
    prior: Tensor | None = None  # (classes,) Share of each class in the training data


def cross_entropy_loss(smoothing: float, balance: ClassBalance | None = None) -> Loss:
    """Return a loss function: the mean cross-entropy of a batch in nats.

    Label smoothing spreads a share of the target over all classes (Szegedy 2015).

    Example:
        >>> balance = ClassBalance(weights=torch.tensor([1.0, 3.0]))
        >>> weighted = cross_entropy_loss(0.0, balance)
        >>> logits, y = torch.zeros(2, 2), torch.tensor([0, 1])
        >>> round(weighted(logits, y).item(), 3)  # 2 ln 2
        1.386
    """
    loss = partial(F.cross_entropy, label_smoothing=smoothing)
    if balance is None:
        return loss
    if balance.prior is not None:
        return partial(_adjusted, balance.prior, smoothing)
    assert balance.weights is not None  # noqa: S101 - one of the two
    return partial(_weighted, balance.weights, smoothing)


def _weighted(weights: Tensor, smoothing: float, logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy with class weights, Σ wᵧ·loss / N.

    The argument `weight` of torch's cross-entropy differs. It divides by the sum of the
    weights in the batch, so that a class rarer than one image per batch counts too
    little. It also weights the smoothed part of the target, so that every image favors
    the rare classes. The weight of a mixed image is the mean weight of its classes.
    """
    if y.ndim == 1:
        losses = F.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
        return (weights[y] * losses).mean()
    weighted = y * weights
    logs = F.log_softmax(logits, dim=1)
    hit, even = (weighted * logs).sum(1), weighted.sum(1) * logs.mean(1)
    return -((1 - smoothing) * hit + smoothing * even).mean()


def _adjusted(prior: Tensor, smoothing: float, logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy after adding the log class priors to the logits.

    With this logit adjustment, the network need not learn the class frequencies, and
    its own logits assume equally frequent classes (Menon et al. 2021, equation 10).
    Label smoothing spreads the target by the same priors: with an even spread, common
    classes are no longer predicted if they are 20 times as frequent as rare classes
    (docs/notebook/splits-and-imbalance.md).
    """
    logs = F.log_softmax(logits + prior.log(), dim=1)
    hit = logs.gather(1, y[:, None])[:, 0] if y.ndim == 1 else (y * logs).sum(1)
    spread = logs @ prior.to(logs.dtype)  # double, where a logistic head is fitted
    return -((1 - smoothing) * hit + smoothing * spread).mean()


def binary_cross_entropy_loss(
    smoothing: float, balance: ClassBalance | None = None
) -> Loss:
    """Return the mean binary cross-entropy of the labels of a batch in nats.

    Label smoothing moves targets towards 1 / classes, as in timm. The weights of
    `balance` multiply the loss of images that have the class (`pos_weight` of torch).

    Example:
        >>> loss = binary_cross_entropy_loss(0.0)
        >>> round(loss(torch.zeros(1, 2), torch.tensor([[1, 0]])).item(), 3)  # ln 2
        0.693
    """
    return partial(_binary, balance.weights if balance else None, smoothing)


def _binary(
    weights: Tensor | None, smoothing: float, logits: Tensor, y: Tensor
) -> Tensor:
    target = y.to(logits.dtype)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / max(target.shape[1], 2)
    loss = F.binary_cross_entropy_with_logits
    weights = None if weights is None else weights.to(logits.dtype)
    return loss(logits, target, pos_weight=weights)


def positive_weights(counts: Tensor, images: int) -> Tensor:
    """Return the weight of images that have a class: images without it to images with.

    Images with and without the class then have the same total weight. It is at most
    `MAX_POSITIVE_WEIGHT`, and 1 for a class that no image or every image has.

    Example:
        >>> positive_weights(torch.tensor([10, 25, 0]), 50).tolist()
        [4.0, 1.0, 1.0]
    """
    ratio = (images - counts) / counts.clamp(min=1)
    known = (counts > 0) & (counts < images)
    return torch.where(known, ratio.clamp(max=MAX_POSITIVE_WEIGHT), 1.0).float()


def class_priors(counts: Tensor) -> Tensor:
    """Return the fraction of images in each class; an empty class counts as one image.

    Example:
        >>> class_priors(torch.tensor([3, 1])).tolist()
        [0.75, 0.25]
    """
    at_least_one = counts.clamp(min=1).float()
    return at_least_one / at_least_one.sum()


def balanced_class_weights(counts: Tensor) -> Tensor:
    """Return class weights that give all classes the same total weight in the loss.

    The weight is N / (C·n) for a class with n of N images, where C is the number of
    classes with images. The mean weight of an image is 1, so that the learning rate
    need not change.

    Shapes:
        (classes,) → (classes,) float32; 0 for a class without images

    Example:
        >>> balanced_class_weights(torch.tensor([30, 10, 0])).tolist()
        [0.6666666865348816, 2.0, 0.0]
    """
    present = (counts > 0).sum()
    even = counts.sum() / (present * counts.clamp(min=1))
    return torch.where(counts > 0, even, 0.0).float()
