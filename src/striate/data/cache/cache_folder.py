"""The cache folder: where it lies, how much it may hold, and what goes first."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path

from striate.data.cache.decoded_images import remove, weigh
from striate.data.file_index import Facts

AUTO, OFF = "auto", "off"
DEFAULT_GB = 20.0
# Never the last of the disk: a training writes weights, and other programs live here.
SPARE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Cache:
    """A folder of packs and a book of facts, shared by all runs of a user.

    Args:
        folder: Where it lies.
        limit: Bytes of packs it may hold; the longest unused go first.
    """

    folder: Path
    limit: int

    @property
    def packs(self) -> Path:
        """Return the folder of packs."""
        return self.folder / "packs"

    @property
    def facts(self) -> Facts:
        """Return what is known of files."""
        return Facts(self.folder / "facts.sqlite")

    def fits(self, size: int) -> bool:
        """Tell whether packs of so many bytes could be held, others being removed."""
        held = sum(weight for _, weight, _ in weigh(self.packs))
        return size <= self.limit and size + SPARE <= held + self._free()

    def make_room(self, size: int) -> None:
        """Remove the longest unused packs until `size` more bytes may come."""
        packs = weigh(self.packs)
        held = sum(weight for _, weight, _ in packs)
        for _, weight, folder in packs:
            if held + size <= self.limit and size + SPARE <= self._free():
                return
            remove(folder)
            held -= weight

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free


def open_cache(where: str = AUTO, gigabytes: float = DEFAULT_GB) -> Cache | None:
    """Return the cache, made if need be; None where it is off or cannot be had.

    Args:
        where: `auto` (`$XDG_CACHE_HOME/striate`, else `~/.cache/striate`), `off`, or a
            folder.
        gigabytes: The most that packs may take, in 10⁹ bytes.
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


class PassingFolder:
    """A folder that is removed when nobody holds this any more, or the program ends.

    Example:
        >>> folder = PassingFolder()
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
