"""Errors that fall with the number of images: the law, and what it foretells.

Over orders of magnitude the error of a network is close to a + b·n⁻ᶜ in the number n of
training images (Hestness et al. 2017, "Deep learning scaling is predictable,
empirically"; Rosenfeld et al. 2020). A few measured points leave much of a, b and c
open, so nothing here is a number without the interval of every law that fits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

# From almost none to steeper than any published one (0.07 to 0.5); beyond, the law is a
# floor that is reached at once, which c = 3 says as well.
EXPONENTS = np.geomspace(0.02, 3.0, 150)
STEPS = 400  # errors tried for an interval
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Point:
    """What was measured with one number of training images.

    Args:
        images: Their number.
        errors: One a seed, in shares.
        judged: Test images a seed.
    """

    images: float
    errors: tuple[float, ...]
    judged: int

    @property
    def mean(self) -> float:
        """Return the mean error."""
        return sum(self.errors) / len(self.errors)

    @property
    def deviation(self) -> float:
        """Return the standard deviation over seeds; 0 for one."""
        return float(np.std(self.errors, ddof=1)) if len(self.errors) > 1 else 0.0

    @property
    def chance(self) -> float:
        """Return the variance that counting `judged` images has by chance."""
        smoothed = (self.mean * self.judged + 0.5) / (self.judged + 1)
        return smoothed * (1 - smoothed) / self.judged


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """The mean error to expect of as many runs, and its 95 % interval."""

    images: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Law:
    """The best a + b·n⁻ᶜ, and all that is needed to ask how sure it is.

    Args:
        floor: a, the error that no number of images goes below.
        gain: b.
        exponent: c.
        points: What it was fitted to.
        noise: How many times the variance of chance the seeds' variance is.
        misfit: χ² of the best law, in variances of the points' means.
    """

    floor: float
    gain: float
    exponent: float
    points: tuple[Point, ...]
    noise: float
    misfit: float

    def error(self, images: float) -> float:
        """Return the law's error at a number of images."""
        return float(self.floor + self.gain * images**-self.exponent)

    def foretell(self, images: float) -> Foretold:
        """Return what as many runs with so many images would show.

        The interval holds every error through which a law passes that the points do
        not refute (profile likelihood, Student's t for the seeds' few degrees of
        freedom), and the scatter of a mean of so many runs.
        """
        best = self.error(images)
        tried = np.linspace(0.0, 1.0, STEPS + 1) ** 2
        tried = np.unique(np.concatenate([tried * max(best, 1e-9), best + tried]))
        tried = tried[tried <= 1.0]
        limit = self.misfit + self._quantile() ** 2 * self._stretch()
        fits = tried[_profile(self.points, self._variances(), images, tried) <= limit]
        low, high = (fits.min(), fits.max()) if len(fits) else (best, best)
        spread = self._quantile() * math.sqrt(self._mean_variance(best))
        return Foretold(
            images=images,
            error=best,
            low=max(0.0, best - math.hypot(best - low, spread)),
            high=min(1.0, best + math.hypot(high - best, spread)),
        )

    def _variances(self) -> np.ndarray:
        return _variances(self.points, self.noise)

    def _quantile(self) -> float:
        freedom = sum(len(point.errors) - 1 for point in self.points)
        return float(student.ppf((1 + LEVEL) / 2, max(freedom, 1)))

    def _stretch(self) -> float:
        """Return how much wider to be because the best law misses the points."""
        return max(1.0, self.misfit / max(1, len(self.points) - 3))

    def _mean_variance(self, error: float) -> float:
        last = self.points[-1]
        at = Point(images=0, errors=(error,) * len(last.errors), judged=last.judged)
        return self.noise * at.chance / len(last.errors)


def fit_law(points: Sequence[Point]) -> Law:
    """Fit the law to at least three points.

    Example:
        >>> def measured(n):
        ...     e = 0.02 + n**-0.5
        ...     return Point(images=n, errors=(e - 1e-3, e + 1e-3), judged=2000)
        >>> law = fit_law([measured(n) for n in (100, 400, 1600, 6400)])
        >>> told = law.foretell(25_600)
        >>> told.low < 0.02 + 25_600**-0.5 < told.high, round(law.error(6400), 2)
        (True, 0.03)
    """
    noise = _noise(points)
    variances = _variances(points, noise)
    floors, gains = _floors_and_gains(points, variances)
    misfits = _misfits(points, variances, floors, gains)
    best = int(misfits.argmin())
    return Law(
        floor=float(floors[best]),
        gain=float(gains[best]),
        exponent=float(EXPONENTS[best]),
        points=tuple(points),
        noise=noise,
        misfit=float(misfits[best]),
    )


def _noise(points: Sequence[Point]) -> float:
    """Pool the seeds' variances over the points, in units of chance.

    One point's few seeds say little of their variance; its size relative to chance is
    much the same at every point, so all of them say it together.
    """
    many = [point for point in points if len(point.errors) > 1]
    if not many:
        return 1.0
    ratios = [point.deviation**2 / point.chance for point in many]
    # Much below chance is luck, unless the test images are the same for all seeds.
    return max(sum(ratios) / len(ratios), 0.1)


def _variances(points: Sequence[Point], noise: float) -> np.ndarray:
    return np.array([noise * p.chance / len(p.errors) for p in points])


def _falls(points: Sequence[Point]) -> np.ndarray:
    """Return n⁻ᶜ, (exponents, points)."""
    n = np.array([point.images for point in points])
    return n ** -EXPONENTS[:, None]


def _floors_and_gains(
    points: Sequence[Point], variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best floor and gain, neither negative, for every exponent."""
    falls, means = _falls(points), np.array([point.mean for point in points])
    w = 1 / variances
    total, x, y = w.sum(), falls @ w, means @ w
    xx, xy = (falls**2) @ w, falls @ (w * means)
    gain = (total * xy - x * y) / np.maximum(total * xx - x * x, 1e-300)
    floor = (y - gain * x) / total
    # Where one would be negative the best is at its zero, the other fitted alone.
    gain = np.where(floor < 0, xy / xx, gain)
    floor = np.maximum(floor, 0.0)
    return np.where(gain < 0, y / total, floor), np.maximum(gain, 0.0)


def _misfits(
    points: Sequence[Point],
    variances: np.ndarray,
    floors: np.ndarray,
    gains: np.ndarray,
) -> np.ndarray:
    means = np.array([point.mean for point in points])
    off = means - floors[:, None] - gains[:, None] * _falls(points)
    misfits: np.ndarray = (off**2 / variances).sum(1)
    return misfits


def _profile(
    points: Sequence[Point], variances: np.ndarray, images: float, tried: np.ndarray
) -> np.ndarray:
    """Return the least misfit of any law through each tried error at `images`.

    With the error y there given, the law is y + gain·r, r = n⁻ᶜ − images⁻ᶜ, and for
    each exponent the best gain has a closed form.
    """
    means, w = np.array([point.mean for point in points]), 1 / variances
    there = images**-EXPONENTS
    rise = _falls(points) - there[:, None]  # (exponents, points)
    y = tried[:, None]  # (tried, 1)
    rises = np.maximum((rise**2) @ w, 1e-300)
    off = rise @ (w * means) - y * (rise @ w)
    square = (means**2) @ w - 2 * y * (means @ w) + y**2 * w.sum()
    # The floor, y − gain·images⁻ᶜ, must not be negative, and neither must the gain.
    gain = np.clip(off / rises, 0.0, y / there)
    least: np.ndarray = (square - 2 * gain * off + gain**2 * rises).min(1)
    return least
