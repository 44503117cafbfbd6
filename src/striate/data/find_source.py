"""Open DATA: a data set name, folder, CSV, IDX files, tar shards or address."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from striate.core.errors import DataError
from striate.core.registry import closest_names
from striate.data.shards.tars import is_shards
from striate.data.sources.folder import read_folder
from striate.data.sources.idx import has_idx, read_idx
from striate.data.sources.lookalike_classes import lookalike_warnings
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote, read_remote
from striate.data.sources.source import Source
from striate.data.sources.table import read_table


def find_source(data: str | Path, multi_label: bool = False) -> Source:
    """Open a data set by name or path; a known name takes precedence over a path.

    The source has a warning for each group of class names that look the same. With
    `multi_label`, images of a CSV may have several labels, or none.

    Raises:
        DataError: The path does not exist, or its layout is not supported.
    """
    source = _open_source(data, multi_label)
    warnings = lookalike_warnings(source.labels.names)
    return replace(source, warnings=(*source.warnings, *warnings))


def _open_source(data: str | Path, multi_label: bool = False) -> Source:
    if str(data) in NAMED:
        return NAMED[str(data)]()
    if is_shards(data):
        from striate.data.shards.load import shard_source  # imports torch

        return shard_source(data)
    if is_remote(data):
        return read_remote(str(data))
    path = Path(data)
    try:
        exists = path.exists()
    except OSError as error:  # a name too long, a folder that may not be entered
        what = f"cannot read this path: {error.strerror}"
        raise DataError(what, where=path) from error
    if not exists:
        folder = path.parent
        neighbors: list[str] = []
        with suppress(OSError):
            neighbors = [p.name for p in folder.iterdir()]
        close = closest_names(path.name, [*NAMED, *neighbors])
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        fix = f"{hint}named data sets: {', '.join(NAMED)}"
        raise DataError(f"no such file, folder or data set: {path}", fix=fix)
    if path.is_dir():
        return read_idx(path) if has_idx(path) else read_folder(path)
    if path.suffix.lower() in (".csv", ".tsv"):
        return read_table(path, multi_label)
    if "idx" in path.name and has_idx(path.parent):
        return read_idx(path.parent)
    fix = "use a folder of class folders, a .csv, IDX files, or a named data set: "
    what = f"'{path.name}' is not a supported data layout"
    raise DataError(what, where=path, fix=fix + ", ".join(NAMED))
