"""Temperature scaling: calibrate probabilities with one parameter (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0  # beyond these, a few images decide
_TINY = 1e-45  # smallest probability in float32; its logarithm must be finite


def fit_temperature(probs: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature T that minimizes the cross-entropy of softmax(log p / T).

    The loss is convex in 1/T, so its derivative has one root. If every prediction is
    correct, lower is always better, and the result is `MIN_TEMPERATURE`. The most
    probable class never changes. The images must not have been used for training.

    Example:
        >>> probs = np.array([[0.99, 0.01]] * 3)  # wrong for one of three
        >>> round(fit_temperature(probs, np.array([0, 0, 1])), 2)
        6.63
    """
    from scipy.optimize import brentq  # slow to import, and few commands need it

    gaps = _logits(probs)
    gaps -= gaps[np.arange(len(truth)), truth][:, None]

    def slope(inverse: float) -> float:
        """Return the derivative of the loss with respect to 1/T: mean logit gap."""
        return float((_softmax(gaps, inverse) * gaps).sum(1).mean())

    if slope(1 / MIN_TEMPERATURE) <= 0:
        return MIN_TEMPERATURE
    if slope(1 / MAX_TEMPERATURE) >= 0:
        return MAX_TEMPERATURE
    return 1 / float(brentq(slope, 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE))


def apply_temperature(probs: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities softmax(log p / T), (N, classes), for a temperature T.

    Example:
        >>> apply_temperature(np.array([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    return _softmax(_logits(probs), 1 / temperature)


def log_losses(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each image in nats, (N,).

    Example:
        >>> log_losses(np.array([[0.5, 0.5]]), np.array([1])).round(4).tolist()
        [0.6931]
    """
    true_probs = probs[np.arange(len(truth)), truth]
    losses: np.ndarray = -np.log(np.maximum(true_probs, _TINY))
    return losses


def _logits(probs: np.ndarray) -> np.ndarray:
    logits: np.ndarray = np.log(np.maximum(probs.astype(float), _TINY))
    return logits


def _softmax(logits: np.ndarray, inverse: float) -> np.ndarray:
    scaled = logits * inverse
    exps = np.exp(scaled - scaled.max(1, keepdims=True))
    probs: np.ndarray = exps / exps.sum(1, keepdims=True)
    return probs
