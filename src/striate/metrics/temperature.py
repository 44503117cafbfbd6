"""Temperature scaling: calibrate probabilities with one parameter (Guo et al. 2017)."""

from __future__ import annotations

import math

import numpy as np

MIN_TEMPERATURE, MAX_TEMPERATURE = (
    0.05,
    20.0,
)  # beyond these, a few images decide
_TINY = 1e-45  # smallest probability in float32; its logarithm must be finite
_STEPS = 80
_NEWTON = 12  # of these are Newton steps; the rest bisect, where Newton is slow


def fit_temperature(probs: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature T that minimizes the cross-entropy of softmax(log p / T).

    The loss is convex in 1/T, so there is one minimum: Newton's method, safeguarded by
    bisection. If every prediction is correct, lower is always better, and the result
    is `MIN_TEMPERATURE`. The most probable class never changes.

    Args:
        probs: (N, classes) predicted probabilities of images not used for training.
        truth: (N,) true class indices.

    Example:
        >>> probs = np.array([[0.99, 0.01]] * 3)  # wrong for one of three
        >>> round(fit_temperature(probs, np.array([0, 0, 1])), 2)
        6.63
    """
    gaps = _logits(probs)
    gaps -= gaps[np.arange(len(truth)), truth][:, None]
    low, high, inverse = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE, 1.0
    for step in range(_STEPS):
        slope, curvature = _derivatives(gaps, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = (
            inverse - slope / curvature
            if curvature > 0 and step < _NEWTON
            else math.inf
        )
        following = newton if low < newton < high else math.sqrt(low * high)
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return float(min(MAX_TEMPERATURE, max(MIN_TEMPERATURE, 1 / inverse)))


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


def _derivatives(gaps: np.ndarray, inverse: float) -> tuple[float, float]:
    """Return first and second derivative of the loss with respect to 1/T.

    The derivatives are mean and variance, under the softmax, of the logits minus the
    true class's logit. The difference avoids cancellation for probabilities near 1.
    """
    probs = _softmax(gaps, inverse)
    means = (probs * gaps).sum(1)
    variances = (probs * (gaps - means[:, None]) ** 2).sum(1)
    return float(means.mean()), float(variances.mean())
