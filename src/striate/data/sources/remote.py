"""Images that lie elsewhere: object stores, web servers, other machines (fsspec).

`scheme://…` names what fsspec can open. Files are read whole, one at a time; nothing is
run, listed schemes that would run something are refused.
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
from striate.data.sources.folder import LAYOUT, LITTER, hold_splits
from striate.data.sources.source import SPLIT_ALIASES, Record, Skipped, Source
from striate.data.sources.table import read_table

# Reading is all that is needed of a place; those that start programs or open others'
# references have no business in a path.
_REFUSED = {"reference", "jupyter", "simplecache", "filecache", "blockcache", "git"}
_TELLS = (
    *("ETag", "etag", "Last-Modified", "Content-MD5", "LastModified"),
    *("last_modified", "mtime", "created", "md5"),
)


def is_remote(data: str | Path) -> bool:
    """Tell whether DATA names a place by a scheme.

    Example:
        >>> is_remote("memory://photos"), is_remote("photos/cats")
        (True, False)
    """
    return "://" in str(data)


@dataclass(frozen=True)
class RemoteFiles:
    """Files below an address."""

    root: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        return open_place(self.root)

    def read(self, path: str) -> bytes:
        """Return a file's bytes.

        Raises:
            UndecodableError: It is gone, empty, too large or cannot be read.
        """
        place, root = self._place
        try:
            payload: bytes = place.cat_file(f"{root}/{path}" if path else root)
        except FileNotFoundError:
            raise UndecodableError("missing", "no such file") from None
        except Exception as error:  # every place has errors of its own
            raise UndecodableError("unreadable", _said(error)) from None
        if not payload:
            raise UndecodableError("not-an-image", "the file is empty")
        if len(payload) > MAX_BYTES:
            raise UndecodableError("too-large", f"{len(payload):,} bytes")
        return payload

    def stamp(self, path: str) -> Stamp | None:
        """Return size and whatever else the place says changes with a file.

        Where it says nothing but the size there is no stamp: the file is read again.
        """
        place, root = self._place
        try:
            found = place.info(f"{root}/{path}" if path else root)
        except Exception:  # every place has errors of its own
            return None
        tells = [f"{key}={found[key]}" for key in _TELLS if found.get(key)]
        size = int(found.get("size") or 0)
        return Stamp(f"{size} {' '.join(tells)}", size) if tells else None

    def name(self, path: str) -> bytes:
        """Return the whole address."""
        return f"{self.root}/{path}".encode("utf-8", "surrogateescape")


def open_place(address: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and the path within it.

    Raises:
        DataError: The scheme is unknown, refused, or needs a package.
    """
    scheme = address.partition("://")[0]
    if "::" in address or scheme in _REFUSED:
        what = f"'{scheme}://' is not a place that images are read from"
        raise DataError(what, where=address, fix="give http, s3, gs, … or a local path")
    try:
        place, path = fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        fix = "install what it names, or copy the images here"
        raise DataError(_said(error), where=address, fix=fix) from error
    return place, str(path).rstrip("/")


def read_remote(address: str) -> Source:
    """Return the source at an address: a folder of class folders, or a CSV.

    Raises:
        DataError: Nothing is there, or it has no class folders.
    """
    root = address.rstrip("/")
    if root.lower().endswith(".csv"):
        return _table(root)
    paths = list_files(root)
    ignored: list[Skipped] = []
    kept = [path for path in paths if _is_kept(path, ignored)]
    has_splits = hold_splits((path.split("/")[0] for path in kept if "/" in path), root)
    records = []
    for path in kept:
        folders = path.split("/")
        if len(folders) < 2 + has_splits:
            ignored.append(Skipped(path=path, reason="not-in-a-class-folder"))
            continue
        split = SPLIT_ALIASES[folders[0].lower()] if has_splits else None
        records.append(Record(path=path, label=folders[has_splits], split=split))
    if not records:
        raise DataError("no class folders with files in them", where=root, fix=LAYOUT)
    return Source(
        name=root.rpartition("/")[2] or "data",
        records=tuple(records),
        labels=ClassNames.of([record.label for record in records]),
        files=RemoteFiles(root),
        ignored=tuple(ignored),
    )


def _is_kept(path: str, ignored: list[Skipped]) -> bool:
    for name in path.split("/"):
        if name.startswith(".") or name.lower() in LITTER:
            reason = "hidden" if name.startswith(".") else "system-file"
            ignored.append(Skipped(path=path, reason=reason))
            return False
    return True


def list_files(address: str) -> list[str]:
    """Return the paths of every file below an address, relative to it, sorted.

    Raises:
        DataError: It cannot be listed.
    """
    place, root = open_place(address)
    try:
        found = place.find(root)
    except Exception as error:  # every place has errors of its own
        raise DataError(f"cannot list it: {_said(error)}", where=address) from error
    if not found:
        raise DataError("nothing is there", where=address)
    return sorted(str(path)[len(root) :].lstrip("/") for path in found)


def _table(address: str) -> Source:
    with tempfile.TemporaryDirectory(prefix="striate-") as folder:
        copy = Path(folder) / address.rpartition("/")[2]
        fetch(address, copy)
        source = read_table(copy)
    return replace(source, root=None, files=RemoteFiles(address.rpartition("/")[0]))


def fetch(address: str, target: Path) -> None:
    """Copy a file here; `target` is whole or not there.

    Raises:
        DataError: It cannot be had.
    """
    place, path = open_place(address)
    handle, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        place.get_file(path, beside)
        os.replace(beside, target)
    except Exception as error:  # every place has errors of its own
        with suppress(OSError):
            os.unlink(beside)
        fix = "check the address and the network, or copy the file here"
        raise DataError(_said(error), where=address, fix=fix) from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def short_key(text: str) -> str:
    """Return a name for an address that is one on every file system."""
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
