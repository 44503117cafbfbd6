"""Read a CSV with the columns image_path,label[,split,group], such as split.csv."""

from __future__ import annotations

from pathlib import Path

from striate.core.errors import DataError
from striate.core.registry import closest_names
from striate.data.sources.csv_rows import (
    OF_SPLIT_FILES,
    OPTIONAL,
    REQUIRED,
    read_rows,
)
from striate.data.sources.label_sets import class_names_of, read_label_sets
from striate.data.sources.source import SPLIT_ALIASES, UNUSED, Record, Skipped, Source


def read_table(path: Path, multi_label: bool = False) -> Source:
    """Read records from a CSV; image paths are relative to the CSV's folder.

    A repeated row is ignored and listed. An image with two labels, splits or groups is
    quarantined, because the correct value is unknown. A warning lists unknown columns.
    With `multi_label`, images may have several labels even if no label has a `;`.

    Raises:
        DataError: The file is not UTF-8, lacks a column or rows, or has a bad split.
    """
    header, rows, multi_label = read_label_sets(*read_rows(path), multi_label)
    warnings = _check_columns(header, path)
    records: dict[str, Record] = {}
    ignored: list[Skipped] = []
    conflicts: dict[str, Skipped] = {}
    for number, row in rows:
        if (row.get("split") or "").strip().lower() == UNUSED:
            skip = Skipped(path=row.get("image_path") or "", reason=UNUSED)
            ignored.append(skip)
            continue
        record = _record(row, number, path, multi_label)
        first = records.setdefault(record.path, record)
        if first is record:
            continue
        if conflict := _conflict(first, record, number):
            conflicts.setdefault(record.path, conflict)
        skip = Skipped(path=record.path, reason="duplicate-row", detail=f"{number}")
        ignored.append(skip)
    usable = tuple(r for r in records.values() if r.path not in conflicts)
    if not usable:
        raise DataError("the CSV has no usable rows", where=path)
    return Source(
        name=path.stem,
        root=path.parent,
        records=usable,
        labels=class_names_of([record.label for record in usable], multi_label),
        ignored=tuple(ignored),
        quarantined=tuple(conflicts.values()),
        warnings=warnings,
    )


def _conflict(first: Record, other: Record, line: int) -> Skipped | None:
    """Return the conflict between two rows of an image, or None if the rows agree."""
    for key, word in (("label", "labeled"), ("split", "split"), ("group", "group")):
        before, now = getattr(first, key) or "", getattr(other, key) or ""
        if before != now:
            detail = f"{word} '{before}' and '{now}' (line {line})"
            return Skipped(path=first.path, reason=f"two-{key}s", detail=detail)
    return None


def _check_columns(header: list[str], path: Path) -> tuple[str, ...]:
    expected = (*REQUIRED, *OPTIONAL, *OF_SPLIT_FILES)
    extra = [name for name in header if name not in expected]
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        similar = [n for name in missing for n in closest_names(name, extra, 1)]
        similar = [n for n in extra if closest_names(n, missing)] or similar
        rename = f"rename '{similar[0]}'; " if similar else ""
        what = f"missing column: {' and '.join(missing)}; got: {', '.join(header)}"
        fix = f"{rename}the columns are image_path,label[,split,group]"
        raise DataError(what, where=path, fix=fix)
    if not extra:
        return ()
    return (f"unknown columns of {path.name} are ignored: {', '.join(extra)}",)


def _record(
    row: dict[str, str], number: int, path: Path, multi_label: bool = False
) -> Record:
    name, label = (row.get(key) or "" for key in REQUIRED)
    may_be_empty = multi_label and row.get("label") is not None
    if not name or not (label or may_be_empty):
        what = f"line {number} has no path or no label"
        fix = "complete or delete the line"
        if name:
            fix += "; for images with several labels or none, name the column 'labels'"
        raise DataError(what, where=path, fix=fix)
    split = (row.get("split") or "").strip().lower()
    if split and split not in SPLIT_ALIASES:
        what = f"line {number} has an unknown split '{split}'"
        fix = "use train, val or test, or leave it empty"
        raise DataError(what, where=path, fix=fix)
    return Record(
        path=name,
        label=label,
        split=SPLIT_ALIASES.get(split),
        group=row.get("group") or None,
    )
