"""How many processors there are for this process."""

from __future__ import annotations

import os
import sys


def processors() -> int:
    """Return how many processors this process may use, which may be fewer than exist.

    Example:
        >>> processors() >= 1
        True
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
