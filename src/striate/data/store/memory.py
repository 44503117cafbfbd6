"""How much memory may be had now, without another program's suffering for it."""

from __future__ import annotations

import os
from pathlib import Path

# The network, its gradients and the system want the rest.
SHARE = 0.6


def available_bytes() -> int | None:
    """Return what the system says can be had, or None where it does not say.

    Free pages alone would not count what caches give back when asked.
    """
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None


def fits(size: int) -> bool:
    """Tell whether so many bytes may be held in memory."""
    free = available_bytes()
    return free is None or size <= SHARE * free
