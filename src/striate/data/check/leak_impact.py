"""What leaked images could be worth in accuracy: a bound, and an estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """The accuracy that a part's copies in another part can add.

    Whoever memorized the copies answers all `agreeing` of the `images` right, and all
    `differing` wrong. Without memory it would answer a share of them right anyway.

    Args:
        images: Images in the judged split.
        agreeing: Those with a copy of the same label.
        differing: Those with copies under other labels only.
        anyway: Leaked images that a nearest-neighbor classifier gets right from
            other images, its copies hidden.
    """

    images: int
    agreeing: int
    differing: int
    anyway: int

    @property
    def bound(self) -> float:
        """The most it can add: every agreeing one was otherwise wrong.

        Example:
            >>> Worth(images=1000, agreeing=12, differing=0, anyway=9).bound
            0.012
        """
        return self.agreeing / self.images

    @property
    def estimate(self) -> float:
        """What it adds to a classifier that goes by the nearest image.

        Example:
            >>> Worth(images=1000, agreeing=12, differing=0, anyway=9).estimate
            0.003
        """
        return (self.agreeing - self.anyway) / self.images


def worth(
    points: np.ndarray,
    labels: Sequence[str],
    judged: Sequence[int],
    known: Sequence[int],
    copies: Mapping[int, Sequence[int]],
) -> Worth:
    """Weigh the copies that judged images have among known ones.

    Args:
        points: A point for each image, (N, d): close ones look alike.
        labels: Class of each image.
        judged: Positions in the part that is judged.
        known: Positions in the part that was learned.
        copies: For each leaked judged position, its copies among the known.
    """
    answered = _answers_without(points, labels, known, copies)
    agreeing = {
        i for i, twins in copies.items() if any(labels[t] == labels[i] for t in twins)
    }
    return Worth(
        images=len(judged),
        agreeing=len(agreeing),
        differing=len(copies) - len(agreeing),
        anyway=sum(labels[i] == answer for i, answer in answered.items()),
    )


def _answers_without(
    points: np.ndarray,
    labels: Sequence[str],
    known: Sequence[int],
    copies: Mapping[int, Sequence[int]],
) -> dict[int, str]:
    """Return each leaked image's nearest known label, its copies hidden."""
    learned = np.asarray(known)
    theirs = points[learned]
    place = {position: k for k, position in enumerate(known)}
    answers: dict[int, str] = {}
    for i, twins in copies.items():
        distance = ((theirs - points[i]) ** 2).sum(1)
        distance[[place[t] for t in twins]] = np.inf
        nearest = int(distance.argmin())
        if np.isfinite(distance[nearest]):
            answers[i] = labels[known[nearest]]
    return answers
