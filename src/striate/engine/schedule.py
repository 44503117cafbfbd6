"""Learning-rate schedules: functions from training progress (0–1) to a factor (0–1)."""

from __future__ import annotations

import math
from collections.abc import Callable

from striate.core.registry import Registry

Schedule = Callable[[float], float]

SCHEDULES: Registry[Schedule] = Registry("schedule")

# Of a one-cycle run, with a rising rate (Smith & Topin 2017, fig. 1).
WARMUP_FRACTION = 0.25
START_FACTOR = 1 / 25
END_FACTOR = 1e-4


@SCHEDULES.add("one_cycle")
def one_cycle(progress: float) -> float:
    """Return the one-cycle factor: it rises from 1/25 to 1, then falls to nearly 0.

    Smith & Topin 2017, with cosine curves instead of straight lines.

    Example:
        >>> [round(one_cycle(t), 3) for t in (0, 0.25, 1)]
        [0.04, 1.0, 0.0]
    """
    if progress < WARMUP_FRACTION:
        return _ease(START_FACTOR, 1.0, progress / WARMUP_FRACTION)
    return _ease(1.0, END_FACTOR, (progress - WARMUP_FRACTION) / (1 - WARMUP_FRACTION))


@SCHEDULES.add("cosine")
def cosine(progress: float) -> float:
    """Return the cosine annealing factor: 1 to near 0 (Loshchilov & Hutter 2016)."""
    return _ease(1.0, END_FACTOR, progress)


@SCHEDULES.add("step")
def step(progress: float) -> float:
    """Return the step decay factor: 1, 0.1 after 50 %, 0.01 after 75 % of training."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


@SCHEDULES.add("constant")
def constant(progress: float) -> float:
    """Return the constant factor 1."""
    return 1.0


def _ease(start: float, end: float, progress: float) -> float:
    share = (1 - math.cos(math.pi * min(max(progress, 0.0), 1.0))) / 2
    return start + (end - start) * share
