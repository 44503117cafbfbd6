"""Writer of bundles: the same contents give the same bytes."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from striate.core.files import refuse_existing, write_bytes
from striate.exporters.bundle import contents as names
from striate.exporters.bundle.arrays import arrays_to_bytes, refuse_nonfinite
from striate.exporters.bundle.check_bundle import FORMAT, check_bundle
from striate.exporters.bundle.contents import BundleContents, position_of
from striate.exporters.bundle.stored_zip import stored_zip
from striate.exporters.bundle.strict_json import json_to_bytes


def write_bundle(
    contents: BundleContents, path: str | Path, overwrite: bool = False
) -> None:
    """Write a bundle, atomically; `open_bundle` reads it.

    Args:
        contents: What the bundle is made of.
        path: The file, usually `NAME.striate`.
        overwrite: Replace an existing file.

    Raises:
        RunError: The file exists.
        BundleError: The contents do not fit together, or are too large.
        StorageError: The write failed; an existing file is unchanged.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    payload = bundle_bytes(contents)
    check_bundle(
        io.BytesIO(payload), len(payload)
    )  # what cannot be read is not written
    write_bytes(path, payload)


def bundle_bytes(contents: BundleContents) -> bytes:
    """Return the bytes of a bundle.

    Raises:
        BundleError: The contents cannot be written.
    """
    files = _files(contents)
    entries = [
        {
            "name": name,
            "size": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        for name, payload in files
    ]
    versions = dict(contents.versions)
    manifest = {"format": FORMAT, "entries": entries, "versions": versions}
    return stored_zip([(names.MANIFEST, json_to_bytes(manifest)), *files])


def _files(contents: BundleContents) -> list[tuple[str, bytes]]:
    """Return all files but the manifest, in order."""
    weights = contents.graph.constants
    refuse_nonfinite(weights, names.WEIGHTS)
    files = {
        names.WEIGHTS: arrays_to_bytes(weights),
        names.CARD: contents.card.encode(),
        names.GOLDEN_ARRAYS: arrays_to_bytes(contents.golden_arrays),
    }
    files |= {name: json_to_bytes(value) for name, value in contents.json_files()}
    files |= {
        names.GOLDEN + name: image for name, image in contents.golden_images.items()
    }
    files |= {names.TARGETS + name: file for name, file in contents.targets.items()}
    return sorted(files.items(), key=lambda item: position_of(item[0]))
