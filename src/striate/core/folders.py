"""Whole folders or none: build beside, sync everything, rename; and clean up after."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from striate.core.files import (
    beside_name,
    create_file,
    make_folder,
    storage_errors,
    sync_folder,
)

# What is being built or taken away: `.name.1a2b3c4d`, here and in `files`. Never read.
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}")


def write_folder(path: Path, files: Iterable[tuple[str, bytes]], size: int) -> None:
    """Make a folder of files appear whole or not at all, also when the power fails.

    Args:
        path: The folder; nothing of that name may be there.
        files: Names and contents; taken one at a time, so that one is in memory.
        size: Bytes needed in all, about; for the message on a full disk.

    Raises:
        StorageError: The disk refused; what was there before is intact.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     write_folder(Path(root, "set"), [("a", b"1"), ("b", b"2")], size=2)
        ...     sorted(entry.name for entry in Path(root, "set").iterdir())
        ['a', 'b']
    """
    with storage_errors(path, size):
        make_folder(path.parent)
        beside = beside_name(path)
        try:
            beside.mkdir()
            for name, payload in files:
                create_file(beside / name, payload)
            sync_folder(beside)
            beside.rename(path)
        except BaseException:
            with suppress(OSError):
                _empty(beside)
            raise
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Take a folder of files away: first its name, at once, then what was in it."""
    gone = beside_name(path)
    try:
        path.rename(gone)
    except FileNotFoundError:
        return
    sync_folder(path.parent)
    _empty(gone)


def sweep(root: Path) -> None:
    """Take away what killed writes of files and folders left in a folder."""
    for entry in root.glob(".*"):
        if _LEFTOVER.fullmatch(entry.name):
            with suppress(OSError):
                _empty(entry) if entry.is_dir() else entry.unlink()


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
