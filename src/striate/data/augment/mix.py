"""Random erasing, mixup and CutMix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.preprocess_config import ImageSpec
from striate.core.seeds import numpy_generator, permutation, uniform
from striate.data.augment.augment import Augment

_QUANTILES = 1 << 16
_HEAD = range(4)  # CutMix or mixup, the share, and the position of the pasted rectangle


@dataclass(frozen=True, kw_only=True)
class MixPairs:
    """Partner image and mixing weights for each image of a batch."""

    # (N,) indices of the other images in the subset
    partner: np.ndarray = field(repr=False)
    # (N,) weight of the image's own target
    target_share: np.ndarray = field(repr=False)
    # (N,) weight of the image's own pixels: `target_share` for mixup, 1 for CutMix
    pixel_share: np.ndarray = field(repr=False)
    # (N, 4) rectangle pasted from the other image: row start and stop, column start and
    # stop
    pasted: np.ndarray = field(repr=False)


def draw_mix_pairs(
    augment: Augment,
    shape: ImageSpec,
    samples: np.ndarray,
    *,
    count: int,
    seed: int,
    epoch: int,
) -> MixPairs:
    """Draw a random partner image and mixing weights for each image of a batch.

    Partners are drawn from the whole subset, not from the batch, so that the result
    does not depend on the batch size. Every image is a partner once per epoch. If mixup
    (Zhang et al. 2017) and CutMix (Yun et al. 2019) are both on, each is used with
    probability 1/2.
    """
    choice, position, *corner = uniform(samples, _HEAD, seed, "mix", epoch).T
    cut = np.full(len(samples), augment.cutmix > 0)
    if augment.cutmix and augment.mixup:
        cut = choice < 0.5
    mixed, cut_share = (_beta(a, position) for a in (augment.mixup, augment.cutmix))
    share = np.where(cut, cut_share, mixed)
    pasted = _rectangles(shape, np.where(cut, 1 - share, 0), corner)
    area = (pasted[:, 1] - pasted[:, 0]) * (pasted[:, 3] - pasted[:, 2])
    # Of a pasted rectangle, the target follows the pixels that are really covered.
    target_share = np.where(cut, 1 - area / (shape.height * shape.width), share)
    return MixPairs(
        partner=_permutation(count, seed, "partner", epoch)[samples],
        target_share=target_share,
        pixel_share=np.where(cut, 1.0, share),
        pasted=pasted,
    )


_permutation = lru_cache(maxsize=2)(permutation)


@lru_cache(maxsize=8)
def _quantiles(alpha: float) -> np.ndarray:
    """Return sorted samples of Beta(alpha, alpha), for inverse transform sampling."""
    samples = numpy_generator("beta", alpha).beta(alpha, alpha, _QUANTILES)
    return np.sort(samples)


def _beta(alpha: float, uniform01: np.ndarray) -> np.ndarray:
    if not alpha:
        return np.ones_like(uniform01)
    return np.asarray(_quantiles(alpha)[(uniform01 * _QUANTILES).astype(int)])


def _rectangles(
    shape: ImageSpec, area: np.ndarray, centers: Sequence[np.ndarray]
) -> np.ndarray:
    """Return rectangles of given areas and centers, clipped to the image."""
    spans = []
    for side, center in zip((shape.height, shape.width), centers, strict=True):
        half = np.sqrt(area) * side / 2
        spans += [np.rint(center * side - half), np.rint(center * side + half)]
    limits = np.repeat([shape.height, shape.width], 2)
    rectangles: np.ndarray = np.clip(np.stack(spans, axis=1), 0, limits).astype(int)
    row_start, row_stop, col_start, col_stop = rectangles.T
    rectangles[(row_stop == row_start) | (col_stop == col_start)] = 0
    return rectangles


def mixed_targets(
    labels: Tensor, others: Tensor, target_share: np.ndarray, classes: int
) -> Tensor:
    """Return the soft targets (class probabilities) of mixed images.

    Labels of several classes are multi-hot rows (N, classes).

    Shapes:
        (N,), (N,), (N,) → (N, classes) float32; of class indices, rows sum to 1

    Example:
        >>> two = torch.tensor([0, 1])
        >>> mixed_targets(two, two.flip(0), np.array([0.75, 1.0]), 2).tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    share = torch.from_numpy(target_share.astype(np.float32))[:, None]
    rows = (F.one_hot(y, classes) if y.ndim == 1 else y for y in (labels, others))
    own, other = (y.float() for y in rows)
    return own * share + other * (1 - share)


def mix_batches(x: Tensor, other: Tensor, pairs: MixPairs) -> Tensor:
    """Mix the batch `other` into the batch `x`, in place.

    Shapes:
        (N, C, H, W), (N, C, H, W) → (N, C, H, W)
    """
    if (pairs.pixel_share < 1).any():
        share = torch.from_numpy(pairs.pixel_share.astype(np.float32)).to(x.device)
        share = share.view(-1, 1, 1, 1)
        x.mul_(share).add_(other * (1 - share))
    if pairs.pasted.any():
        lines = _lines(x)
        torch.where(_inside(pairs.pasted, x), _lines(other), lines, out=lines)
    return x


def erase_rectangles(x: Tensor, rectangles: np.ndarray) -> Tensor:
    """Erase a rectangle of each image: set the pixels to 0, the mean color, in place.

    Shapes:
        (N, C, H, W), (N, 4) → (N, C, H, W)
    """
    _lines(x).masked_fill_(_inside(rectangles, x), 0.0)
    return x


def _lines(x: Tensor) -> Tensor:
    """Return channels-last images as a view of shape (N, H, W·C)."""
    count, channels, height, width = x.shape
    return x.permute(0, 2, 3, 1).view(count, height, width * channels)


def _inside(rectangles: np.ndarray, x: Tensor) -> Tensor:
    """Return a mask for `_lines(x)` that is True inside each image's rectangle."""
    channels, height, width = x.shape[1:]
    rows, columns = np.arange(height), np.repeat(np.arange(width), channels)
    row_start, row_stop, col_start, col_stop = (side[:, None] for side in rectangles.T)
    down = torch.from_numpy((rows >= row_start) & (rows < row_stop))
    across = torch.from_numpy((columns >= col_start) & (columns < col_stop))
    return down.to(x.device)[:, :, None] & across.to(x.device)[:, None, :]
