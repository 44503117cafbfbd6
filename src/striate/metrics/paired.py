"""Two networks on the same images: what changed, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from striate.metrics.classification import Z95
from striate.metrics.significance import mcnemar, paired_t

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How two networks fare on the same images, told by four counts.

    Args:
        both: Images that both get right.
        gained: That only the second gets right.
        lost: That only the first gets right.
        neither: That neither gets right.

    Example:
        >>> found = Paired(both=90, gained=7, lost=1, neither=2)
        >>> found.count, found.difference, round(found.p, 4)
        (100, 0.06, 0.0703)
    """

    both: int
    gained: int
    lost: int
    neither: int

    @classmethod
    def of(cls, first: np.ndarray, second: np.ndarray) -> Paired:
        """Count from two (N,) arrays that say which answers are right."""
        return cls(
            both=int((first & second).sum()),
            gained=int((~first & second).sum()),
            lost=int((first & ~second).sum()),
            neither=int((~first & ~second).sum()),
        )

    def __add__(self, other: Paired) -> Paired:
        return Paired(
            both=self.both + other.both,
            gained=self.gained + other.gained,
            lost=self.lost + other.lost,
            neither=self.neither + other.neither,
        )

    @property
    def count(self) -> int:
        """Return how many images there are."""
        return self.both + self.gained + self.lost + self.neither

    @property
    def accuracies(self) -> tuple[float, float]:
        """Return the share of right answers of the first and of the second."""
        right = self.both + self.lost, self.both + self.gained
        return right[0] / self.count, right[1] / self.count

    @property
    def difference(self) -> float:
        """Return the second's accuracy minus the first's."""
        return (self.gained - self.lost) / self.count

    @property
    def interval(self) -> Interval:
        """Return Tango's 95 % interval of the difference."""
        return tango(self.gained, self.lost, self.count)

    @property
    def p(self) -> float:
        """Return the exact p-value of McNemar's test."""
        return mcnemar(self.gained, self.lost)


def tango(gained: float, lost: float, count: float, z: float = Z95) -> Interval:
    """Return Tango's score interval of a paired difference of shares (Tango 1998).

    It holds those differences δ that a score test would not reject:
    |gained − lost − nδ| ≤ z·√(n(2q + δ(1 − δ))), q being the likeliest share of lost
    images were the true difference δ. Unlike the textbook's d ± z·s it stays within
    −1 and 1, has width where no image flipped, and holds its promise for few.

    Example:
        >>> low, high = tango(1, 7, 21)
        >>> round(low, 3), round(high, 3)
        (-0.517, -0.026)
    """
    if count == 0:
        return -1.0, 1.0
    middle = (gained - lost) / count

    def beyond(delta: float) -> bool:
        return abs(_score(gained, lost, count, delta)) > z

    return _edge(middle, -1.0, beyond), _edge(middle, 1.0, beyond)


def _score(gained: float, lost: float, count: float, delta: float) -> float:
    """Return Tango's score statistic, formula 9 with q in closed form."""
    b = (2 * count - gained + lost) * delta - gained - lost
    c = -lost * delta * (1 - delta)
    q = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
    spread = count * (2 * q + delta * (1 - delta))
    far = gained - lost - count * delta
    if spread <= 0:  # the likeliest table leaves no room for chance
        return 0.0 if abs(far) < 1e-9 * count else math.copysign(math.inf, far)
    return far / math.sqrt(spread)


def _edge(inside: float, outside: float, beyond: Callable[[float], bool]) -> float:
    """Return where the values begin that lie beyond, by halving."""
    if not beyond(outside):
        return outside
    for _ in range(60):
        middle = (inside + outside) / 2
        if beyond(middle):
            outside = middle
        else:
            inside = middle
    return inside


def mean_difference(values: np.ndarray) -> tuple[float, Interval | None]:
    """Return the mean of (N,) paired differences and Student's 95 % interval of it."""
    if len(values) < 2:
        return float(values.mean()), None
    effect = paired_t(values.tolist())
    return effect.difference, effect.interval


def balanced_difference(classes: Sequence[Paired]) -> tuple[float, Interval]:
    """Return the difference in balanced accuracy, with a 95 % interval.

    Balanced accuracy weighs an image of a rare class more than one of a frequent
    class. It varies like an accuracy over fewer images: their effective number takes
    the place of the count in Tango's interval, as Korn and Graubard (1998) do for
    weighted samples. For classes of one size that is nearly the interval of accuracy.

    Args:
        classes: The counts of each class that occurs.

    Example:
        >>> one = Paired(both=40, gained=6, lost=1, neither=3)
        >>> difference, (low, high) = balanced_difference([one, one])
        >>> round(difference, 3), round(low, 3), round(high, 3)
        (0.1, 0.031, 0.182)
    """
    size = len(classes)
    gained = sum(c.gained / c.count for c in classes) / size
    lost = sum(c.lost / c.count for c in classes) / size
    count = _effective_count(classes, gained, lost)
    return gained - lost, tango(gained * count, lost * count, count)


def _effective_count(classes: Sequence[Paired], gained: float, lost: float) -> float:
    """Return how many equally weighed images would vary as much as these.

    Were flips equally frequent in all classes it would be K²/Σ(1/n). Where the rare
    classes flip more, the variance seen says how much less it is.
    """
    count = len(classes) ** 2 / sum(1 / c.count for c in classes)
    flips = ((c.gained + c.lost) / c.count - c.difference**2 for c in classes)
    varied = sum(f / c.count for f, c in zip(flips, classes, strict=True))
    if varied <= 0:
        return count
    spread = gained + lost - (gained - lost) ** 2
    return min(count, spread * len(classes) ** 2 / varied)
