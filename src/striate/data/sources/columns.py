"""Further columns of a CSV of images, which say nothing to a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from striate.core.errors import DataError
from striate.core.registry import closest_names
from striate.data.sources.table import read_rows


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the cells of some columns, by image: path as it stands there, column.

    Of repeated rows the first counts, as everywhere.

    Raises:
        DataError: The file cannot be read, or has no such column; lists those it has.
    """
    header, rows = read_rows(path)
    for name in columns:
        if name not in header:
            close = closest_names(name, header)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            what = f"the CSV has no column '{name}'"
            fix = f"{hint}its columns are: {', '.join(header)}"
            raise DataError(what, where=path, fix=fix)
    found: dict[str, dict[str, str]] = {}
    for _, row in rows:
        cells = {name: (row.get(name) or "").strip() for name in columns}
        found.setdefault(row.get("image_path") or "", cells)
    return found
