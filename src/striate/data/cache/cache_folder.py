"""The cache folder: location, size limit, removal of least recently used packs."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from striate.data.cache.decoded_images import list_packs, remove_pack
from striate.data.file_index import FileIndex

AUTO, OFF = "auto", "off"
DEFAULT_GB = 20.0
# Disk space that stays free for checkpoints and for other programs.
MIN_FREE_DISK = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Cache folder of all runs of a user: decoded images (packs) and a file index."""

    folder: Path
    limit: int  # maximum bytes of packs; the least recently used are removed first

    @property
    def packs(self) -> Path:
        """Return the folder of the packs (cached decoded images)."""
        return self.folder / "packs"

    @property
    def file_index(self) -> FileIndex:
        """Return the index of files that were read in earlier runs."""
        return FileIndex(self.folder / "facts.sqlite")

    def fits(self, size: int) -> bool:
        """Return whether `size` bytes fit into the cache if other packs are removed."""
        used = sum(weight for _, weight, _ in list_packs(self.packs))
        return size <= self.limit and size + MIN_FREE_DISK <= used + self._free()

    def make_room(self, size: int) -> None:
        """Free cache space for `size` bytes: remove the least recently used packs."""
        packs = list_packs(self.packs)
        used = sum(weight for _, weight, _ in packs)
        for _, weight, folder in packs:
            if used + size <= self.limit and size + MIN_FREE_DISK <= self._free():
                return
            remove_pack(folder)
            used -= weight

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free


def open_cache(where: str = AUTO, gigabytes: float = DEFAULT_GB) -> Cache | None:
    """Open or create the cache; return None if the cache is off or cannot be used.

    Args:
        where: `auto` (`$XDG_CACHE_HOME/striate`, else `~/.cache/striate`), `off`, or a
            folder.
        gigabytes: Maximum size of the packs, in 10⁹ bytes.
    """
    if where == OFF:
        return None
    folder = _own_folder() if where == AUTO else Path(where).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    return Cache(folder=folder, limit=int(gigabytes * 1e9))


def _own_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "striate"


class TemporaryFolder:
    """Temporary folder, removed when the object is deleted or the program ends.

    Example:
        >>> folder = TemporaryFolder()
        >>> path = folder.path
        >>> path.is_dir()
        True
        >>> del folder
        >>> path.exists()
        False
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="striate-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
