"""Layer profiles during training, and the steps at which to take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from striate.interpret.depth.layer_profile import LayerProfile


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The layer profiles after a number of training steps."""

    step: int | None
    layers: tuple[LayerProfile, ...]


def is_snapshot_step(step: int) -> bool:
    """Return whether to take a snapshot after a step, at growing intervals.

    Snapshots are at powers of two and halfway between: 41 in a million steps.

    Example:
        >>> [step for step in range(70) if is_snapshot_step(step)]
        [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    """
    return step == 0 or step // (step & -step) in (1, 3)  # the odd part of the step


def first_to_last_gradient(layers: Sequence[LayerProfile]) -> float:
    """Return the ratio of the first layer's gradient to the last layer's gradient.

    Example:
        >>> from types import SimpleNamespace as Layer
        >>> first_to_last_gradient([Layer(gradient=0.25), Layer(gradient=0.5)])
        0.5
    """
    if len(layers) < 2 or not layers[-1].gradient:
        return nan
    return layers[0].gradient / layers[-1].gradient
