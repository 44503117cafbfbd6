"""Rectangles erased, and pairs of images mixed with their targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.seeds import generator, permutation, uniform
from striate.core.spec import ImageSpec
from striate.data.augment.augment import Augment

_QUANTILES = 1 << 16
_HEAD = range(4)  # whether CutMix, its or mixup's share, and where it is pasted


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """With whom each image of a batch is mixed, and how.

    Args:
        partner: (N,) numbers of the other images in the part.
        kept: (N,) share of the target that stays with the image itself.
        blend: (N,) its share in every pixel: `kept` for mixup, 1 for CutMix.
        pasted: (N, 4) rows from, to, columns from, to of the other image.
    """

    partner: np.ndarray = field(repr=False)
    kept: np.ndarray = field(repr=False)
    blend: np.ndarray = field(repr=False)
    pasted: np.ndarray = field(repr=False)


def pairs(
    augment: Augment,
    shape: ImageSpec,
    samples: np.ndarray,
    *,
    count: int,
    seed: int,
    epoch: int,
) -> Pairs:
    """Decide with whom and how images are mixed.

    Partners are drawn from the whole part and not from the batch, or the batch size
    would change what is seen. Every image is partner once an epoch. With both mixup
    (Zhang et al. 2017) and CutMix (Yun et al. 2019) on, a coin decides.
    """
    even = uniform(samples, _HEAD, seed, "mix", epoch)
    cut = np.full(len(samples), augment.cutmix > 0)
    if augment.cutmix and augment.mixup:
        cut = even[:, 0] < 0.5
    share = np.where(
        cut, _beta(augment.cutmix, even[:, 1]), _beta(augment.mixup, even[:, 1])
    )
    pasted = _rectangles(shape, np.where(cut, 1 - share, 0), even[:, 2:])
    area = (pasted[:, 1] - pasted[:, 0]) * (pasted[:, 3] - pasted[:, 2])
    # Of a pasted rectangle, the target follows the pixels that are really covered.
    kept = np.where(cut, 1 - area / (shape.height * shape.width), share)
    return Pairs(
        partner=_partners(count, seed, epoch)[samples],
        kept=kept,
        blend=np.where(cut, 1.0, share),
        pasted=pasted,
    )


@lru_cache(maxsize=2)
def _partners(count: int, seed: int, epoch: int) -> np.ndarray:
    return permutation(count, seed, "partner", epoch)


@lru_cache(maxsize=8)
def _quantiles(parameter: float) -> np.ndarray:
    """Sorted draws of Beta(a, a): a table turns even numbers into such shares."""
    draws = generator("beta", parameter).beta(parameter, parameter, _QUANTILES)
    return np.sort(draws)


def _beta(parameter: float, even: np.ndarray) -> np.ndarray:
    if not parameter:
        return np.ones_like(even)
    shares: np.ndarray = _quantiles(parameter)[(even * _QUANTILES).astype(int)]
    return shares


def _rectangles(shape: ImageSpec, area: np.ndarray, even: np.ndarray) -> np.ndarray:
    """Rectangles of the image's own aspect around an even place, cut at its edge."""
    spans = []
    for side, place in ((shape.height, even[:, 0]), (shape.width, even[:, 1])):
        half = np.sqrt(area) * side / 2
        spans += [np.rint(place * side - half), np.rint(place * side + half)]
    limits = np.repeat([shape.height, shape.width], 2)
    rectangles: np.ndarray = np.clip(np.stack(spans, axis=1), 0, limits).astype(int)
    top, bottom, left, right = rectangles.T
    rectangles[(bottom == top) | (right == left)] = 0
    return rectangles


def shared_targets(
    labels: Tensor, others: Tensor, kept: np.ndarray, classes: int
) -> Tensor:
    """Return how much of each class is in each mixed image.

    Shapes:
        (N,), (N,), (N,) → (N, classes) float32; rows sum to 1

    Example:
        >>> two = torch.tensor([0, 1])
        >>> shared_targets(two, two.flip(0), np.array([0.75, 1.0]), 2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    share = torch.from_numpy(kept.astype(np.float32))[:, None]
    own, other = (F.one_hot(y, classes).float() for y in (labels, others))
    return own * share + other * (1 - share)


def blend(x: Tensor, other: Tensor, mixed: Pairs) -> Tensor:
    """Mix two batches; x is used up.

    Shapes:
        (N, C, H, W), (N, C, H, W) → (N, C, H, W)
    """
    if (mixed.blend < 1).any():
        share = torch.from_numpy(mixed.blend.astype(np.float32)).to(x.device)
        share = share.view(-1, 1, 1, 1)
        x.mul_(share).add_(other * (1 - share))
    if mixed.pasted.any():
        lines = _lines(x)
        torch.where(_inside(mixed.pasted, x), _lines(other), lines, out=lines)
    return x


def blank(x: Tensor, rectangles: np.ndarray) -> Tensor:
    """Set rectangles to 0, which is the training split's mean; x is changed.

    Shapes:
        (N, C, H, W), (N, 4) → (N, C, H, W)
    """
    _lines(x).masked_fill_(_inside(rectangles, x), 0.0)
    return x


def _lines(x: Tensor) -> Tensor:
    """See channels-last images as rows of width times channels numbers."""
    count, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(count, height, width * channels)


def _inside(rectangles: np.ndarray, x: Tensor) -> Tensor:
    """Tell for every number of `_lines(x)` whether its rectangle covers it."""
    channels, height, width = x.shape[1:]
    rows, columns = np.arange(height), np.repeat(np.arange(width), channels)
    top, bottom, left, right = (side[:, None] for side in rectangles.T)
    down = torch.from_numpy((rows >= top) & (rows < bottom)).to(x.device)
    across = torch.from_numpy((columns >= left) & (columns < right)).to(x.device)
    return down[:, :, None] & across[:, None, :]
