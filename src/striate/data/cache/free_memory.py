"""How much memory may be had now, without another program's suffering for it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# The network, its gradients and the system want the rest.
SHARE = 0.6


_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_bytes() -> int | None:
    """Return what can be had, or None where the system does not say.

    A container may be allowed less than its machine has.
    """
    known = [room for room in (_of_system(), _of_container()) if room is not None]
    return min(known, default=None)


def _of_system() -> int | None:
    """Return the machine's: free pages, and what caches give back when asked."""
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


def _of_container() -> int | None:
    """Return the least room that the process's control groups leave, if they bound it.

    Of version 2 all kinds share one tree of groups; version 1 has one for memory.
    """
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return None
    own = {kinds: path for _, kinds, path in (line.split(":", 2) for line in lines)}
    rooms = [
        *_rooms(_GROUPS, own.get(""), "memory.max", "memory.current", "inactive_file"),
        *_rooms(
            _GROUPS / "memory",
            own.get("memory"),
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ]
    return min(rooms, default=None)


def _rooms(root: Path, own: str | None, most: str, used: str, cached: str) -> list[int]:
    """Return what each group from the process's own upwards has left."""
    group = root / (own or "").lstrip("/")
    rooms = []
    for one in (group, *group.parents):
        with suppress(OSError, ValueError, KeyError):  # "max" is no bound
            limit, now = (int((one / name).read_text()) for name in (most, used))
            lines = (one / "memory.stat").read_text().splitlines()
            given_back = int(dict(line.split(maxsplit=1) for line in lines)[cached])
            rooms.append(max(0, limit - now + given_back))
        if one == root:
            break
    return rooms


def fits_in_memory(size: int) -> bool:
    """Tell whether so many bytes may be held in memory."""
    free = available_bytes()
    return free is None or size <= SHARE * free
