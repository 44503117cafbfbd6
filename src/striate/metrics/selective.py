"""Selective prediction: the model abstains in a band of probabilities around 0.5."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from striate.metrics.intervals import Interval, wilson_interval


@dataclass(frozen=True, kw_only=True)
class SelectiveCounts:
    """Counts of images inside the abstain band, and confusion counts outside."""

    abstained: int  # number of images inside the band, which need manual review
    tp: int  # true positives outside the band
    fp: int  # false positives outside the band
    tn: int  # true negatives outside the band
    fn: int  # false negatives outside the band, which are missed without a review
    abstained_positives: int  # number of images of the class inside the band

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
        """Return the number of images below the band, predicted as negative."""
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
        """Return the abstention rate: the share of images inside the band."""
        return self.abstained / max(self.count, 1)

    @property
    def abstention_rate_interval(self) -> Interval:
        """Return the 95 % Wilson interval of the abstention rate."""
        return wilson_interval(self.abstained, self.count)

    @property
    def accuracy(self) -> float:
        """Return the selective accuracy: accuracy of predictions outside the band."""
        return self.correct / max(self.answered, 1)

    @property
    def accuracy_interval(self) -> Interval:
        """Return the 95 % Wilson interval of the selective accuracy."""
        return wilson_interval(self.correct, self.answered)


@dataclass(frozen=True, kw_only=True)
class AbstainBand:
    """Band of probabilities, 0.5 ± `half_width`, in which a model abstains."""

    half_width: float

    @property
    def low(self) -> float:
        """Return the lower end of the band; predictions below the band are negative."""
        return 0.5 - self.half_width

    @property
    def high(self) -> float:
        """Return the upper end of the band; predictions above the band are positive."""
        return 0.5 + self.half_width

    def abstains(self, probs: np.ndarray) -> np.ndarray:
        """Return whether each probability is inside the band, (N,) bool."""
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
    probs: np.ndarray,  # (N,) calibrated probabilities of the class
    positive: np.ndarray,  # (N,) bool: whether each image belongs to the class
    accuracy: float,  # minimum accuracy of the predictions outside the band
) -> AbstainBand | None:
    """Return the narrowest abstain band that reaches the given selective accuracy.

    Abstaining on the least confident predictions is the best rule if both errors cost
    the same and probabilities are calibrated (Chow 1970). Return None if no band
    reaches the accuracy.

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
    """Return half-widths of the abstain band, widest first, and selective accuracies.

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
