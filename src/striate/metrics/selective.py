"""Which answers are better left to a person?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.metrics.classification import wilson

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Images inside a band, and the right and wrong answers on either side.

    Args:
        unsure: Inside: they go to a person.
        found: Above, and of the class.
        alarms: Above, and not.
        passed: Below, and not of the class.
        missed: Below, and of it: these slip through.
        held: Of those inside, the ones of the class.
    """

    unsure: int
    found: int
    alarms: int
    passed: int
    missed: int
    held: int

    @property
    def count(self) -> int:
        """Return all images."""
        return self.unsure + self.answered

    @property
    def answered(self) -> int:
        """Return the images outside."""
        return self.above + self.below

    @property
    def above(self) -> int:
        """Return the images called by the name."""
        return self.found + self.alarms

    @property
    def below(self) -> int:
        """Return the images said to be none of the class."""
        return self.passed + self.missed

    @property
    def right(self) -> int:
        """Return the right answers outside."""
        return self.found + self.passed

    @property
    def positives(self) -> int:
        """Return the images of the class, wherever."""
        return self.found + self.missed + self.held

    @property
    def sent(self) -> float:
        """Return the share that goes to a person."""
        return self.unsure / max(self.count, 1)

    @property
    def sent_interval(self) -> Interval:
        """Return its Wilson interval at 95 %."""
        return wilson(self.unsure, self.count)

    @property
    def accuracy(self) -> float:
        """Return the share of right answers outside."""
        return self.right / max(self.answered, 1)

    @property
    def accuracy_interval(self) -> Interval:
        """Return its Wilson interval at 95 %."""
        return wilson(self.right, self.answered)


@dataclass(frozen=True, kw_only=True)
class Band:
    """Probabilities nearer to one half than `reach`; of 0.5 it takes in nearly all."""

    reach: float

    @property
    def low(self) -> float:
        """Return its lower end: up to here the answer is no."""
        return 0.5 - self.reach

    @property
    def high(self) -> float:
        """Return its upper end: from here on the answer is yes."""
        return 0.5 + self.reach

    def inside(self, probs: np.ndarray) -> np.ndarray:
        """Tell which probabilities are left to a person, (N,)."""
        unsure: np.ndarray = np.abs(probs - 0.5) < self.reach
        return unsure

    def sort(self, probs: np.ndarray, positive: np.ndarray) -> Sorted:
        """Count what comes of it.

        Example:
            >>> probs, truth = np.array([0.9, 0.4, 0.1]), np.array([1, 1, 0], bool)
            >>> Band(reach=0.3).sort(probs, truth)
            Sorted(unsure=1, found=1, alarms=0, passed=1, missed=0, held=1)
        """
        unsure, yes = self.inside(probs), probs >= 0.5
        return Sorted(
            unsure=int(unsure.sum()),
            found=int((~unsure & yes & positive).sum()),
            alarms=int((~unsure & yes & ~positive).sum()),
            passed=int((~unsure & ~yes & ~positive).sum()),
            missed=int((~unsure & ~yes & positive).sum()),
            held=int((unsure & positive).sum()),
        )


def narrowest(probs: np.ndarray, positive: np.ndarray, right: float) -> Band | None:
    """Return the narrowest band outside which so many answers are right.

    Leaving the least sure answers to a person is the best rule there is where both
    errors cost alike and probabilities are calibrated (Chow 1970). None where not even
    the surest answers are right so often.

    Args:
        probs: (N,) calibrated probabilities of the class.
        positive: (N,) whether the image is of it.
        right: The share of right answers that is asked for.

    Example:
        >>> probs = np.array([0.9, 0.6, 0.45, 0.1])
        >>> narrowest(probs, np.array([1, 0, 0, 0], bool), 1.0)
        Band(reach=0.4)
    """
    reaches, shares = sureness(probs, positive)
    enough = np.flatnonzero(shares >= right - 1e-12)
    return Band(reach=float(reaches[enough[-1]])) if len(enough) else None


def sureness(probs: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return every reach that tells, the widest band first, and accuracy outside it.

    Example:
        >>> probs, truth = np.array([0.875, 0.25]), np.array([1, 1], bool)
        >>> [values.tolist() for values in sureness(probs, truth)]
        [[0.375, 0.25], [1.0, 0.5]]
    """
    reach = np.abs(probs - 0.5)
    order = np.argsort(-reach, kind="stable")
    falling = reach[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    hits = ((probs >= 0.5) == positive)[order].cumsum()[last]
    return falling[last], hits / (last + 1)
