"""Download a public data set into the user's data folder; nothing partial is left."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from striate.core.errors import DataError
from striate.core.files import (
    hash_file,
    make_folder,
    storage_errors,
    sync_folder,
    temporary_name,
)
from striate.core.http_download import locked_folder, missing_bytes
from striate.core.registry import unknown_name_error
from striate.data.sources.downloads import (
    PUBLIC_DATASETS,
    PublicDataset,
    RemoteFile,
    dataset_folders,
)

Tick = Callable[[int, int], None]
MAX_UNPACKED = 4  # an archive of images hardly grows; more is a decompression bomb


def fetch_data(name: str, tick: Tick | None = None) -> tuple[Path, bool]:
    """Download a public data set, and return its folder.

    Args:
        name: A name in `PUBLIC_DATASETS`.
        tick: Called with (bytes downloaded, all bytes).

    Returns:
        The folder, and whether it was downloaded now (False: it was there).

    Raises:
        UnknownNameError: There is no such data set; the message lists similar names.
        DataError: The file cannot be downloaded, or is not the expected file.
        StorageError: The disk is full or cannot be written.
    """
    if name not in PUBLIC_DATASETS:
        raise unknown_name_error("public data set", name, PUBLIC_DATASETS)
    folders = dataset_folders(name)
    existing = next((folder for folder in folders if folder.is_dir()), None)
    if existing is not None:
        return existing, False
    target = folders[0]
    with storage_errors(target, PUBLIC_DATASETS[name].size):
        make_folder(target.parent)
        with locked_folder(target.parent):
            if target.is_dir():  # another process has downloaded it
                return target, False
            _remove_partial(target)  # of a killed process
            try:
                _fetch_into(target, PUBLIC_DATASETS[name], tick)
            finally:
                _remove_partial(target)
    return target, True


def _fetch_into(target: Path, dataset: PublicDataset, tick: Tick | None) -> None:
    """Download into a hidden folder, and rename it when it is complete."""
    partial = temporary_name(target)
    partial.mkdir()
    done = 0
    for file in dataset.files:
        path = partial / file.name
        for count in _download(file, path):
            if tick:
                tick(done + count, dataset.size)
        done += file.size
    if dataset.archive_root:
        (archive,) = (partial / file.name for file in dataset.files)
        _unpack(archive, partial / "unpacked", dataset)
        partial = partial / "unpacked" / dataset.archive_root
    os.replace(partial, target)
    sync_folder(target.parent)


def _remove_partial(target: Path) -> None:
    for folder in target.parent.glob(f".{target.name}.*"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)


def _download(file: RemoteFile, path: Path) -> Iterator[int]:
    """Download one file, and compare its SHA-256; yield the bytes received so far."""
    count = 0
    with path.open("wb") as out, closing(_payloads(file, path)) as payloads:
        for payload in payloads:
            out.write(payload)
            count += len(payload)
            yield count
            if count > file.size:
                break
    if count < file.size:
        what = f"the download of {file.name} was cut short: {count:,} of {file.size:,}"
        raise DataError(f"{what} bytes", where=file.url, fix="run the command again")
    if (sha256 := hash_file(path)) != file.sha256:
        what = f"the download is not {file.name}: its SHA-256 begins {sha256[:8]}"
        what += f", expected {file.sha256[:8]}"
        fix = "run the command again; if the error stays, the file was changed there"
        raise DataError(what, where=file.url, fix=fix)


def _payloads(file: RemoteFile, path: Path) -> Generator[bytes, None, None]:
    try:
        yield from missing_bytes(file.url, path)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # the connection
        reason = getattr(error, "reason", None) or error
        what = f"{file.name} could not be downloaded: {reason}"
        fix = "check the network connection, and run the command again; or download "
        fix += "the data set elsewhere, and give its folder as DATA"
        raise DataError(what, where=file.url, fix=fix) from error


def _unpack(archive: Path, folder: Path, dataset: PublicDataset) -> None:
    """Unpack the class folders of a verified ZIP archive, without metadata files."""
    with zipfile.ZipFile(archive) as images:
        members = [
            member
            for member in images.infolist()
            if member.filename.startswith(f"{dataset.archive_root}/")
            and not Path(member.filename).name.startswith(".")
        ]
        size = sum(member.file_size for member in members)
        if size > MAX_UNPACKED * dataset.size:
            raise DataError(f"{archive.name} would unpack to {size:,} bytes")
        images.extractall(folder, members)
