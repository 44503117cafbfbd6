"""Power law of the error as a function of training set size, with forecasts.

Over orders of magnitude the error of a network is close to a + b·n⁻ᶜ in the number n of
training images (Hestness et al. 2017, "Deep learning scaling is predictable,
empirically"; Rosenfeld et al. 2020). A few measured points leave much of a, b and c
open, so every forecast has an interval over all laws that fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.special import stdtrit

# From almost none to steeper than any published one (0.07 to 0.5); beyond, the law is
# practically constant, as for c = 3.
EXPONENTS = np.geomspace(0.02, 3.0, 150)
STEPS = 400  # candidate errors for an interval
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Measured errors at one training set size."""

    images: float  # number of training images
    errors: tuple[float, ...]  # error rate of each seed
    test_images: int  # number of test images per seed

    @property
    def mean(self) -> float:
        """Return the mean error over seeds."""
        return sum(self.errors) / len(self.errors)

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the error over seeds; 0 for one seed."""
        return float(np.std(self.errors, ddof=1)) if len(self.errors) > 1 else 0.0

    @property
    def binomial_variance(self) -> float:
        """Return the binomial variance of an error rate on `test_images` images."""
        smoothed = (self.mean * self.test_images + 0.5) / (self.test_images + 1)
        return smoothed * (1 - smoothed) / self.test_images


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Forecast of the mean error at a training set size, with a 95 % interval."""

    images: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """Fitted power law error = a + b·n⁻ᶜ, with forecast intervals.

    Args:
        floor: Coefficient a: the error in the limit of infinitely many images.
        gain: b.
        exponent: Exponent c.
        points: The measured points to which the law is fitted.
        noise: Variance over seeds, divided by the binomial variance.
        misfit: χ² of the fit.
    """

    floor: float
    gain: float
    exponent: float
    points: tuple[CurvePoint, ...]
    noise: float
    misfit: float

    def error(self, images: float) -> float:
        """Return the error of the fitted law at a number of training images."""
        return float(self.floor + self.gain * images**-self.exponent)

    def forecast(self, images: float) -> Forecast:
        """Return the forecast error for a number of training images.

        The interval contains the error of every law that fits the points (profile
        likelihood, with Student's t for the few degrees of freedom of the seeds), and
        the noise of a mean over runs.
        """
        best = self.error(images)
        candidates = np.linspace(0.0, 1.0, STEPS + 1) ** 2
        candidates = np.unique(
            np.concatenate([candidates * max(best, 1e-9), best + candidates])
        )
        candidates = candidates[candidates <= 1.0]
        limit = self.misfit + self._quantile() ** 2 * self._inflation()
        fits = candidates[
            _profile(self.points, self._variances(), images, candidates) <= limit
        ]
        low, high = (fits.min(), fits.max()) if len(fits) else (best, best)
        half_width = self._quantile() * math.sqrt(self._mean_variance(best))
        return Forecast(
            images=images,
            error=best,
            low=max(0.0, best - math.hypot(best - low, half_width)),
            high=min(1.0, best + math.hypot(high - best, half_width)),
        )

    def _variances(self) -> np.ndarray:
        return _variances(self.points, self.noise)

    def _quantile(self) -> float:
        dof = sum(len(point.errors) - 1 for point in self.points)
        return float(stdtrit(max(dof, 1), (1 + LEVEL) / 2))

    def _inflation(self) -> float:
        """Return the factor that widens the intervals if the law fits badly."""
        return max(1.0, self.misfit / max(1, len(self.points) - 3))

    def _mean_variance(self, error: float) -> float:
        last = self.points[-1]
        point = CurvePoint(
            images=0, errors=(error,) * len(last.errors), test_images=last.test_images
        )
        return self.noise * point.binomial_variance / len(last.errors)


def fit_power_law(points: Sequence[CurvePoint]) -> PowerLaw:
    """Fit the power law error = a + b·n⁻ᶜ to at least three points.

    Example:
        >>> def measured(n):
        ...     e = 0.02 + n**-0.5
        ...     errors = (e - 1e-3, e + 1e-3)
        ...     return CurvePoint(images=n, errors=errors, test_images=2000)
        >>> law = fit_power_law([measured(n) for n in (100, 400, 1600, 6400)])
        >>> result = law.forecast(25_600)
        >>> result.low < 0.02 + 25_600**-0.5 < result.high, round(law.error(6400), 2)
        (True, 0.03)
    """
    noise = _noise(points)
    weights = _variances(points, noise) ** -0.5
    means = np.array([point.mean for point in points])
    # For each exponent, the best non-negative coefficients a and b.
    fits = [
        nnls(np.stack([weights, weights * power], 1), weights * means)
        for power in _powers(points)
    ]
    best = min(range(len(fits)), key=lambda i: fits[i][1])
    (floor, gain), distance = fits[best]
    return PowerLaw(
        floor=float(floor),
        gain=float(gain),
        exponent=float(EXPONENTS[best]),
        points=tuple(points),
        noise=noise,
        misfit=float(distance**2),
    )


def _noise(points: Sequence[CurvePoint]) -> float:
    """Return the mean ratio of the error variance over seeds to the binomial variance.

    The few seeds of one point give a bad estimate of the variance; its ratio to the
    binomial variance is similar at all points, so they are pooled.
    """
    repeated = [point for point in points if len(point.errors) > 1]
    if not repeated:
        return 1.0
    ratios = [point.deviation**2 / point.binomial_variance for point in repeated]
    # Much below the binomial variance is luck, unless the test images are the same for
    # all seeds.
    return max(sum(ratios) / len(ratios), 0.1)


def _variances(points: Sequence[CurvePoint], noise: float) -> np.ndarray:
    return np.array([noise * p.binomial_variance / len(p.errors) for p in points])


def _powers(points: Sequence[CurvePoint]) -> np.ndarray:
    """Return n⁻ᶜ for each exponent and each point, (exponents, points)."""
    n = np.array([point.images for point in points])
    return n ** -EXPONENTS[:, None]


def _profile(
    points: Sequence[CurvePoint],
    variances: np.ndarray,
    images: float,
    candidates: np.ndarray,
) -> np.ndarray:
    """Return the χ² of the best power law through each candidate error at `images`.

    With a given error y there, the law is y + gain·r, r = n⁻ᶜ − images⁻ᶜ, and for
    each exponent the best gain has a closed form.
    """
    means, weights = np.array([point.mean for point in points]), 1 / variances
    at_images = images**-EXPONENTS
    difference = _powers(points) - at_images[:, None]  # (exponents, points)
    y = candidates[:, None]  # (candidates, 1)
    norms = np.maximum((difference**2) @ weights, 1e-300)
    residual = difference @ (weights * means) - y * (difference @ weights)
    square = (means**2) @ weights - 2 * y * (means @ weights) + y**2 * weights.sum()
    # The floor, y − gain·images⁻ᶜ, must not be negative, and neither must the gain.
    gain = np.clip(residual / norms, 0.0, y / at_images)
    minimum: np.ndarray = (square - 2 * gain * residual + gain**2 * norms).min(1)
    return minimum
