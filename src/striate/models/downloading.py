"""Download pretrained weights once, and verify them by SHA-256."""

from __future__ import annotations

import importlib.metadata
import os
import urllib.error
from http.client import HTTPException
from pathlib import Path

from striate.core.errors import WeightsError
from striate.core.files import hash_file, make_folder, storage_errors, sync_folder
from striate.core.http_download import locked_folder, missing_bytes
from striate.models.pretrained_registry import PretrainedFile

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
    with locked_folder(path.parent):
        if path.is_file() and _is_right(path, public.sha256):
            return path  # another process has downloaded it
        return _downloaded(public, path)


def _downloaded(public: PretrainedFile, path: Path) -> Path:
    part = path.with_name(path.name + PARTIAL)
    try:
        with storage_errors(part, 0):
            part.touch()
        for payload in missing_bytes(public.url, part):
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
