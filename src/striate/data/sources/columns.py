"""Read additional columns of a CSV data set, which training does not use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from striate.core.errors import DataError
from striate.core.registry import closest_names
from striate.data.sources.csv_rows import read_rows


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the values of some CSV columns, by image path and column name.

    If a path is repeated, its first row is used.

    Raises:
        DataError: The file cannot be read, or a column is missing or not unique.
    """
    header, rows = read_rows(path)
    for name in columns:
        if name not in header:
            suggestions = closest_names(name, header)
            hint = f"did you mean {' or '.join(suggestions)}? " if suggestions else ""
            what = f"the CSV has no column '{name}'"
            fix = f"{hint}its columns are: {', '.join(header)}"
            raise DataError(what, where=path, fix=fix)
        if header.count(name) > 1:
            what = f"the CSV has several columns named '{name}'"
            raise DataError(what, where=path, fix="rename all but one of them")
    cells_by_path: dict[str, dict[str, str]] = {}
    for _, row in rows:
        cells = {name: (row.get(name) or "").strip() for name in columns}
        cells_by_path.setdefault(row.get("image_path") or "", cells)
    return cells_by_path
