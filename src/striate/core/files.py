"""Whole files or none: write beside, sync, rename; and read what we wrote."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from striate.core.errors import RunError, StorageError

_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing here is not permitted",
    errno.EIO: "the disk reported an input/output error",
}


@contextmanager
def storage_errors(path: Path, size: int) -> Iterator[None]:
    """Turn the system's refusal to write into a message with bytes needed and free."""
    try:
        yield
    except OSError as error:
        reason = _REFUSALS.get(error.errno or 0, error.strerror or str(error))
        free = _free_bytes(path.parent)
        what = f"could not save {path.name}: {reason} ({size:,} bytes needed, {free})"
        fix = "free some space or choose another --out, then run again"
        raise StorageError(what, where=path, fix=fix) from error


def _free_bytes(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free:,} free"
    except OSError:
        return "free space unknown"


def write_bytes(path: Path, payload: bytes) -> None:
    """Replace `path` by `payload` atomically: no half file is ever visible.

    Raises:
        StorageError: The disk refused; the old file, if any, is intact.
    """
    with storage_errors(path, len(payload)):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(0o644)  # mkstemp's 0600 would hide reports from others
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder; without this a power cut can undo it.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; undecodable file names keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, indented, with keys in the order given."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Bytes of undecodable names become JSON's own \udcff, which reads back the same.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a CSV with a header row atomically."""
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\n")
    quoting = csv.writer(sheet, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    for row in rows:
        # Python's writer leaves a carriage return bare, and its reader breaks on it.
        bare = any(isinstance(cell, str) and "\r" in cell for cell in row)
        (quoting if bare else writer).writerow(row)
    write_text(path, sheet.getvalue())


def read_json(path: Path) -> Any:
    """Read JSON; a broken file is named, with what to do.

    Raises:
        RunError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        fix = "give the folder that `striate train` printed"
        raise RunError(f"{path.name} is missing", where=path, fix=fix) from error
    except ValueError as error:
        fix = "restore it from a copy, or train again"
        what = f"{path.name} is not JSON: {error}"
        raise RunError(what, where=path, fix=fix) from error


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV that has a header row into one mapping a row.

    Raises:
        RunError: The file is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError as error:
        fix = "give the folder that `striate train` printed"
        raise RunError(f"{path.name} is missing", where=path, fix=fix) from error


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_rows(rows: Iterable[Mapping[str, Any] | Sequence[Any]]) -> str:
    """Return one SHA-256 over rows of text, order included."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(row).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
