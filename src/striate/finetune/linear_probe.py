"""Linear probe: how well does a linear head on a cut point's features classify?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.seeds import permutation
from striate.finetune.logistic import (
    FOLDS,
    PENALTIES,
    LossFunction,
    PenaltyResult,
    cross_validate,
)

FRACTIONS = (0.25, 0.5)  # of the training images; a learning curve ends with all
PROBE_PENALTIES = PENALTIES[::2]  # powers of ten are enough to compare cut points
MIN_IMAGES = 2 * FOLDS  # per class, or folds lack classes


@dataclass(frozen=True, kw_only=True)
class ProbePoint:
    """Result of a linear probe that was trained with a given number of images.

    Args:
        images: Training images of each fold, on average.
        accuracy: Over all images, each predicted by the fold that left it out.
        loss: Their mean cross-entropy in nats.
        penalty: The best for all images, divided by the share that is trained on.
    """

    images: int
    accuracy: float
    loss: float
    penalty: float


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """Learning curve of a linear probe at a cut point.

    Args:
        cut: The layer.
        width: Features per image.
        count: Number of images.
        points: With growing numbers of training images.
    """

    cut: str
    width: int
    count: int
    points: tuple[ProbePoint, ...]

    @property
    def accuracy(self) -> float:
        """Return the accuracy with all images."""
        return self.points[-1].accuracy

    @property
    def error(self) -> float:
        """Return the standard error of the accuracy; never 0, even at 100 %."""
        share = (self.accuracy * self.count + 2) / (self.count + 4)
        return float((share * (1 - share) / self.count) ** 0.5)


def probe_learning_curve(
    x: Tensor,
    y: Tensor,
    num_classes: int,
    groups: Sequence[Hashable],
    loss: LossFunction = F.cross_entropy,
    seed: int = 0,
) -> tuple[ProbePoint, ...]:
    """Fit linear heads on growing subsets; evaluate all heads on the same images.

    Args:
        x: (N, width) features of training images.
        y: (N,) class numbers.
        num_classes: Number of classes.
        groups: (N) group of each image; a group is never divided.
        loss: Mean loss of logits and class numbers that is minimized.
        seed: Of the folds and of the order of images.

    Raises:
        DataError: All images are of one group, so no fold can be left out.

    Example:
        >>> x = torch.arange(80.0)[:, None] % 2 + torch.linspace(0, 0.1, 80)[:, None]
        >>> points = probe_learning_curve(x, torch.arange(80) % 2, 2, range(80))
        >>> [point.images for point in points], points[-1].accuracy
        ([16, 32, 64], 1.0)
    """
    fit = partial(
        cross_validate, x, y, num_classes, groups=groups, loss=loss, seed=seed
    )
    every = torch.ones(len(y), dtype=torch.bool)
    full = _point(fit(train_mask=every, penalties=PROBE_PENALTIES), len(y))
    position, groups_of_class = order_in_class(y, groups, seed)
    points = []
    for fraction in FRACTIONS:
        mask = position / groups_of_class <= fraction
        # Counted, not computed: since groups stay whole, a share may be nothing. Nor
        # can a class be learned of which the fold that is left out has the only group.
        few = int(y[mask].bincount(minlength=num_classes).min()) < MIN_IMAGES
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
    """Return the position of each image's group in its class, and the class's groups.

    Their ratio is the smallest fraction that an image belongs to: groups stay whole,
    classes have equal shares, and small fractions lie within larger ones.

    Shapes:
        (N,) → (N,), (N,) float64; positions from 1

    Example:
        >>> position, count = order_in_class(torch.tensor([0, 0, 0, 1]), "aabc", 0)
        >>> position.tolist(), count.tolist()
        ([2.0, 2.0, 1.0, 1.0], [2.0, 2.0, 2.0, 1.0])
    """
    labels: dict[Hashable, int] = {}
    for label, group in zip(y.tolist(), groups, strict=True):
        labels.setdefault(group, label)
    positions: dict[Hashable, tuple[int, int]] = {}
    for label in sorted(set(labels.values())):
        members = [group for group, own in labels.items() if own == label]
        order = permutation(len(members), seed, "probe", label)
        for position, i in enumerate(order.tolist()):
            positions[members[i]] = position + 1, len(members)
    rows = torch.tensor([positions[group] for group in groups], dtype=torch.float64)
    return rows[:, 0], rows[:, 1]
