"""One number that makes a network as sure as it is right (Guo et al. 2017)."""

from __future__ import annotations

import math

import numpy as np

COLDEST, HOTTEST = 0.05, 20.0  # beyond these a few pictures, not sureness, decide
_LEAST = 1e-45  # what a 32-bit probability may lose; its logarithm must be finite
_STEPS = 80
_NEWTON = 12  # of these; where all is certain they creep, and halving goes on


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature T of least cross-entropy, of softmax(log p / T).

    The cost is convex in 1/T, so there is one: Newton's steps, kept within brackets
    that halve. Where no answer is wrong colder is always better, and `COLDEST` comes
    back. No answer changes: the most probable class stays so.

    Args:
        probabilities: (N, classes), of pictures that were not learnt from.
        truth: (N,) class numbers.

    Example:
        >>> odds = np.array([[0.99, 0.01]] * 3)  # sure, and wrong once in three
        >>> round(fit_temperature(odds, np.array([0, 0, 1])), 2)
        6.63
    """
    gaps = _logits(probabilities)
    gaps -= gaps[np.arange(len(truth)), truth][:, None]
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0
    for turn in range(_STEPS):
        slope, bend = _slopes(gaps, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / bend if bend > 0 and turn < _NEWTON else math.inf
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return float(min(HOTTEST, max(COLDEST, 1 / inverse)))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(log p / T), (N, classes): less sure where T is above 1.

    Example:
        >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    return _softmax(_logits(probabilities), 1 / temperature)


def costs(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return each picture's cross-entropy in nats, (N,).

    Example:
        >>> costs(np.array([[0.5, 0.5]]), np.array([1])).round(4).tolist()
        [0.6931]
    """
    told = probabilities[np.arange(len(truth)), truth]
    spent: np.ndarray = -np.log(np.maximum(told, _LEAST))
    return spent


def _logits(probabilities: np.ndarray) -> np.ndarray:
    logits: np.ndarray = np.log(np.maximum(probabilities.astype(float), _LEAST))
    return logits


def _softmax(logits: np.ndarray, inverse: float) -> np.ndarray:
    warm = logits * inverse
    odds = np.exp(warm - warm.max(1, keepdims=True))
    whole: np.ndarray = odds / odds.sum(1, keepdims=True)
    return whole


def _slopes(gaps: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return slope and bend of the cost over 1/T.

    They are mean and variance, under the softmax, of the logits less the truth's own:
    of a truth that is all but certain nothing cancels.
    """
    odds = _softmax(gaps, inverse)
    means = (odds * gaps).sum(1)
    spreads = (odds * (gaps - means[:, None]) ** 2).sum(1)
    return float(means.mean()), float(spreads.mean())
