"""Available memory of the machine and of the container."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# The network, its gradients and the system need the rest.
SHARE = 0.6
_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def available_bytes() -> int | None:
    """Return the available memory in bytes, or None if the system does not report it.

    A container may be allowed less memory than the machine has.
    """
    limits = [limit for limit in (_of_system(), _of_container()) if limit is not None]
    return min(limits, default=None)


def _of_system() -> int | None:
    """Return the machine's available bytes: free pages and reclaimable caches."""
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
    """Return the bytes available under the cgroup limits of this process, or None.

    Version 2 of cgroups has one tree for all resources; version 1 has one for memory.
    """
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return None
    fields = (line.split(":", 2) for line in lines)
    group_of = {kinds: path for _, kinds, path in fields}
    second = ("memory.max", "memory.current", "inactive_file")
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    sizes = [
        *_bytes_left(_GROUPS, group_of.get(""), second),
        *_bytes_left(_GROUPS / "memory", group_of.get("memory"), first),
    ]
    return min(sizes, default=None)


def _bytes_left(
    root: Path, group_path: str | None, names: tuple[str, str, str]
) -> list[int]:
    """Return the available bytes of the process's cgroup and of each parent cgroup."""
    group = root / (group_path or "").lstrip("/")
    limit_file, usage_file, cache_key = names
    sizes = []
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError, KeyError):  # "max" is no bound
            limit = int((folder / limit_file).read_text())
            now = int((folder / usage_file).read_text())
            lines = (folder / "memory.stat").read_text().splitlines()
            reclaimable = int(dict(line.split(maxsplit=1) for line in lines)[cache_key])
            sizes.append(max(0, limit - now + reclaimable))
        if folder == root:
            break
    return sizes


def fits_in_memory(size: int) -> bool:
    """Return whether `size` bytes fit into the available memory, with a margin."""
    free = available_bytes()
    return free is None or size <= SHARE * free
