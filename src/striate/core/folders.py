"""Atomic folder writes (temporary folder, fsync, rename), and clean-up."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from striate.core.files import (
    create_file,
    make_folder,
    storage_errors,
    sync_folder,
    temporary_name,
)

# A file or folder being written or deleted: `.name.1a2b3c4d`, here and in `files`.
_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}")


def write_folder(path: Path, files: Iterable[tuple[str, bytes]], size: int) -> None:
    """Write a folder of files atomically: after a crash it is complete or absent.

    Args:
        path: The folder, which must not exist.
        files: File names and contents, read one at a time.
        size: Approximate total size in bytes, for the error message of a full disk.

    Raises:
        StorageError: The write failed; existing files are unchanged.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as root:
        ...     write_folder(Path(root, "set"), [("a", b"1"), ("b", b"2")], size=2)
        ...     sorted(entry.name for entry in Path(root, "set").iterdir())
        ['a', 'b']
    """
    with storage_errors(path, size):
        make_folder(path.parent)
        temporary = temporary_name(path)
        try:
            temporary.mkdir()
            for name, payload in files:
                create_file(temporary / name, payload)
            sync_folder(temporary)
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):
                _delete(temporary)
            raise
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder of files: first rename it atomically, then delete the files."""
    temporary = temporary_name(path)
    try:
        path.rename(temporary)
    except FileNotFoundError:
        return
    sync_folder(path.parent)
    _delete(temporary)


def remove_leftovers(root: Path) -> None:
    """Delete temporary files and folders of killed processes."""
    for entry in root.glob(".*"):
        if _LEFTOVER.fullmatch(entry.name):
            with suppress(OSError):
                _delete(entry) if entry.is_dir() else entry.unlink()


def _delete(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
