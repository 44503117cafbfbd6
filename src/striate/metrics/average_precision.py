"""Average precision of several classes, its mean (mAP), and their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from striate.metrics.intervals import Interval, wilson_interval

MAX_IMAGES = 2000  # more images are not resampled: their interval is narrow
CHANCE_IMAGES = 500  # images that are shuffled: enough to be better than chance
MAX_WORK = 6_000_000  # values that are resampled: about half a second
RESAMPLES, FEW_RESAMPLES, FEW_SHUFFLES = 399, 99, 199


def average_precisions(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the average precision of each class; NaN for classes without images.

    It is the sum of the precision at each threshold, weighted by the increase of the
    recall, as in scikit-learn. `truth` and `scores` are (N, classes).

    Example:
        >>> truth = np.array([[1, 0], [0, 0], [1, 0]])
        >>> average_precisions(truth, np.array([[0.9, 0.1], [0.5, 0.2], [0.3, 0.3]]))
        array([0.83333333,        nan])
    """
    ranking = _Ranking(scores)
    return ranking.average_precisions(ranking.sort(np.asarray(truth, float)))


def mean_average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the mean average precision (mAP) over the classes that have images."""
    values = average_precisions(truth, scores)
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


class _Ranking:
    """Images of each class in the order of their scores, highest first."""

    def __init__(self, scores: np.ndarray) -> None:
        self.order = np.argsort(-scores, axis=0, kind="stable")
        ordered = np.take_along_axis(scores, self.order, 0)
        # Images with equal scores have one threshold: that after the last of them.
        last = np.ones(scores.shape, bool)
        last[:-1] = ordered[1:] != ordered[:-1]
        rows = np.arange(len(scores))[:, None]
        ends = np.where(last, rows, len(scores))
        self.ends = np.minimum.accumulate(ends[::-1], 0)[::-1]

    def sort(self, values: np.ndarray) -> np.ndarray:
        """Return values (N, classes) or (N, 1) of images in the order of each class."""
        wide = np.broadcast_to(values, self.order.shape)
        return np.take_along_axis(wide, self.order, 0)

    def average_precisions(
        self, truth: np.ndarray, weights: np.ndarray | float = 1.0
    ) -> np.ndarray:
        """Return the average precision of each class, from sorted arrays."""
        positive = truth * weights
        total = np.cumsum(np.broadcast_to(weights, truth.shape), 0)
        precision = np.cumsum(positive, 0) / np.maximum(total, 1e-12)
        at_end = np.take_along_axis(precision, self.ends, 0)
        count = positive.sum(0)
        sums = (positive * at_end).sum(0)
        values = np.full(len(count), np.nan)
        np.divide(sums, count, out=values, where=count > 0)
        return values


def _resampled(
    truth: np.ndarray, scores: np.ndarray, images: int, least: int
) -> tuple[np.ndarray, np.ndarray, int, np.random.Generator]:
    """Return at most `images` images, number of resamples, and random numbers."""
    draw = np.random.default_rng(0)
    rows = np.sort(draw.permutation(len(truth))[:images])
    truth, scores = np.asarray(truth, float)[rows], scores[rows]
    resamples = min(RESAMPLES, max(least, MAX_WORK // max(1, truth.size)))
    return truth, scores, resamples, draw


def map_interval(truth: np.ndarray, scores: np.ndarray) -> Interval:
    """Return the 95 % interval of the mAP: bootstrap over images (percentiles).

    It is never narrower than the Wilson interval of a share of as many labels, because
    no resample of a perfect ranking has an error.
    """
    value = mean_average_precision(truth, scores)
    if math.isnan(value):
        return 0.0, 1.0
    labels = int((np.asarray(truth) > 0).sum())
    widest = wilson_interval(value * labels, labels)
    shrink = math.sqrt(min(1.0, MAX_IMAGES / len(truth)))
    truth, scores, resamples, draw = _resampled(
        truth, scores, MAX_IMAGES, FEW_RESAMPLES
    )
    ranking = _Ranking(scores)
    ordered, count = ranking.sort(truth), len(truth)
    means = []
    for _ in range(resamples):
        weights = np.bincount(draw.integers(0, count, count), minlength=count)
        values = ranking.average_precisions(ordered, ranking.sort(weights[:, None]))
        if np.isfinite(values).any():
            means.append(np.nanmean(values))
    low, high = np.quantile(means, (0.025, 0.975))
    # Of more images than were resampled, the interval is narrower.
    center = float(np.mean(means)) if shrink < 1 else value
    bounds = (value + (float(bound) - center) * shrink for bound in (low, high))
    low, high = (min(1.0, max(0.0, bound)) for bound in bounds)
    return min(low, widest[0]), max(high, widest[1])


def map_by_chance(truth: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Return the mean mAP of shuffled images, and the p-value of the mAP.

    The p-value is the share of shuffles with at least this mAP (permutation test).
    """
    truth, scores, resamples, draw = _resampled(
        truth, scores, CHANCE_IMAGES, FEW_SHUFFLES
    )
    ranking = _Ranking(scores)

    def shuffled() -> Iterator[float]:
        for _ in range(resamples):
            mixed = truth[draw.permutation(len(truth))]
            yield float(np.nanmean(ranking.average_precisions(ranking.sort(mixed))))

    value = mean_average_precision(truth, scores)
    if math.isnan(value):
        return math.nan, 1.0
    values = np.array(list(shuffled()))
    above = int((values >= value - 1e-12).sum())
    return float(values.mean()), (above + 1) / (resamples + 1)
