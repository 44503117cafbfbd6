"""Download pretrained weights once, and verify them by SHA-256."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

from striate.core.errors import WeightsError
from striate.core.files import hash_file, make_folder, storage_errors, sync_folder
from striate.models.pretrained_registry import PretrainedFile

CHUNK = 1 << 20
TIMEOUT = 30.0  # seconds without a byte
PARTIAL = ".part"  # suffix of unfinished downloads


def local_file(
    public: PretrainedFile, folder: Path | None, *, offline: bool = False
) -> Path:
    """Return the local path of pretrained weights; download them if necessary.

    The file is searched in its Python package, in the cache `folder` and in
    the download folder of `torch.hub`. With `offline`, nothing is downloaded.

    Raises:
        WeightsError: The file is not available, or its hash is wrong.
    """
    if (path := _packaged(public) or _in_torch_hub(public)) is not None:
        return path
    if folder is None:
        what = f"{public.file} is not on this machine, and there is no cache folder"
        raise WeightsError(what, where=public.url, fix=_by_hand(public))
    path = folder / public.file
    if path.is_file() and _is_right(path, public.sha256):
        return path
    if offline:
        what = f"{public.file} is not on this machine, and --offline is set"
        raise WeightsError(what, where=path, fix=_by_hand(public))
    return download(public, path)


def location(public: PretrainedFile, folder: Path | None) -> str:
    """Return where pretrained weights are, such as "cache" or "not downloaded"."""
    if _packaged(public) is not None:
        return f"package {public.package}"
    if _in_torch_hub(public) is not None:
        return "torch.hub"
    if folder is not None and (folder / public.file).is_file():
        return "cache"
    return "not downloaded"


def download(public: PretrainedFile, path: Path) -> Path:
    """Download pretrained weights to a path; continue an interrupted download.

    Raises:
        WeightsError: The publisher cannot be reached, or the hash is wrong.
        StorageError: The file could not be written.
    """
    make_folder(path.parent)
    with _locked(path.parent):
        if path.is_file() and _is_right(path, public.sha256):
            return path  # another process has downloaded it
        return _downloaded(public, path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Context manager: lock a folder, so that only one process downloads into it.

    On a file system without locks, two simultaneous downloads damage each other's file;
    the hash check then reports an error.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _downloaded(public: PretrainedFile, path: Path) -> Path:
    part = path.with_name(path.name + PARTIAL)
    try:
        with storage_errors(part, 0):
            part.touch()
        for payload in _missing(public, part):
            with storage_errors(part, len(payload)), part.open("ab") as file:
                file.write(payload)
    except (urllib.error.URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", None) or error
        what = f"{public.file} could not be downloaded: {reason}"
        partial = part.is_file() and part.stat().st_size > 0
        if not partial:
            part.unlink(missing_ok=True)
        again = "run the command again to continue the download, or " if partial else ""
        fix = f"{again}{_by_hand(public)}"
        raise WeightsError(what, where=public.url, fix=fix) from error
    if not _is_right(part, public.sha256):
        sha256 = hash_file(part)
        part.unlink()
        what = f"the download is not {public.file}: its SHA-256 begins {sha256[:8]}"
        fix = f"try again, or {_by_hand(public)}"
        raise WeightsError(what, where=public.url, fix=fix)
    with storage_errors(path, part.stat().st_size):
        os.replace(part, path)
        sync_folder(path.parent)
    return path


def _by_hand(public: PretrainedFile) -> str:
    return f"download {public.file} by hand and use --pretrained PATH"


def _packaged(public: PretrainedFile) -> Path | None:
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


def _in_torch_hub(public: PretrainedFile) -> Path | None:
    """Return the file in the download folder of `torch.hub`, if it is intact there."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    path = home / "hub" / "checkpoints" / public.file
    return path if path.is_file() and _is_right(path, public.sha256) else None


def _is_right(path: Path, sha256: str) -> bool:
    return hash_file(path).startswith(sha256)


def _missing(public: PretrainedFile, part: Path) -> Iterator[bytes]:
    """Yield the missing bytes of a download; all bytes if the server cannot resume."""
    start = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(public.url, headers=headers)  # noqa: S310 - fixed
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310 - fixed
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is missing
            return
        raise
    with answer:
        if start and answer.status != 206:  # the server cannot send a part
            os.truncate(part, 0)
        left = answer.length
        while payload := answer.read(CHUNK):
            left = None if left is None else left - len(payload)
            yield payload
        if left:
            raise HTTPException(f"the connection broke off: {left:,} bytes are missing")
