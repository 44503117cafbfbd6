"""How good is what stands at a cut? A linear head on it, cross-validated."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from striate.core.seeds import permutation
from striate.finetune.logistic import FOLDS, PENALTIES, Cost, Tried, cross_validated

FRACTIONS = (0.25, 0.5)  # of the training images; a learning curve ends with all
PROBED = PENALTIES[::2]  # whole decades tell cuts apart
FEWEST = 2 * FOLDS  # images a class, or folds lack classes


@dataclass(frozen=True, kw_only=True)
class ProbePoint:
    """What a linear head came to that learned from so many images.

    Args:
        images: Learned from in each fold, on average.
        accuracy: Over all images, each judged by the fold that left it out.
        cost: Cross-entropy likewise, in nats.
        penalty: That was best for all images, over the share that is learned from.
    """

    images: int
    accuracy: float
    cost: float
    penalty: float


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The learning curve of a linear head at a cut.

    Args:
        cut: The layer.
        width: Numbers of an image there.
        count: Images judged.
        points: With growing numbers of images to learn from.
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
        """Return the standard error of that; never 0, however right it is."""
        share = (self.accuracy * self.count + 2) / (self.count + 4)
        return float((share * (1 - share) / self.count) ** 0.5)


def curve(
    x: Tensor,
    y: Tensor,
    classes: int,
    groups: Sequence[Hashable],
    cost: Cost = F.cross_entropy,
    seed: int = 0,
) -> tuple[ProbePoint, ...]:
    """Fit a linear head from ever more images; all are judged by the same ones.

    Args:
        x: (N, width) features of training images.
        y: (N,) class numbers.
        classes: How many there are.
        groups: (N) what must not be parted.
        cost: Mean cost of logits and class numbers, to learn by.
        seed: Of the folds and of who comes first.

    Raises:
        DataError: All rows are of one group, so no fold can be left out.

    Example:
        >>> x = torch.arange(80.0)[:, None] % 2 + torch.linspace(0, 0.1, 80)[:, None]
        >>> points = curve(x, torch.arange(80) % 2, 2, range(80))
        >>> [point.images for point in points], points[-1].accuracy
        ([16, 32, 64], 1.0)
    """
    judge = partial(cross_validated, x, y, classes, groups=groups, cost=cost, seed=seed)
    every = torch.ones(len(y), dtype=torch.bool)
    whole = _point(judge(learned=every, penalties=PROBED), len(y))
    turn, groups_of_class = turns(y, groups, seed)
    points = []
    for fraction in FRACTIONS:
        learned = turn / groups_of_class <= fraction
        # Counted, not reckoned: of groups that come whole, a share may be nothing. Nor
        # is a class known of which the fold that is left out has the only group.
        few = int(y[learned].bincount(minlength=classes).min()) < FEWEST
        if few or int((fraction * groups_of_class).min()) < 2:
            continue
        count = int(learned.sum())
        # The same belief about weights weighs more beside the mean cost of fewer.
        penalty = whole.penalty * len(y) / count
        points.append(_point(judge(learned=learned, penalties=(penalty,)), count))
    return (*points, whole)


def _point(tried: Sequence[Tried], count: int) -> ProbePoint:
    best = min(tried, key=lambda one: one.cost)
    return ProbePoint(
        images=round(count * (1 - 1 / FOLDS)),
        accuracy=best.accuracy,
        cost=best.cost,
        penalty=best.penalty,
    )


def turns(y: Tensor, groups: Sequence[Hashable], seed: int) -> tuple[Tensor, Tensor]:
    """Return when the turn of each image's group comes in its class, and of how many.

    Their ratio is the smallest fraction that an image belongs to: groups come whole,
    classes alike, and small fractions lie within larger ones.

    Shapes:
        (N,) → (N,), (N,) float64; turns from 1

    Example:
        >>> turn, count = turns(torch.tensor([0, 0, 0, 1]), "aabc", 0)
        >>> turn.tolist(), count.tolist()
        ([2.0, 2.0, 1.0, 1.0], [2.0, 2.0, 2.0, 1.0])
    """
    first: dict[Hashable, int] = {}
    for label, group in zip(y.tolist(), groups, strict=True):
        first.setdefault(group, label)
    found: dict[Hashable, tuple[int, int]] = {}
    for label in sorted(set(first.values())):
        mine = [group for group, own in first.items() if own == label]
        order = permutation(len(mine), seed, "probe", label)
        for place, i in enumerate(order.tolist()):
            found[mine[i]] = place + 1, len(mine)
    each = torch.tensor([found[group] for group in groups], dtype=torch.float64)
    return each[:, 0], each[:, 1]
