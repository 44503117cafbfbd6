"""A split as a CSV: written once, read again, and old images stay put."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from striate.core.errors import DataError
from striate.core.files import read_csv, write_csv
from striate.data.sources.source import SPLIT_ALIASES, SPLITS, Record

SPARE = "spare"  # training images that a fraction leaves out
FILE = "split.csv"
COLUMNS = ("path", "label", "split", "group", "content", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """A line of `split.csv`: a usable image, its part, and what identifies it.

    The part is train, val, test, or spare for a training image beyond the fraction.
    `content` is a hash of what it shows, `sha256` of its file (empty without one).
    """

    path: str
    label: str
    split: str
    group: str
    content: str
    sha256: str = ""


def write_split(path: Path, rows: Sequence[SplitRow]) -> None:
    """Write a split whole or not at all; `read_earlier` reads it.

    Raises:
        StorageError: The disk refused.
    """
    lines = ((r.path, r.label, r.split, r.group, r.content, r.sha256) for r in rows)
    write_csv(path, COLUMNS, lines)


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Where images stood: by file, by group, by content.

    Args:
        origin: The file it was read from.
        files: Path → (content hash or '', part).
        groups: Group → part, of groups that stood in one part only.
        contents: Content hash → part, the most protected where there are several.
    """

    origin: Path
    files: Mapping[str, tuple[str, str]] = field(repr=False)
    groups: Mapping[str, str] = field(repr=False)
    contents: Mapping[str, str] = field(repr=False)

    def place(self, record: Record, content: str) -> str | None:
        """Return the part an image had, or that its group or its equal had.

        A file whose content has changed is another image, whatever its name.
        """
        known, split = self.files.get(record.path, ("", ""))
        if split and known in ("", content):
            return split
        if record.group and record.group in self.groups:
            return self.groups[record.group]
        return self.contents.get(content)

    @property
    def splits(self) -> set[str]:
        """Return the parts that have images."""
        return {split for _, split in self.files.values()}

    def gone(self, records: Sequence[Record], contents: Sequence[str]) -> int:
        """Count the earlier images that are there no more, under any name."""
        paths, hashes = {record.path for record in records}, set(contents)
        return sum(
            path not in paths and content not in hashes
            for path, (content, _) in self.files.items()
        )


def read_earlier(place: str | Path) -> Earlier:
    """Read `split.csv` of a run, or any CSV with a path and a split column.

    Args:
        place: A run folder, or the CSV. Columns `path` (or `image_path`) and `split`;
            `group` and `content`, where there are any, find renamed files too.

    Raises:
        DataError: It is not there, lacks a column, or names an unknown part.
    """
    path = Path(place)
    path = path / FILE if path.is_dir() else path
    files: dict[str, tuple[str, str]] = {}
    groups: dict[str, set[str]] = defaultdict(set)
    contents: dict[str, set[str]] = defaultdict(set)
    for line, row in enumerate(_rows(path), 2):
        subset = _split(row, f"{path}, line {line}")
        name, content = row.get("path") or row["image_path"], row.get("content") or ""
        files[name] = content, subset
        if content:
            contents[content].add(subset)
        if group := row.get("group"):
            groups[group].add(subset)
    return Earlier(
        origin=path,
        files=files,
        groups={group: min(had) for group, had in groups.items() if len(had) == 1},
        contents={key: max(had, key=SPLITS.index) for key, had in contents.items()},
    )


def _rows(path: Path) -> list[dict[str, str]]:
    fix = "give a run folder, or a CSV with the columns path,split"
    if not path.is_file():
        raise DataError("no split is there", where=path, fix=fix)
    try:
        rows = read_csv(path)
    except (OSError, csv.Error) as error:
        raise DataError(f"not a split: {error}", where=path, fix=fix) from error
    have = rows[0].keys() if rows else set()
    if "split" not in have or not have & {"path", "image_path"}:
        what = f"a split needs the columns path and split; got: {', '.join(have)}"
        raise DataError(what, where=path, fix=fix)
    return rows


def _split(row: Mapping[str, str], where: str) -> str:
    said = (row.get("split") or "").strip().lower()
    split = "train" if said == SPARE else SPLIT_ALIASES.get(said)
    if split is None:
        fix = f"use {', '.join(SPLITS)} or {SPARE}"
        raise DataError(f"split cannot be '{said}'", where=where, fix=fix)
    return split
