"""Activations and gradients by depth while a network learns, and when to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

from striate.interpret.depth.layer_profile import LayerProfile


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What the layers were like after so many steps of learning.

    Args:
        step: Steps done before; 0 is initialization, None the weights that were kept.
        layers: As `depth_profile` found them, from the input on.
    """

    step: int | None
    layers: tuple[LayerProfile, ...]


def is_snapshot_step(step: int) -> bool:
    """Say whether to look after so many steps: ever less often, as changes slow down.

    At powers of two and half-way between them: a run of a million steps is looked at
    41 times.

    Example:
        >>> [step for step in range(70) if is_snapshot_step(step)]
        [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    """
    return step < 3 or _is_power(step) or (step % 3 == 0 and _is_power(step // 3))


def _is_power(number: int) -> bool:
    return number & (number - 1) == 0


def first_to_last_gradient(layers: Sequence[LayerProfile]) -> float:
    """Return the first layer's gradient as a share of the last one's.

    Example:
        >>> def level(depth, gradient):
        ...     return LayerProfile(
        ...         name="", depth=depth, activation=1.0, gradient=gradient, update=0.0
        ...     )
        >>> first_to_last_gradient([level(1, 0.25), level(2, 0.5)])
        0.5
    """
    if len(layers) < 2 or not layers[-1].gradient:
        return nan
    return layers[0].gradient / layers[-1].gradient
