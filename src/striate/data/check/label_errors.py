"""Which labels to doubt, from what networks that never saw an image say of it.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident learning: Estimating
uncertainty in dataset labels", JAIR 70, sections 3 and 4): a network is sure of a class
where it gives it at least the probability that it gives on average to images labeled
so. How often it is sure of another class than the label's, scaled to the size of each
class, estimates how many labels are wrong, and from which class to which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

NONE = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """One cell of the joint distribution beside its diagonal.

    Args:
        given: Number of the class that images are labeled as.
        other: Number of the class that they look like.
        doubted: Images labeled so that are believed to be of the other class.
        estimate: Images of which this is estimated to hold.
    """

    given: int
    other: int
    doubted: int
    estimate: float


@dataclass(frozen=True, kw_only=True)
class Confident:
    """Labels beside probabilities from networks that did not learn these images.

    Args:
        probs: (N, C) probabilities; rows of zeros where nothing was said.
        given: (N,) class numbers, the labels.
        judged: (N,) whether a network that knows the class said something.

    Example:
        >>> of_first = np.array([0.9, 0.8, 0.1, 0.2, 0.1])
        >>> probs = np.stack([of_first, 1 - of_first], 1)
        >>> found = Confident(probs=probs, given=np.array([0, 0, 1, 1, 0]))
        >>> found.order[:1].tolist(), found.wrong.tolist(), round(found.estimate, 1)
        ([4], [4], 1.0)
    """

    probs: np.ndarray = field(repr=False)
    given: np.ndarray = field(repr=False)
    judged: np.ndarray = field(default_factory=lambda: np.array(True), repr=False)

    def __post_init__(self) -> None:
        everyone = np.broadcast_to(self.judged, self.given.shape)
        object.__setattr__(self, "judged", everyone)

    @property
    def classes(self) -> int:
        """Return how many classes there are."""
        return int(self.probs.shape[1])

    @cached_property
    def own(self) -> np.ndarray:
        """Return the (N,) probability of each image's own label."""
        mine: np.ndarray = self.probs[np.arange(len(self.given)), self.given]
        return mine

    @cached_property
    def thresholds(self) -> np.ndarray:
        """Return for each class, (C,), from what probability on it is sure.

        The mean probability of the class among images labeled so (equation 2 of
        the paper); infinite for a class without judged images.
        """
        labels = self.given[self.judged]
        totals = np.bincount(labels, self.own[self.judged], self.classes)
        counts = np.bincount(labels, minlength=self.classes)
        means = np.full(self.classes, np.inf)
        np.divide(totals, counts, out=means, where=counts > 0)
        return means

    @cached_property
    def sure(self) -> np.ndarray:
        """Return the (N,) class that is sure of each image, or `NONE`.

        Where several are, the most probable (equation 1).
        """
        reached = np.where(self.probs >= self.thresholds, self.probs, NONE)
        best: np.ndarray = reached.argmax(1)
        best[~self.judged | (reached.max(1) < 0)] = NONE
        return best

    @cached_property
    def other(self) -> np.ndarray:
        """Return the (N,) class each image looks like, its own label aside.

        The one that is sure of it, else the most probable one.
        """
        rivals = self.probs.astype(np.float64)
        rivals[np.arange(len(self.given)), self.given] = -np.inf
        best = rivals.argmax(1)
        return np.where(self._torn, self.sure, best)

    @cached_property
    def support(self) -> np.ndarray:
        """Return how far each label is borne out, (N,): 0 not at all, 1 as usual.

        Its probability over what images labeled so are given on average, so that a
        class which networks find hard is not doubted as a whole. The paper's normalized
        margin puts images of two alike classes before planted errors
        (docs/notebook/data-check.md).
        """
        bars = self.thresholds[self.given]
        shares = np.zeros(len(bars))
        np.divide(self.own, bars, out=shares, where=(bars > 0) & np.isfinite(bars))
        return shares

    @property
    def _torn(self) -> np.ndarray:
        return np.asarray((self.sure != NONE) & (self.sure != self.given))

    @cached_property
    def order(self) -> np.ndarray:
        """Return all positions, the most doubted first and the unjudged last."""
        support = np.where(self.judged, self.support, np.inf)
        places: np.ndarray = np.argsort(support, kind="stable")
        return places

    @cached_property
    def wrong(self) -> np.ndarray:
        """Return the positions of labels believed wrong, the most doubted first.

        Those off the diagonal of the confident joint: another class is sure of them.
        Where their own class is the more probable even so, they count in the joint
        only; nobody would see what there is to doubt.
        """
        theirs = self.probs[np.arange(len(self.given)), self.other]
        doubted = self._torn & (theirs > self.own)
        places: np.ndarray = self.order[doubted[self.order]]
        return places

    @cached_property
    def confusions(self) -> tuple[Confusion, ...]:
        """Return the joint distribution beside its diagonal, the largest first.

        Sure images of each label stand for all of that label (equation 3). A label
        of which no image is sure is taken to be right.
        """
        clear = self.sure != NONE
        pairs = self.given[clear] * self.classes + self.sure[clear]
        cells, counts = np.unique(pairs, return_counts=True)
        rows, columns = np.divmod(cells, self.classes)
        sizes = np.bincount(self.given[self.judged], minlength=self.classes)
        clears = np.bincount(rows, counts, self.classes)
        doubted = self.given[self.wrong] * self.classes + self.sure[self.wrong]
        listed = dict(zip(*np.unique(doubted, return_counts=True), strict=True))
        found = [
            Confusion(
                given=int(i),
                other=int(j),
                doubted=int(listed.get(cell, 0)),
                estimate=float(n / clears[i] * sizes[i]),
            )
            for cell, i, j, n in zip(cells, rows, columns, counts, strict=True)
            if i != j
        ]
        found.sort(key=lambda cell: (-cell.estimate, cell.given, cell.other))
        return tuple(found)

    @property
    def estimate(self) -> float:
        """Return how many labels are estimated to be wrong."""
        return sum(cell.estimate for cell in self.confusions)

    @property
    def agreement(self) -> float:
        """Return the share of judged images whose most probable class is theirs."""
        right = self.probs.argmax(1) == self.given
        return float(right[self.judged].mean()) if self.judged.any() else 0.0
