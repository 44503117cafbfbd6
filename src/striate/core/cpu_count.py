"""Number of CPU cores that this process may use."""

from __future__ import annotations

import os
import sys


def cpu_count() -> int:
    """Return the number of CPU cores available to this process.

    Example:
        >>> cpu_count() >= 1
        True
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
