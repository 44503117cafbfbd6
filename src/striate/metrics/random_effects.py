"""Pool the effects of several machines or sites by a random-effects model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True, kw_only=True)
class PooledEffect:
    """Pooled effect of several sites, with the variation between the sites."""

    difference: float
    interval: tuple[float, float]  # 95 %, Hartung–Knapp
    tau2: float  # variance of the true effects between sites
    i2: float  # share of the variation that is not chance, 0–1
    sites: int


def pool_effects(
    effects: Sequence[float], standard_errors: Sequence[float]
) -> PooledEffect:
    """Pool effects by DerSimonian and Laird (1986), with a Hartung–Knapp interval.

    There must be at least two sites, and standard errors above 0.

    Example:
        >>> pooled = pool_effects([0.1, 0.3, 0.2], [0.05, 0.05, 0.05])
        >>> round(pooled.difference, 3), pooled.sites
        (0.2, 3)
    """
    y, v = np.asarray(effects, float), np.square(np.asarray(standard_errors, float))
    fixed = 1 / v
    mean = float((fixed * y).sum() / fixed.sum())
    q = float((fixed * (y - mean) ** 2).sum())
    freedom = len(y) - 1
    scale = float(fixed.sum() - (fixed**2).sum() / fixed.sum())
    tau2 = max(0.0, (q - freedom) / scale)
    weights = 1 / (v + tau2)
    pooled = float((weights * y).sum() / weights.sum())
    # Knapp and Hartung (2003), never narrower than the usual interval.
    spread = float((weights * (y - pooled) ** 2).sum() / freedom)
    error = math.sqrt(max(spread, 1.0) / float(weights.sum()))
    half = float(-stdtrit(freedom, 0.025)) * error
    return PooledEffect(
        difference=pooled,
        interval=(pooled - half, pooled + half),
        tau2=tau2,
        i2=max(0.0, (q - freedom) / q) if q > 0 else 0.0,
        sites=len(y),
    )
