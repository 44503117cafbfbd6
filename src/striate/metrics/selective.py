"""Selective prediction: an abstain band of probabilities, reviewed by a person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.metrics.intervals import wilson_interval

Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class SelectiveCounts:
    """Images inside the abstain band, and confusion counts outside it.

    Args:
        abstained: Images inside the band: they need a review.
        tp: True positives outside the band.
        fp: False positives outside the band.
        tn: True negatives outside the band.
        fn: False negatives outside the band: missed without a review.
        abstained_positives: Images of the class inside the band.
    """

    abstained: int
    tp: int
    fp: int
    tn: int
    fn: int
    abstained_positives: int

    @property
    def count(self) -> int:
        """Return the number of images."""
        return self.abstained + self.answered

    @property
    def answered(self) -> int:
        """Return the number of images outside the band."""
        return self.predicted_positives + self.predicted_negatives

    @property
    def predicted_positives(self) -> int:
        """Return the number of images above the band, predicted as the class."""
        return self.tp + self.fp

    @property
    def predicted_negatives(self) -> int:
        """Return the number of images below the band, predicted as another class."""
        return self.tn + self.fn

    @property
    def correct(self) -> int:
        """Return the number of correct predictions outside the band."""
        return self.tp + self.tn

    @property
    def positives(self) -> int:
        """Return the number of images of the class, inside and outside the band."""
        return self.tp + self.fn + self.abstained_positives

    @property
    def abstention_rate(self) -> float:
        """Return the share of images inside the band."""
        return self.abstained / max(self.count, 1)

    @property
    def abstention_rate_interval(self) -> Interval:
        """Return Wilson's 95 % interval of the abstention rate."""
        return wilson_interval(self.abstained, self.count)

    @property
    def accuracy(self) -> float:
        """Return the selective accuracy: that of predictions outside the band."""
        return self.correct / max(self.answered, 1)

    @property
    def accuracy_interval(self) -> Interval:
        """Return Wilson's 95 % interval of the selective accuracy."""
        return wilson_interval(self.correct, self.answered)


@dataclass(frozen=True, kw_only=True)
class AbstainBand:
    """Probabilities nearer to 0.5 than `half_width`, for which a model abstains."""

    half_width: float

    @property
    def low(self) -> float:
        """Return the lower end; up to it the prediction is negative."""
        return 0.5 - self.half_width

    @property
    def high(self) -> float:
        """Return the upper end; from it on the prediction is positive."""
        return 0.5 + self.half_width

    def abstains(self, probs: np.ndarray) -> np.ndarray:
        """Return which probabilities are inside the band, (N,)."""
        inside: np.ndarray = np.abs(probs - 0.5) < self.half_width
        return inside

    def counts(self, probs: np.ndarray, positive: np.ndarray) -> SelectiveCounts:
        """Count the images inside and outside the band.

        Example:
            >>> probs, truth = np.array([0.9, 0.4, 0.1]), np.array([1, 1, 0], bool)
            >>> counts = AbstainBand(half_width=0.3).counts(probs, truth)
            >>> counts.abstained, counts.abstained_positives, counts.tp, counts.tn
            (1, 1, 1, 1)
        """
        inside, predicted = self.abstains(probs), probs >= 0.5
        return SelectiveCounts(
            abstained=int(inside.sum()),
            tp=int((~inside & predicted & positive).sum()),
            fp=int((~inside & predicted & ~positive).sum()),
            tn=int((~inside & ~predicted & ~positive).sum()),
            fn=int((~inside & ~predicted & positive).sum()),
            abstained_positives=int((inside & positive).sum()),
        )


def narrowest_abstain_band(
    probs: np.ndarray, positive: np.ndarray, accuracy: float
) -> AbstainBand | None:
    """Return the narrowest abstain band with this accuracy outside it.

    Abstaining on the least confident predictions is the best rule if both errors cost
    the same and probabilities are calibrated (Chow 1970). None if no band reaches the
    accuracy.

    Args:
        probs: (N,) calibrated probabilities of the class.
        positive: (N,) whether the image is of the class.
        accuracy: Selective accuracy to reach.

    Example:
        >>> probs = np.array([0.9, 0.6, 0.45, 0.1])
        >>> narrowest_abstain_band(probs, np.array([1, 0, 0, 0], bool), 1.0)
        AbstainBand(half_width=0.4)
    """
    half_widths, accuracies = selective_accuracy_curve(probs, positive)
    enough = np.flatnonzero(accuracies >= accuracy - 1e-12)
    if not len(enough):
        return None
    return AbstainBand(half_width=float(half_widths[enough[-1]]))


def selective_accuracy_curve(
    probs: np.ndarray, positive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return half-widths of the abstain band, widest first, and accuracy outside it.

    Example:
        >>> probs, truth = np.array([0.875, 0.25]), np.array([1, 1], bool)
        >>> [values.tolist() for values in selective_accuracy_curve(probs, truth)]
        [[0.375, 0.25], [1.0, 0.5]]
    """
    distance = np.abs(probs - 0.5)
    order = np.argsort(-distance, kind="stable")
    falling = distance[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True))
    hits = ((probs >= 0.5) == positive)[order].cumsum()[last]
    return falling[last], hits / (last + 1)
