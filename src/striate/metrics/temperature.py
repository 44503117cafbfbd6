"""One number that makes a network as sure as it is right (Guo et al. 2017)."""

from __future__ import annotations

import math

import numpy as np

COLDEST, HOTTEST = 0.05, 20.0  # beyond these a few images, not sureness, decide
_LEAST = 1e-45  # what a 32-bit probability may lose; its logarithm must be finite
_STEPS = 80
_NEWTON = 12  # of these; where all is certain they creep, and halving goes on


def fit_temperature(probs: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature T of least cross-entropy, of softmax(log p / T).

    The cost is convex in 1/T, so there is one: Newton's steps, kept within brackets
    that halve. Where no answer is wrong colder is always better, and `COLDEST` comes
    back. No answer changes: the most probable class stays so.

    Args:
        probs: (N, classes), of images that were not learned from.
        truth: (N,) class numbers.

    Example:
        >>> probs = np.array([[0.99, 0.01]] * 3)  # wrong once in three
        >>> round(fit_temperature(probs, np.array([0, 0, 1])), 2)
        6.63
    """
    gaps = _logits(probs)
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


def tempered(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return softmax(log p / T), (N, classes): less sure where T is above 1.

    Example:
        >>> tempered(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    return _softmax(_logits(probs), 1 / temperature)


def costs(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return each image's cross-entropy in nats, (N,).

    Example:
        >>> costs(np.array([[0.5, 0.5]]), np.array([1])).round(4).tolist()
        [0.6931]
    """
    told = probs[np.arange(len(truth)), truth]
    spent: np.ndarray = -np.log(np.maximum(told, _LEAST))
    return spent


def _logits(probs: np.ndarray) -> np.ndarray:
    logits: np.ndarray = np.log(np.maximum(probs.astype(float), _LEAST))
    return logits


def _softmax(logits: np.ndarray, inverse: float) -> np.ndarray:
    warm = logits * inverse
    probs = np.exp(warm - warm.max(1, keepdims=True))
    whole: np.ndarray = probs / probs.sum(1, keepdims=True)
    return whole


def _slopes(gaps: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return slope and bend of the cost over 1/T.

    They are mean and variance, under the softmax, of the logits less the truth's own:
    of a truth that is all but certain nothing cancels.
    """
    probs = _softmax(gaps, inverse)
    means = (probs * gaps).sum(1)
    spreads = (probs * (gaps - means[:, None]) ** 2).sum(1)
    return float(means.mean()), float(spreads.mean())
