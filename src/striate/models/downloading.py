"""Public weights onto this machine: found where they lie, else fetched and verified."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from striate.core.errors import WeightsError
from striate.core.files import hash_file, make_folder, storage_errors, sync_folder
from striate.models.pretrained_registry import Published

PIECE = 1 << 20
PATIENCE = 30.0  # seconds without a byte
PART = ".part"  # behind the name of what is not whole yet


def local_file(public: Published, folder: Path | None) -> Path:
    """Return where public weights lie: in a package, in `folder`, or fetched there.

    Args:
        public: Which.
        folder: Where downloads are kept; None where nothing can be kept.

    Raises:
        WeightsError: They cannot be had, or are not what they should be.
    """
    if (packaged := _packaged(public)) is not None:
        return packaged
    if folder is None:
        what = (
            f"{public.file} is not on this machine, and there is no cache to fetch to"
        )
        raise WeightsError(what, where=public.address, fix=_by_hand(public))
    path = folder / public.file
    if path.is_file() and _is_right(path, public.sha256):
        return path
    return fetch(public, path)


def whereabouts(public: Published, folder: Path | None) -> str:
    """Say where public weights are now: a package, the cache, or the publisher only."""
    if _packaged(public) is not None:
        return f"package {public.package}"
    if folder is not None and (folder / public.file).is_file():
        return "cache"
    return "to be fetched"


def fetch(public: Published, path: Path) -> Path:
    """Download weights to a path: begun again where it broke off, whole or not at all.

    Raises:
        WeightsError: The publisher cannot be reached, or sent other bytes.
        StorageError: The disk refused.
    """
    make_folder(path.parent)
    with _alone(path.parent):
        if path.is_file() and _is_right(path, public.sha256):
            return path  # another process has fetched it
        return _fetched(public, path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into a folder; the system ends the lock.

    Where a file system knows no locks, two downloads at once spoil each other, and
    their hashes tell.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetched(public: Published, path: Path) -> Path:
    part = path.with_name(path.name + PART)
    try:
        with storage_errors(part, 0):
            part.touch()
        for payload in _pieces(public, part):
            _append(part, payload)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        what = f"{public.file} could not be fetched: {reason}"
        begun = part.is_file() and part.stat().st_size > 0
        if not begun:
            part.unlink(missing_ok=True)
        again = "run it again, which goes on from there; or " if begun else ""
        fix = f"{again}{_by_hand(public)}"
        raise WeightsError(what, where=public.address, fix=fix) from error
    if not _is_right(part, public.sha256):
        found = hash_file(part)
        part.unlink()
        what = f"the download is not {public.file}: its SHA-256 begins {found[:8]}"
        fix = f"try again, or {_by_hand(public)}"
        raise WeightsError(what, where=public.address, fix=fix)
    with storage_errors(path, part.stat().st_size):
        os.replace(part, path)
        sync_folder(path.parent)
    return path


def _by_hand(public: Published) -> str:
    return f"get {public.file} elsewhere and give its path: --pretrained PATH"


def _packaged(public: Published) -> Path | None:
    if not public.package:
        return None
    try:
        files = importlib.metadata.files(public.package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        path = Path(str(file.locate()))
        if file.name == public.file and path.is_file():
            return path if _is_right(path, public.sha256) else None
    return None


def _is_right(path: Path, sha256: str) -> bool:
    return hash_file(path).startswith(sha256)


def _pieces(public: Published, part: Path) -> Iterator[bytes]:
    """Yield what is still missing of a file; a part that does not fit begins anew."""
    have = part.stat().st_size if part.is_file() else 0
    wanted = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(public.address, headers=wanted)  # noqa: S310 - fixed
    try:
        answer = urllib.request.urlopen(request, timeout=PATIENCE)  # noqa: S310 - fixed
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing lies beyond: it was whole
            return
        raise
    with answer:
        if have and answer.status != 206:  # the server cannot go on in the middle
            os.truncate(part, 0)
        yield from _read(answer)


def _read(answer: HTTPResponse) -> Iterator[bytes]:
    expected = answer.length
    while payload := answer.read(PIECE):
        expected = None if expected is None else expected - len(payload)
        yield payload
    if expected:
        raise HTTPException(f"it broke off, {expected:,} bytes are missing")


def _append(path: Path, payload: bytes) -> None:
    with storage_errors(path, len(payload)), path.open("ab") as file:
        file.write(payload)
