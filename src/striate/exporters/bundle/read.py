"""Reader of bundles. Nothing of a bundle is used before all of it is checked."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from striate.core.errors import RunError
from striate.core.files import (
    create_file,
    make_folder,
    storage_errors,
    sync_folder,
    temporary_name,
)
from striate.core.format import count_text
from striate.core.preprocess_config import Preprocess
from striate.exporters.bundle import contents as names
from striate.exporters.bundle.arrays import arrays_from_bytes, refuse_nonfinite
from striate.exporters.bundle.check_bundle import CheckedBundle, check_bundle
from striate.exporters.bundle.errors import DAMAGED, BundleError
from striate.exporters.bundle.strict_json import json_from_bytes
from striate.exporters.graph import NetworkGraph


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle; every byte of it is checked.

    Raises:
        BundleError: The file is missing, damaged, forged, or made by a newer striate.
    """
    path = Path(path)
    with _opened(path) as file:
        checked = check_bundle(file, os.fstat(file.fileno()).st_size)
    return Bundle(path, checked)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; errors of the bundle get its path."""
    try:
        # Without O_NONBLOCK the open of a pipe waits for a writer.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BundleError("not a file", fix="give the name of a bundle")
            yield file
    except BundleError as error:
        raise BundleError(error.what, where=path, fix=error.fix) from error
    except OSError as error:
        what = f"the bundle cannot be read: {error.strerror}"
        raise BundleError(what, where=path, fix="check its name") from error


class Bundle:
    """A bundle that `open_bundle` has checked; large files are read when needed."""

    def __init__(self, path: Path, checked: CheckedBundle) -> None:
        self.path = path
        self._checked = checked

    def __repr__(self) -> str:
        classes = count_text(len(self.classes), "class", "classes")
        return f"Bundle({str(self.path)!r}, {classes})"

    @property
    def manifest(self) -> dict[str, Any]:
        """Format version, size and hash of every entry, versions of the packages."""
        return self._checked.manifest

    @property
    def entry_names(self) -> list[str]:
        """Names of all entries."""
        return list(self._checked.entries)

    @property
    def preprocess(self) -> Preprocess:
        """Conversion from an image file to a network input."""
        return self._checked.preprocess

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs."""
        return self._checked.classes

    @property
    def calibration(self) -> dict[str, Any]:
        """Temperature, threshold, and other values of `calibration.json`."""
        return self._checked.fields[names.CALIBRATION]

    @property
    def card(self) -> str:
        """Model card in Markdown."""
        return self._checked.card

    @property
    def certificate(self) -> dict[str, Any]:
        """Results of the comparison of all targets."""
        return self._checked.fields[names.CERTIFICATE]

    @property
    def provenance(self) -> dict[str, Any]:
        """Origin of the network: data, settings, software."""
        return self._checked.fields[names.PROVENANCE]

    @cached_property
    def graph(self) -> NetworkGraph:
        """The network with its weights.

        Raises:
            BundleError: A weight is NaN or infinite.
        """
        weights = self._arrays(names.WEIGHTS)
        fields = json_from_bytes(self.read(names.NETWORK), names.NETWORK)
        return NetworkGraph.from_dict(fields, weights)

    @property
    def golden_names(self) -> list[str]:
        """File names of the golden images."""
        return self._names_in(names.GOLDEN, names.GOLDEN_ARRAYS)

    def golden_image(self, name: str) -> bytes:
        """Return the file of a golden image."""
        return self.read(names.GOLDEN + name)

    @cached_property
    def golden_arrays(self) -> dict[str, np.ndarray]:
        """Expected inputs, logits and probabilities of the golden images."""
        return self._arrays(names.GOLDEN_ARRAYS)

    @property
    def target_names(self) -> list[str]:
        """File names of the targets."""
        return self._names_in(names.TARGETS)

    def target(self, name: str) -> bytes:
        """Return the file of a target."""
        return self.read(names.TARGETS + name)

    def _names_in(self, folder: str, *without: str) -> list[str]:
        inside = [
            n for n in self.entry_names if n.startswith(folder) and n not in without
        ]
        return [name.removeprefix(folder) for name in inside]

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        arrays = arrays_from_bytes(self.read(name), name)
        try:
            refuse_nonfinite(arrays, name)
        except BundleError as error:
            raise BundleError(error.what, where=self.path, fix=error.fix) from error
        return arrays

    def read(self, name: str) -> bytes:
        """Return one entry; its hash is checked again.

        Raises:
            BundleError: There is no such entry, or the file has changed.
        """
        entry = self._checked.entries.get(name)
        if entry is None:
            fix = f"choose one of: {', '.join(self.entry_names)}"
            raise BundleError(f"no entry {name!r}", where=self.path, fix=fix)
        with _opened(self.path) as file:
            file.seek(entry.start)
            payload = file.read(entry.size)
        digest = hashlib.sha256(payload).hexdigest()
        if digest != self._checked.hashes[name]:
            what = f"entry {name!r} has changed since the bundle was opened"
            raise BundleError(what, where=self.path, fix=DAMAGED)
        return payload

    def extract(self, folder: str | Path) -> None:
        """Write all entries to a new folder: after an error it does not exist.

        Raises:
            RunError: The folder exists.
            StorageError: The write failed.
        """
        folder = Path(folder)
        if os.path.lexists(folder):
            what, fix = "the output folder already exists", "choose another name"
            raise RunError(what, where=folder, fix=fix)
        size = sum(entry.size for entry in self._checked.entries.values())
        with storage_errors(folder, size):
            make_folder(folder.parent)
            temporary = temporary_name(folder)
            try:
                self._write_entries(temporary)
                temporary.rename(folder)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
            sync_folder(folder.parent)

    def _write_entries(self, folder: Path) -> None:
        folders = {folder}
        for name in self.entry_names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            folders.add(target.parent)
            create_file(target, self.read(name))
        for each in sorted(folders, reverse=True):
            sync_folder(each)
