"""Is a difference more than chance? Exact tests, adjusted for being many."""

from __future__ import annotations

import math
from collections.abc import Sequence


def no_loss(lost: int, won: int) -> float:
    """Return how likely at least so many losses are, were losing and winning equal.

    McNemar's test (1947), exact and one-sided.

    Example:
        >>> no_loss(5, 0), no_loss(0, 0)
        (0.03125, 1.0)
    """
    total = lost + won
    ways = sum(math.comb(total, k) for k in range(lost, total + 1))
    return float(ways / 2**total)


def holm(chances: Sequence[float]) -> list[float]:
    """Adjust probabilities for being many (Holm 1979).

    Example:
        >>> holm([0.01, 0.5, 0.04])
        [0.03, 0.5, 0.08]
    """
    order = sorted(range(len(chances)), key=lambda i: chances[i])
    adjusted, highest = [1.0] * len(chances), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[i]))
        adjusted[i] = highest
    return adjusted
