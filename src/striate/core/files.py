"""Atomic file writes (temporary file, fsync, rename); JSON, CSV and file hashes."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, StorageError

_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EIO: "the disk reported an input/output error",
}


_RESTORE = "restore it from a backup, or train again"
_FULL = errno.ENOSPC, errno.EDQUOT


@contextmanager
def storage_errors(path: Path, size: int) -> Iterator[None]:
    """Context manager: convert OSError to StorageError, with the free disk space."""
    try:
        yield
    except OSError as error:
        reason = _REFUSALS.get(error.errno or 0, error.strerror or str(error))
        free = _free_bytes(path.parent)
        what = f"could not save {path.name}: {reason} ({size:,} bytes needed, {free})"
        space = "free some space or " if error.errno in _FULL else ""
        fix = f"{space}choose another --out, then run again"
        raise StorageError(what, where=path, fix=fix) from error


def _free_bytes(folder: Path) -> str:
    for place in (folder, *folder.parents):  # the folder itself may not exist yet
        with suppress(OSError):
            return f"{shutil.disk_usage(place).free:,} free"
    return "free space unknown"


def write_bytes(path: Path, payload: bytes) -> None:
    """Write a file atomically, so that no reader sees a partial file.

    Raises:
        StorageError: The write failed; an existing file is unchanged.
    """
    with storage_errors(path, len(payload)):
        make_folder(path.parent)
        temporary = temporary_name(path)
        try:
            create_file(temporary, payload)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)


def write_files_together(files: Mapping[Path, bytes]) -> None:
    """Write several files: all contents are on the disk before the first gets its name.

    Raises:
        StorageError: The write failed; existing files are unchanged.
    """
    first, size = next(iter(files)), sum(map(len, files.values()))
    temporary = {path: temporary_name(path) for path in files}
    with storage_errors(first, size):
        try:
            for path, payload in files.items():
                make_folder(path.parent)
                create_file(temporary[path], payload)
            for path, name in temporary.items():
                os.replace(name, path)
        except BaseException:
            for name in temporary.values():
                with suppress(OSError):
                    os.unlink(name)
            raise
        for folder in {path.parent for path in files}:
            sync_folder(folder)


def temporary_name(path: Path) -> Path:
    """Return a random hidden path in the folder of `path`, for a temporary file."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def create_file(path: Path, payload: bytes) -> None:
    """Create a new file and sync it to the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(handle, payload)
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, payload: bytes) -> None:
    """Write all bytes to a file handle, with several system calls if necessary."""
    rest = memoryview(payload)
    while rest:
        rest = rest[os.write(handle, rest) :]


def make_folder(path: Path) -> None:
    """Create a folder and its parent folders, and sync them to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with suppress(FileExistsError):
        path.mkdir()
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Sync a folder to the disk, so that renames in the folder are permanent."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise an error if a file to write already exists, unless `overwrite` is set.

    Call this before a long computation. The folder of the file is checked, too.

    Raises:
        RunError: The file exists and `overwrite` is off, or the path is a folder.
        StorageError: The folder of the file cannot be written.
    """
    if os.path.isdir(path):  # noqa: PTH112 - False without permission to look
        fix = "give the name of a file"
        raise RunError("the output file is a folder", where=path, fix=fix)
    if os.path.lexists(path) and not overwrite:
        fix = "choose another name, or add --overwrite (overwrite=True in Python)"
        raise RunError("the output file already exists", where=path, fix=fix)
    exists = os.path.exists  # `Path.exists` fails without permission to look
    folder = next(place for place in path.parents if exists(place))
    effective = os.access in os.supports_effective_ids
    if not (folder.is_dir() and os.access(folder, os.W_OK, effective_ids=effective)):
        what = f"{path.name} cannot be written: {folder} is not a writable folder"
        raise StorageError(what, where=path, fix="choose another folder")


def next_free_file(path: Path) -> Path:
    """Return the path, or `NAME-2`, `NAME-3` … in the same folder if it exists.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "page.html"), "")
        ...     next_free_file(Path(folder, "page.html")).name
        'page-2.html'
    """
    free, number = path, 1
    while os.path.lexists(free):
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically; surrogate-escaped bytes are kept."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file atomically; the key order is kept."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Bytes of undecodable names become JSON's own \udcff, which reads back the same.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a CSV file with a header row atomically."""
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\n")
    quoting = csv.writer(sheet, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in (columns, *rows):
        # Python's writer leaves a carriage return bare, and its reader breaks on it.
        bare = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoting if bare else writer).writerow(row)
    write_text(path, sheet.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: The file is missing, unreadable, or not JSON.
    """
    try:
        with _missing_file_errors(path):
            return json.loads(path.read_bytes())
    except OSError as error:
        what = f"{path.name} cannot be read: {error.strerror}"
        raise RunError(what, where=path, fix="check its permissions") from error
    except ValueError as error:
        what = f"{path.name} is not JSON: {error}"
        raise RunError(what, where=path, fix=_RESTORE) from error


@contextmanager
def _missing_file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        fix = "give a run folder (see the output of the command that wrote it)"
        raise RunError(f"{path.name} is missing", where=path, fix=fix) from error


@contextmanager
def damaged_file_errors(path: Path) -> Iterator[None]:
    """Context manager: convert a parsing error to a RunError that names the file.

    Raises:
        RunError: A key is missing or a value has another type.

    Example:
        >>> with damaged_file_errors(Path("scores.json")):
        ...     {}["accuracy"]
        Traceback (most recent call last):
        striate.core.errors.RunError: scores.json is damaged: 'accuracy'
          where: scores.json
          do:    restore it from a backup, or train again
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{path.name} is damaged: {error}"
        raise RunError(what, where=path, fix=_RESTORE) from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file with a header row; return one dict per row.

    Raises:
        RunError: The file is missing.
    """
    with (
        _missing_file_errors(path),
        path.open(newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        return list(csv.DictReader(file))


def hash_file(path: Path) -> str:
    """Return the SHA-256 hash of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_rows(rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> str:
    """Return the SHA-256 hash of a sequence of rows in hexadecimal."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
