"""Check of a whole bundle: every byte, and whether its files fit together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from striate.core.errors import StriateError
from striate.core.preprocess_config import Preprocess
from striate.exporters.bundle import contents as names
from striate.exporters.bundle.arrays import ArraySpec, array_specs, header_length
from striate.exporters.bundle.errors import DAMAGED, BundleError
from striate.exporters.bundle.stored_zip import StoredZip, ZipEntry
from striate.exporters.bundle.strict_json import MAX_JSON, json_from_bytes
from striate.exporters.check_graph import check_graph

FORMAT = 1  # a newer format is refused; an older one has to stay readable
MAX_CARD = 1 << 20  # bytes
MAX_CLASS_NAME = 1000  # characters
MAX_SMALL_JSON = 1 << 19  # bytes of a JSON file other than the network
_JSON_FILES = (
    *(names.PREPROCESS, names.CLASSES, names.CALIBRATION),
    *(names.CERTIFICATE, names.PROVENANCE),
)
_INTEGERS = "channels", "height", "width", "background", "white_level"


@dataclass(frozen=True)
class CheckedBundle:
    """The small files of a bundle, and where its entries are."""

    manifest: dict[str, Any]
    entries: dict[str, ZipEntry]
    hashes: dict[str, str]  # also of the manifest
    fields: dict[str, dict[str, Any]]  # values of the JSON files, without the network
    card: str
    preprocess: Preprocess
    classes: tuple[str, ...]


def check_bundle(file: BinaryIO, size: int) -> CheckedBundle:
    """Check a bundle, and read its small files.

    Structure and sizes are checked before anything large is read, and every hash before
    the result is returned.

    Args:
        file: The bundle, open for reading.
        size: Its size in bytes.

    Raises:
        BundleError: The bundle is damaged, forged, or too new.
    """
    archive = StoredZip(file, size)
    manifest = _manifest(archive)
    archive.check()
    entries = {entry.name: entry for entry in archive.entries}
    hashes = _hashes(manifest, archive)
    fields = {name: _object(archive, entries[name]) for name in _JSON_FILES}
    golden = _specs(archive, entries[names.GOLDEN_ARRAYS])
    shape, count = _check_network(archive, entries)
    card = _card(archive, entries[names.CARD])
    preprocess = _preprocess(fields[names.PREPROCESS], shape)
    classes = _classes(fields[names.CLASSES], count)
    _check_golden(entries, golden, count)
    for name, entry in entries.items():
        digest = hashlib.sha256()
        for chunk in archive.chunks(entry):
            digest.update(chunk)
        if digest.hexdigest() != hashes.setdefault(name, digest.hexdigest()):
            raise _damaged(f"entry {name!r} is damaged: its hash differs")
    return CheckedBundle(manifest, entries, hashes, fields, card, preprocess, classes)


def _damaged(what: str) -> BundleError:
    return BundleError(what, fix=DAMAGED)


def _manifest(archive: StoredZip) -> dict[str, Any]:
    """Return the manifest; its format is checked before anything else."""
    entry = archive.entries[0] if archive.entries else None
    if entry is None or (entry.name, entry.offset) != (names.MANIFEST, 0):
        raise _damaged(f"no bundle: its first entry is not {names.MANIFEST}")
    archive.check_record(0)
    manifest = _object(archive, entry)
    number = manifest.get("format")
    if type(number) is not int or number < 1:
        raise _damaged(f"{names.MANIFEST} has no format")
    if number > FORMAT:
        versions = manifest.get("versions")
        made = str(versions.get("striate", "")) if isinstance(versions, dict) else ""
        what = f"made by a newer striate {made[:20]}".rstrip()
        what += f": format {number}, this version reads {FORMAT}"
        raise BundleError(what, fix="update striate: pip install -U striate")
    return manifest


def _object(archive: StoredZip, entry: ZipEntry) -> dict[str, Any]:
    """Return the value of a JSON file that holds an object."""
    limit = MAX_JSON if entry.name == names.NETWORK else MAX_SMALL_JSON
    if entry.size > limit:
        raise _damaged(f"{entry.name} is not valid: {entry.size:,} bytes")
    value = json_from_bytes(archive.read(entry), entry.name, limit)
    if not isinstance(value, dict):
        raise _damaged(f"{entry.name} is not valid: it holds no object")
    return value


def _hashes(manifest: Mapping[str, Any], archive: StoredZip) -> dict[str, str]:
    """Return the hashes by name; the manifest must name all entries in order."""
    entries = archive.entries[1:]
    expected: list[dict[str, Any]] = [
        {"name": entry.name, "size": entry.size} for entry in entries
    ]
    listed = manifest.get("entries")
    if manifest.keys() != {"format", "entries", "versions"} or not isinstance(
        manifest["versions"], dict
    ):
        raise _damaged(f"{names.MANIFEST} has other keys than those of a bundle")
    if not isinstance(listed, list) or len(listed) != len(expected):
        raise _damaged(f"{names.MANIFEST} does not list the entries of the file")
    hashes: dict[str, str] = {}
    for item, entry in zip(listed, expected, strict=True):
        digest = item.get("sha256") if isinstance(item, dict) else None
        if not isinstance(digest, str) or item != {**entry, "sha256": digest}:
            raise _damaged(f"{names.MANIFEST} and entry {entry['name']!r} disagree")
        hashes[entry["name"]] = digest
    _check_entries(list(hashes))
    return hashes


def _check_entries(entries: list[str]) -> None:
    """Check that no file is missing, additional, or at another place."""
    for name in sorted(names.REQUIRED - {names.MANIFEST} - {*entries}):
        raise _damaged(f"{name} is missing")
    try:
        ordered = sorted(entries, key=names.position_of)
    except ValueError:
        places = {part for part in names.ORDER if part.endswith("/")}
        other = [n for n in entries if n not in names.REQUIRED]
        alien = next(n for n in other if n.partition("/")[0] + "/" not in places)
        raise _damaged(f"{alien!r} is not a file of a bundle") from None
    if ordered != entries:
        raise _damaged("its entries are not in order")


def _specs(archive: StoredZip, entry: ZipEntry) -> dict[str, ArraySpec]:
    """Return what a safetensors file contains; only its header is read."""
    count = header_length(archive.begin(entry, 8), entry.name)
    return array_specs(archive.begin(entry, count), entry.size, entry.name)


def _check_network(
    archive: StoredZip, entries: Mapping[str, ZipEntry]
) -> tuple[tuple[int, ...], int]:
    """Check the graph; return the shape of an input image and the number of outputs."""
    specs = _specs(archive, entries[names.WEIGHTS])
    fields = _object(archive, entries[names.NETWORK])
    shapes = {name: spec.shape for name, spec in specs.items()}
    _translated(names.NETWORK, lambda: check_graph(fields, shapes))
    declared = fields["shapes"]
    return tuple(declared[fields["input"]][1:]), declared[fields["output"]][-1]


def _translated(name: str, check: Callable[[], Any]) -> Any:
    """Return the result of a check; its errors become errors of the bundle."""
    try:
        return check()
    except StriateError as error:
        where = f" in {error.where}" if error.where else ""
        raise _damaged(f"{name} is not valid: {error.what}{where}") from error
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise _damaged(f"{name} is not valid: {error}") from error


def _card(archive: StoredZip, entry: ZipEntry) -> str:
    if entry.size > MAX_CARD:
        raise _damaged(f"{entry.name} is not valid: {entry.size:,} bytes")
    text: str = _translated(entry.name, lambda: archive.read(entry).decode("utf-8"))
    if not all(line.isprintable() for line in text.replace("\t", " ").split("\n")):
        raise _damaged(f"{entry.name} is not valid: it holds control characters")
    return text


def _preprocess(fields: Mapping[str, Any], shape: tuple[int, ...]) -> Preprocess:
    preprocess: Preprocess = _translated(
        names.PREPROCESS, lambda: Preprocess.from_dict(fields)
    )
    if any(type(fields.get(key, 0)) is not int for key in _INTEGERS):
        raise _damaged(f"{names.PREPROCESS} is not valid: a size is not an integer")
    if preprocess.spec.shape != shape:
        what = f"{names.PREPROCESS} gives {preprocess.spec}, the network needs "
        raise _damaged(f"{what}{'×'.join(map(str, shape))}")
    return preprocess


def _classes(fields: Mapping[str, Any], count: int) -> tuple[str, ...]:
    classes = fields.get("names")
    valid = isinstance(classes, list) and all(
        isinstance(name, str) and 0 < len(name) <= MAX_CLASS_NAME for name in classes
    )
    if not valid or not isinstance(classes, list) or fields.keys() != {"names"}:
        raise _damaged(f"{names.CLASSES} is not valid: no class names")
    if len(classes) != count or len({*classes}) != count:
        what = f"{len({*classes})} distinct classes, the network has {count}"
        raise _damaged(f"{names.CLASSES} is not valid: {what}")
    return tuple(classes)


def _check_golden(
    entries: Mapping[str, ZipEntry], specs: Mapping[str, ArraySpec], count: int
) -> None:
    """Check that the golden arrays have a row for each golden image."""
    images = [n for n in entries if n.startswith(names.GOLDEN)]
    rows = len(images) - 1
    if names.INPUTS not in specs or not rows:
        raise _damaged(f"{names.GOLDEN_ARRAYS} has no golden images")
    for name, spec in specs.items():
        if spec.shape[:1] != (rows,):
            what = f"array {name!r} has shape {list(spec.shape)}, not {[rows, '…']}"
            raise _damaged(f"{names.GOLDEN_ARRAYS}: {what}")
    for name in (names.LOGITS, names.PROBABILITIES):
        if name not in specs or specs[name].shape != (rows, count):
            raise _damaged(f"{names.GOLDEN_ARRAYS}: array {name!r} does not fit")
