"""Reliability diagram (calibration curve), expected calibration error, Brier score."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from striate.metrics.intervals import wilson_interval

BINS = 10


@dataclass(frozen=True, kw_only=True)
class CalibrationBin:
    """Bin of a calibration curve: mean predicted probability and observed frequency."""

    mean_prob: float  # mean predicted probability of the class
    count: int
    positives: int  # number of images of the class

    @property
    def frequency(self) -> float:
        """Return the observed frequency: the share of the bin's images in the class."""
        return self.positives / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson interval of the observed frequency."""
        return wilson_interval(self.positives, self.count)


def calibration_curve(
    probs: np.ndarray,  # (N,) predicted probabilities of the class
    positive: np.ndarray,  # (N,) bool: whether each image belongs to the class
    bins: int = BINS,
) -> tuple[CalibrationBin, ...]:
    """Return the calibration curve of one class, in bins of about equal count.

    Bins have equal counts rather than equal widths, so that every bin has a useful
    interval. Equal probabilities share a bin, so there may be fewer bins than given.
    Probabilities and outcomes (`positive`) are (N,).

    Example:
        >>> probs, positive = np.array([0.1, 0.1, 0.9, 0.9]), np.eye(4)[3] > 0
        >>> curve = calibration_curve(probs, positive, bins=2)
        >>> [(round(b.mean_prob, 2), b.frequency) for b in curve]
        [(0.1, 0.0), (0.9, 0.5)]
    """
    index = _bin_index(probs, bins)
    count = np.bincount(index, minlength=bins)
    prob_sum = np.bincount(index, probs, minlength=bins)
    positives = np.bincount(index, positive, minlength=bins)
    return tuple(
        CalibrationBin(
            mean_prob=float(prob_sum[i] / count[i]),
            count=int(count[i]),
            positives=int(positives[i]),
        )
        for i in np.flatnonzero(count)
    )


def _bin_index(probs: np.ndarray, bins: int) -> np.ndarray:
    edges = np.percentile(probs, np.linspace(0, 1, bins + 1) * 100)
    index: np.ndarray = np.searchsorted(edges[1:-1], probs)
    return index


def ece(curve: tuple[CalibrationBin, ...]) -> float:
    """Return the expected calibration error (ECE) of one class.

    The ECE is the mean of |observed frequency − mean probability| over the bins,
    weighted by the bin's count.

    Example:
        >>> ece((CalibrationBin(mean_prob=0.5, count=4, positives=3),))
        0.25
    """
    total = sum(b.count for b in curve)
    return sum(b.count * abs(b.frequency - b.mean_prob) for b in curve) / total


def expected_ece(probs: np.ndarray, bins: int = BINS) -> float:
    """Return the ECE that a perfectly calibrated model would show on this sample.

    Even a perfectly calibrated model has an ECE above 0, because outcomes are random.
    In a bin of probabilities p, the number of positives deviates by √(2/π · Σ p(1 − p))
    on average.

    Example:
        >>> round(expected_ece(np.full(400, 0.5), bins=1), 3)
        0.02
    """
    index = _bin_index(probs, bins)
    variances = np.bincount(index, probs * (1 - probs), minlength=bins)
    return float(np.sqrt(2 / math.pi * variances).sum() / len(probs))


def top_label_ece(probs: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Return the ECE of the predicted class, in bins of equal width (Guo et al. 2017).

    `probs` is (N, classes), `correct` is (N,).

    Example:
        >>> top_label_ece(np.array([[0.8, 0.2]] * 5), np.array([1, 1, 1, 1, 0]))
        0.0
    """
    confidence = probs.max(1)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.maximum(np.bincount(index, minlength=bins), 1)
    accuracy = np.bincount(index, correct, minlength=bins) / count
    mean = np.bincount(index, confidence, minlength=bins) / count
    weight = np.bincount(index, minlength=bins) / len(correct)
    return round(float(weight @ np.abs(accuracy - mean)), 12)


def brier_score(probs: np.ndarray, positive: np.ndarray) -> float:
    """Return the Brier score: mean squared error of the probabilities (Brier 1950).

    Example:
        >>> brier_score(np.array([0.5, 1.0]), np.array([True, True]))
        0.125
    """
    return float(np.square(probs - positive).mean())
