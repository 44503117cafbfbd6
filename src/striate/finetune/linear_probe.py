"""Linear probe: accuracy of a linear classifier on the features at a cut point."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.finetune.logistic import (
    FOLDS,
    PENALTIES,
    LossFunction,
    PenaltyResult,
    assign_folds,
    cross_validate,
    shuffled_groups,
)

FRACTIONS = (0.25, 0.5)  # of the training images; a learning curve ends with all
PROBE_PENALTIES = PENALTIES[::2]  # powers of ten are enough to compare cut points
MIN_IMAGES_PER_CLASS = 2 * FOLDS  # per class, or folds lack classes


@dataclass(frozen=True, kw_only=True)
class ProbePoint:
    """Result of a linear probe that was trained on a given number of images."""

    images: int  # mean number of training images of a fold
    accuracy: float  # cross-validated accuracy over all images
    loss: float  # cross-validated mean cross-entropy in nats
    # l2 regularization strength: the best for all images, divided by the share of
    # images used for training
    penalty: float


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Learning curve of a linear probe at a cut point."""

    cut: str  # name of the cut point
    width: int  # number of features per image
    count: int
    points: tuple[ProbePoint, ...]  # results for increasing numbers of training images

    @property
    def accuracy(self) -> float:
        """Return the accuracy of the probe that was trained on all images."""
        return self.points[-1].accuracy

    @property
    def error(self) -> float:
        """Return the standard error of the accuracy; above 0 even at 100 % accuracy."""
        share = (self.accuracy * self.count + 2) / (self.count + 4)
        return float((share * (1 - share) / self.count) ** 0.5)


def probe_learning_curve(
    x: Tensor,  # (N, width) features of training images
    y: Tensor,  # (N,) class indices
    num_classes: int,
    # (N) group of each image; all images of a group are in the same fold.
    groups: Sequence[Hashable],
    # Loss to minimize: mean loss of logits and class indices.
    loss: LossFunction = F.cross_entropy,
    seed: int = 0,  # random seed of the folds and of the order of images
) -> tuple[ProbePoint, ...]:
    """Return the cross-validated learning curve of linear probes on the given features.

    `x` is (N, width). All images of a group are in the same fold.

    Example:
        >>> x = torch.arange(80.0)[:, None] % 2 + torch.linspace(0, 0.1, 80)[:, None]
        >>> points = probe_learning_curve(x, torch.arange(80) % 2, 2, range(80))
        >>> [point.images for point in points], points[-1].accuracy
        ([16, 32, 64], 1.0)
    """
    fold = assign_folds(y, groups, seed)
    fit = partial(cross_validate, x, y, num_classes, fold=fold, loss=loss)
    every = torch.ones(len(y), dtype=torch.bool)
    full = _point(fit(train_mask=every, penalties=PROBE_PENALTIES), len(y))
    position, groups_of_class = order_in_class(y, groups, seed)
    points = []
    for fraction in FRACTIONS:
        mask = position / groups_of_class <= fraction
        # Counted, not computed: since groups stay whole, a share may be nothing. Nor
        # can a class be learned of which the fold that is left out has the only group.
        few = int(y[mask].bincount(minlength=num_classes).min()) < MIN_IMAGES_PER_CLASS
        if few or int((fraction * groups_of_class).min()) < 2:
            continue
        count = int(mask.sum())
        # The same prior on the weights counts more beside the mean loss of fewer.
        penalty = full.penalty * len(y) / count
        points.append(_point(fit(train_mask=mask, penalties=(penalty,)), count))
    return (*points, full)


def _point(results: Sequence[PenaltyResult], count: int) -> ProbePoint:
    best = min(results, key=lambda result: result.loss)
    return ProbePoint(
        images=round(count * (1 - 1 / FOLDS)),
        accuracy=best.accuracy,
        loss=best.loss,
        penalty=best.penalty,
    )


def order_in_class(
    y: Tensor, groups: Sequence[Hashable], seed: int
) -> tuple[Tensor, Tensor]:
    """Return the random rank of each image's group, and the group count of its class.

    Images with rank / groups ≤ f form the subset of fraction f. Groups stay together,
    all classes have the same share, and smaller subsets are parts of larger subsets.

    Shapes:
        (N,) → (N,), (N,) float64; ranks from 1

    Example:
        >>> position, count = order_in_class(torch.tensor([0, 0, 0, 1]), "aabc", 0)
        >>> position.tolist(), count.tolist()
        ([2.0, 2.0, 1.0, 1.0], [2.0, 2.0, 2.0, 1.0])
    """
    ranks = {
        group: (rank, len(members))
        for members in shuffled_groups(y, groups, seed, "probe")
        for rank, group in enumerate(members, 1)
    }
    rows = torch.tensor([ranks[group] for group in groups], dtype=torch.float64)
    return rows[:, 0], rows[:, 1]
