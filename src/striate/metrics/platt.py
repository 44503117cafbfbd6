"""Platt scaling: a slope and an intercept for the logits of each class (Platt 1999)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SLOPE_SD, INTERCEPT_SD = 0.5, 2.0  # of the normal prior around slope 1, intercept 0
MIN_SLOPE = 0.1  # positive, so that the order of the images never changes
FOLDS, STEPS = 5, 50
_TINY = 1e-12


@dataclass(frozen=True)
class PlattParams:
    """Slopes and intercepts of the logits, one of each for every class."""

    slopes: np.ndarray = field(repr=False)  # (classes,)
    intercepts: np.ndarray = field(repr=False)  # (classes,)

    def apply(self, probs: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, (N, classes).

        Example:
            >>> params = PlattParams(np.array([2.0]), np.array([0.0]))
            >>> params.apply(np.array([[0.5], [0.8]])).round(3).tolist()
            [[0.5], [0.941]]
        """
        return _sigmoid(self.slopes * logits_of_probs(probs) + self.intercepts)


def logits_of_probs(probs: np.ndarray) -> np.ndarray:
    """Return the logits log(p / (1 − p)) of probabilities."""
    p = np.clip(probs.astype(float), _TINY, 1 - _TINY)
    logits: np.ndarray = np.log(p) - np.log1p(-p)
    return logits


def binary_log_losses(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the mean binary cross-entropy of each image in nats, (N,).

    Example:
        >>> binary_log_losses(np.array([[0.5, 0.5]]), np.array([[1, 0]])).round(4)
        array([0.6931])
    """
    p = np.clip(probs.astype(float), _TINY, 1 - _TINY)
    losses: np.ndarray = -np.where(truth > 0, np.log(p), np.log1p(-p)).mean(1)
    return losses


def fit_platt(probs: np.ndarray, truth: np.ndarray) -> PlattParams:
    """Return the maximum a posteriori (MAP) slope and intercept of each class.

    The prior is centered at slope 1 and intercept 0. A class that no image or every
    image has gives little information, so its probabilities change little.
    """
    z, y = logits_of_probs(probs), (truth > 0).astype(float)
    slopes, intercepts = np.ones(z.shape[1]), np.zeros(z.shape[1])
    # Newton's method for all classes at once: the posterior is concave. Large steps are
    # limited, because far from the optimum the curvature is almost zero.
    for _ in range(STEPS):
        p = _sigmoid(slopes * z + intercepts)
        weight = np.maximum(p * (1 - p), 1e-6)
        grad_a = ((p - y) * z).sum(0) + (slopes - 1) / SLOPE_SD**2
        grad_b = (p - y).sum(0) + intercepts / INTERCEPT_SD**2
        aa = (weight * z * z).sum(0) + 1 / SLOPE_SD**2
        bb = weight.sum(0) + 1 / INTERCEPT_SD**2
        ab = (weight * z).sum(0)
        scale = aa * bb - ab * ab
        step_a = (bb * grad_a - ab * grad_b) / scale
        step_b = (aa * grad_b - ab * grad_a) / scale
        slopes = slopes - np.clip(step_a, -0.5, 0.5)
        intercepts = intercepts - np.clip(step_b, -1.0, 1.0)
    return PlattParams(np.maximum(slopes, MIN_SLOPE), intercepts)


def cross_validated_platt_losses(probs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return cross-validated binary cross-entropies after Platt scaling, (N,).

    Each fifth of the images is scaled with the parameters of the other four. The fifths
    are random, but the same in each call.
    """
    fold = np.random.default_rng(0).permutation(len(probs)) % FOLDS
    losses = np.zeros(len(probs))
    for k in range(min(FOLDS, len(probs))):
        own = fold == k
        params = fit_platt(probs[~own], truth[~own])
        losses[own] = binary_log_losses(params.apply(probs[own]), truth[own])
    return losses


def _sigmoid(z: np.ndarray) -> np.ndarray:
    p: np.ndarray = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    return p
