"""Temperature scaling: calibrate probabilities with one parameter (Guo et al. 2017)."""

from __future__ import annotations

import math

import numpy as np

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0  # beyond these, a few images decide
# Standard deviation of log T in the prior of `fit_temperature_map`, chosen by
# simulation (docs/notebook/statistics.md).
PRIOR_SD = 0.7
# The same for a logistic head, whose log loss was already cross-validated.
LOGISTIC_PRIOR_SD = 0.2
FOLDS = 5  # of `cross_validated_log_losses`
_GRID = 13  # temperatures tried before the search, as a second minimum is possible
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

    gaps = _logit_gaps(probs, truth)

    def slope(inverse: float) -> float:
        """Return the derivative of the loss with respect to 1/T: mean logit gap."""
        return float((_softmax(gaps, inverse) * gaps).sum(1).mean())

    if slope(1 / MIN_TEMPERATURE) <= 0:
        return MIN_TEMPERATURE
    if slope(1 / MAX_TEMPERATURE) >= 0:
        return MAX_TEMPERATURE
    return 1 / float(brentq(slope, 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE))


def fit_temperature_map(
    probs: np.ndarray, truth: np.ndarray, prior_sd: float = PRIOR_SD
) -> float:
    """Return the maximum a posteriori (MAP) temperature, also for few images.

    It minimizes the cross-entropy, summed over the images, plus (log T)² / (2 sd²). The
    prior holds T near 1 until the images disagree. So the result is also reasonable if
    every prediction is correct, when `fit_temperature` returns `MIN_TEMPERATURE`.

    Example:
        >>> probs = np.array([[0.8, 0.2]] * 30)  # always correct: underconfident
        >>> round(fit_temperature_map(probs, np.zeros(30, int)), 2)
        0.35
    """
    return _fit_map(_logit_gaps(probs, truth), prior_sd)


def cross_validated_log_losses(
    probs: np.ndarray, truth: np.ndarray, prior_sd: float = PRIOR_SD
) -> np.ndarray:
    """Return cross-validated cross-entropies after temperature scaling, (N,).

    Each fifth of the images is scaled with the MAP temperature of the other four. The
    fifths are random, but the same in each call.

    Example:
        >>> probs = np.array([[0.8, 0.2]] * 30)
        >>> losses = cross_validated_log_losses(probs, np.zeros(30, int))
        >>> bool(losses.mean() < log_losses(probs, np.zeros(30, int)).mean())
        True
    """
    gaps = _logit_gaps(probs, truth)
    fold = np.random.default_rng(0).permutation(len(gaps)) % FOLDS
    losses = np.zeros(len(gaps))
    for k in range(min(FOLDS, len(gaps))):
        temperature = _fit_map(gaps[fold != k], prior_sd)
        losses[fold == k] = _gap_losses(gaps[fold == k], 1 / temperature)
    return losses


def _fit_map(gaps: np.ndarray, prior_sd: float) -> float:
    from scipy.optimize import minimize_scalar  # slow to import

    def posterior(log_t: float) -> float:
        """Return the negative logarithm of the posterior density, up to a constant."""
        loss = float(_gap_losses(gaps, math.exp(-log_t)).sum())
        return loss + log_t**2 / (2 * prior_sd**2)

    low, high = math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE)
    grid = np.linspace(low, high, _GRID)
    best = int(np.argmin([posterior(log_t) for log_t in grid.tolist()]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    result = minimize_scalar(
        posterior, bounds=bounds, method="bounded", options={"xatol": 1e-4}
    )
    return math.exp(float(result.x))


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


def _logit_gaps(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the logits minus the logit of the true class, (N, classes)."""
    gaps = _logits(probs)
    gaps -= gaps[np.arange(len(truth)), truth][:, None]
    return gaps


def _gap_losses(gaps: np.ndarray, inverse: float) -> np.ndarray:
    """Return the cross-entropy of each image at 1/T = `inverse`, (N,)."""
    scaled = gaps * inverse
    largest = scaled.max(1)  # at least 0, the gap of the true class
    sums = np.exp(scaled - largest[:, None]).sum(1)
    losses: np.ndarray = largest + np.log(sums)
    return losses


def _softmax(logits: np.ndarray, inverse: float) -> np.ndarray:
    scaled = logits * inverse
    exps = np.exp(scaled - scaled.max(1, keepdims=True))
    probs: np.ndarray = exps / exps.sum(1, keepdims=True)
    return probs
