"""Read the rows of a CSV, whatever its delimiter is and however it writes paths."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.label_sets import SEVERAL

REQUIRED = ("image_path", "label")
OPTIONAL = ("split", "group")
OF_SPLIT_FILES = ("content", "sha256")  # hashes, which are computed again
# `path` is the column `image_path` in split files of earlier versions.
_KNOWN = (*REQUIRED, SEVERAL, *OPTIONAL, *OF_SPLIT_FILES, "path")
_DELIMITERS = ",;\t|"

Row = dict[str, str]


def read_rows(
    path: Path, errors: str = "strict"
) -> tuple[list[str], list[tuple[int, Row]]]:
    """Return the columns of a CSV, and its rows with their line numbers.

    The delimiter is a comma, semicolon, tab or `|`. Spaces after it are ignored if the
    header or all labels have them. Windows' backslashes in paths become slashes.

    Args:
        path: The CSV, in UTF-8.
        errors: How Python decodes bytes that are not UTF-8.

    Raises:
        DataError: The file cannot be read, is not a CSV in UTF-8, has a known column
            twice, or has a row with more values than columns.
    """
    try:
        header, rows = _parse(path, errors, strip=False)
        if _all_labels_have_spaces(rows):
            header, rows = _parse(path, errors, strip=True)
    except UnicodeDecodeError as error:
        what = f"the CSV is not UTF-8: {error.reason} at byte {error.start}"
        raise DataError(what, where=path, fix="save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(f"not a CSV: {error}", where=path) from error
    except OSError as error:
        what = f"cannot read the CSV: {error.strerror}"
        raise DataError(what, where=path) from error
    _check_rows(rows, len(header), path)
    _use_slashes(rows, path.parent)
    return header, rows


def _parse(
    path: Path, errors: str, strip: bool
) -> tuple[list[str], list[tuple[int, Row]]]:
    with path.open(newline="", encoding="utf-8-sig", errors=errors) as file:
        first = file.readline()
        delimiter = _delimiter(first)
        strip = strip or f"{delimiter} " in first
        file.seek(0)
        reader: Any = csv.DictReader(file, delimiter=delimiter, skipinitialspace=strip)
        header = _column_names(list(reader.fieldnames or ()), path)
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    return header, rows


def _delimiter(header: str) -> str:
    """Return the delimiter that gives the most known columns, else the most columns.

    Example:
        >>> _delimiter("image_path;label"), _delimiter("file,class"), _delimiter("a|b")
        (';', ',', '|')
    """

    def score(delimiter: str) -> tuple[int, int]:
        names = next(csv.reader([header], delimiter=delimiter), [])
        known = sum(name.strip().lower() in _KNOWN for name in names)
        return known, len(names)

    return max(_DELIMITERS, key=score)


def _column_names(names: list[str], path: Path) -> list[str]:
    """Return the column names; known ones without spaces and in lower case."""
    plain = [name.strip() for name in names]
    renamed = [n.lower() if n.lower() in _KNOWN else n for n in plain]
    counts = Counter(renamed)
    twice = [name for name in _KNOWN if counts[name] > 1]
    if twice:
        what = f"the CSV has several columns named '{twice[0]}'"
        raise DataError(what, where=path, fix="rename or remove all but one of them")
    return renamed


def _all_labels_have_spaces(rows: list[tuple[int, Row]]) -> bool:
    """Return whether all rows have a space between the delimiter and the label."""
    labels = [row.get("label") or "" for _, row in rows]
    return bool(labels) and all(label.startswith(" ") for label in labels)


def _check_rows(rows: list[tuple[int, Row]], columns: int, path: Path) -> None:
    """Raise an error for a row with more values than columns: a comma in a name."""
    for number, row in rows:
        # DictReader collects surplus values under None; empty ones are harmless.
        surplus: list[str] = row.pop(None, [])  # type: ignore[call-overload]
        if any(value.strip() for value in surplus):
            values = count_text(columns + len(surplus), "value")
            what = f"line {number} has {values} for {count_text(columns, 'column')}"
            fix = 'put values that contain the delimiter in quotes: "a, b.jpg"'
            raise DataError(what, where=path, fix=fix)


def _use_slashes(rows: list[tuple[int, Row]], folder: Path) -> None:
    """Replace backslashes in paths, unless a file with a backslash exists."""
    if os.sep == "\\":
        return
    for _, row in rows:
        name = row.get("image_path") or ""
        if "\\" in name and not os.path.lexists(f"{folder}/{name}".replace("\0", "")):
            row["image_path"] = name.replace("\\", "/")
