"""Remote images: object stores, web servers, other machines (fsspec).

An address `scheme://…` is opened by fsspec. Files are read as a whole, one at a time.
Schemes that could run programs are refused.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.decode.file_bytes import MAX_BYTES, UndecodableError
from striate.data.sources.files import Stamp
from striate.data.sources.folder import FOLDER_LAYOUT, SYSTEM_FILES, are_splits
from striate.data.sources.source import SPLIT_ALIASES, Record, Skipped, Source
from striate.data.sources.table import read_table

# Only reading is needed: schemes that start programs or open references to other
# addresses are refused.
_REFUSED = {"reference", "jupyter", "simplecache", "filecache", "blockcache", "git"}
_CHANGE_KEYS = (
    *("ETag", "etag", "Last-Modified", "Content-MD5", "LastModified"),
    *("last_modified", "mtime", "created", "md5"),
)


def is_remote(data: str | Path) -> bool:
    """Return whether DATA is a remote address (`scheme://…`).

    Example:
        >>> is_remote("memory://photos"), is_remote("photos/cats")
        (True, False)
    """
    return "://" in str(data)


@dataclass(frozen=True)
class RemoteFiles:
    """Reader of remote files below an address."""

    root: str

    @cached_property
    def _filesystem(self) -> tuple[Any, str]:
        return open_filesystem(self.root)

    def read(self, path: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            UndecodableError: The file is missing, empty, too large or cannot be read.
        """
        filesystem, root = self._filesystem
        try:
            payload: bytes = filesystem.cat_file(f"{root}/{path}" if path else root)
        except FileNotFoundError:
            raise UndecodableError("missing", "no such file") from None
        except Exception as error:  # each file system has its own errors
            raise UndecodableError("unreadable", _error_text(error)) from None
        if not payload:
            raise UndecodableError("not-an-image", "the file is empty")
        if len(payload) > MAX_BYTES:
            raise UndecodableError("too-large", f"{len(payload):,} bytes")
        return payload

    def stamp(self, path: str) -> Stamp | None:
        """Return the size and version information of a file, such as its ETag.

        Return None if only the size is known; the file is then read again.
        """
        filesystem, root = self._filesystem
        try:
            info = filesystem.info(f"{root}/{path}" if path else root)
        except Exception:  # each file system has its own errors
            return None
        values = [f"{key}={info[key]}" for key in _CHANGE_KEYS if info.get(key)]
        size = int(info.get("size") or 0)
        return Stamp(f"{size} {' '.join(values)}", size) if values else None

    def name(self, path: str) -> bytes:
        """Return the full address of a file."""
        return f"{self.root}/{path}".encode("utf-8", "surrogateescape")


def open_filesystem(address: str) -> tuple[Any, str]:
    """Return the fsspec file system of an address, and the path inside it.

    Raises:
        DataError: The scheme is unknown or refused, or a package is missing.
    """
    scheme = address.partition("://")[0]
    if "::" in address or scheme in _REFUSED:
        what = f"images cannot be read from '{scheme}://'"
        raise DataError(what, where=address, fix="use http, s3, gs, … or a local path")
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        fix = "install the package that it names, or copy the images to this machine"
        raise DataError(_error_text(error), where=address, fix=fix) from error
    return filesystem, str(path).rstrip("/")


def read_remote(address: str) -> Source:
    """Return the source of a remote folder of class folders, or of a remote CSV.

    Raises:
        DataError: The address does not exist or has no class folders.
    """
    root = address.rstrip("/")
    if root.lower().endswith(".csv"):
        return _table(root)
    paths = list_remote_files(root)
    ignored: list[Skipped] = []
    image_paths = [path for path in paths if _check_name(path, ignored)]
    folders = [path.split("/")[0] for path in image_paths if "/" in path]
    has_splits = are_splits(folders, root)
    records = []
    for path in image_paths:
        folders = path.split("/")
        if len(folders) < 2 + has_splits:
            ignored.append(Skipped(path=path, reason="not-in-a-class-folder"))
            continue
        split = SPLIT_ALIASES[folders[0].lower()] if has_splits else None
        records.append(Record(path=path, label=folders[has_splits], split=split))
    if not records:
        raise DataError("no class folders with files", where=root, fix=FOLDER_LAYOUT)
    return Source(
        name=root.rpartition("/")[2] or "data",
        records=tuple(records),
        labels=ClassNames.of([record.label for record in records]),
        files=RemoteFiles(root),
        ignored=tuple(ignored),
    )


def _check_name(path: str, ignored: list[Skipped]) -> bool:
    for name in path.split("/"):
        if name.startswith(".") or name.lower() in SYSTEM_FILES:
            reason = "hidden" if name.startswith(".") else "system-file"
            ignored.append(Skipped(path=path, reason=reason))
            return False
    return True


def list_remote_files(address: str) -> list[str]:
    """Return the relative paths of all files below an address, sorted.

    Raises:
        DataError: The address cannot be listed.
    """
    filesystem, root = open_filesystem(address)
    try:
        paths = filesystem.find(root)
    except Exception as error:  # each file system has its own errors
        what = f"the address cannot be listed: {_error_text(error)}"
        raise DataError(what, where=address) from error
    if not paths:
        raise DataError("the address has no files", where=address)
    return sorted(str(path)[len(root) :].lstrip("/") for path in paths)


def _table(address: str) -> Source:
    with tempfile.TemporaryDirectory(prefix="striate-") as folder:
        copy = Path(folder) / address.rpartition("/")[2]
        download_file(address, copy)
        source = read_table(copy)
    return replace(source, root=None, files=RemoteFiles(address.rpartition("/")[0]))


def download_file(address: str, target: Path) -> None:
    """Download a file to `target`; never leave an incomplete file.

    Raises:
        DataError: The file cannot be downloaded.
    """
    filesystem, path = open_filesystem(address)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        filesystem.get_file(path, temporary)
        os.replace(temporary, target)
    except Exception as error:  # each file system has its own errors
        with suppress(OSError):
            os.unlink(temporary)
        fix = "check the address and the network, or copy the file to this machine"
        raise DataError(_error_text(error), where=address, fix=fix) from error


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def short_key(text: str) -> str:
    """Return a short hash of an address, usable as a file name."""
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
