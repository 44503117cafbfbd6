"""Read and write the split file `split.csv`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.core.errors import DataError
from striate.core.files import read_csv, write_csv
from striate.data.sources.csv_rows import read_rows
from striate.data.sources.source import SPLIT_ALIASES, SPLITS, UNUSED, Record
from striate.data.split.path_matcher import PathMatcher

SPLIT_FILE = "split.csv"
SPLIT_COLUMNS = ("image_path", "label", "split", "group", "content", "sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRow:
    """Row of `split.csv`: an image, its split, and its hashes.

    The split is train, val, test, or unused for a training image outside the fraction.
    `content` is a hash of the pixels, `sha256` of the file (empty without a file).
    """

    path: str
    label: str
    split: str
    group: str
    content: str
    sha256: str = ""


def write_split(path: Path, rows: Sequence[SplitRow]) -> None:
    """Write a split atomically; `read_split` reads it.

    Raises:
        StorageError: The file cannot be written.
    """
    lines = ((r.path, r.label, r.split, r.group, r.content, r.sha256) for r in rows)
    write_csv(path, SPLIT_COLUMNS, lines)


def read_split_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a split file; the column of the paths is `image_path`.

    In files of earlier versions, this column has the name `path`.
    """
    return [_renamed(row) for row in read_csv(path)]


def _renamed(row: dict[str, str]) -> dict[str, str]:
    if "image_path" in row or "path" not in row:
        return row
    return {"image_path": row["path"], **{k: v for k, v in row.items() if k != "path"}}


@dataclass(frozen=True, kw_only=True)
class EarlierSplit:
    """Earlier split, as lookup tables by file, group and content hash."""

    origin: Path  # file that the split was read from
    # path → (content hash or '', split)
    files: Mapping[str, tuple[str, str]] = field(repr=False)
    # group → split, for groups in a single split
    groups: Mapping[str, str] = field(repr=False)
    # content hash → split, the most protected one if there are several
    contents: Mapping[str, str] = field(repr=False)

    def split_of(self, record: Record, content: str) -> str | None:
        """Return the earlier split of an image, found by file, content or group.

        A file with changed content is a new image, even with the same name.
        """
        known_content, split = self.files.get(record.path, ("", ""))
        if split and known_content in ("", content):
            return split
        if record.group and record.group in self.groups:
            return self.groups[record.group]
        return self.contents.get(content)

    def matched_to(self, paths: Collection[str], root: Path | None) -> EarlierSplit:
        """Return the split with its paths written as in the data set.

        A CSV may have absolute paths, paths from the folder of the CSV or the current
        folder, `./`, backslashes, or other capital letters.
        """
        matcher = PathMatcher(paths, root, self.origin.parent)
        files: dict[str, tuple[str, str]] = {}
        for name, entry in self.files.items():
            files.setdefault(matcher.match(name), entry)
        return replace(self, files=files)

    @property
    def splits(self) -> set[str]:
        """Return the names of the splits that have images."""
        return {split for _, split in self.files.values()}

    def count_missing(self, records: Sequence[Record], contents: Sequence[str]) -> int:
        """Count images of the earlier split whose path and content no longer exist."""
        paths, hashes = {record.path for record in records}, set(contents)
        return sum(
            path not in paths and content not in hashes
            for path, (content, _) in self.files.items()
        )


def read_split(source: str | Path) -> EarlierSplit:
    """Read `split.csv` of a run, or any CSV with the columns image_path and split.

    Args:
        source: A run folder, or a CSV with the columns `image_path` (earlier: `path`)
            and `split`; optional columns `group` and `content` match renamed files.

    Raises:
        DataError: The file is missing, lacks a column, or has an unknown split.
    """
    path = Path(source)
    path = path / SPLIT_FILE if path.is_dir() else path
    files: dict[str, tuple[str, str]] = {}
    groups: dict[str, set[str]] = defaultdict(set)
    contents: dict[str, set[str]] = defaultdict(set)
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        subset = _split(row, where)
        content = row.get("content") or ""
        entry = files.setdefault(row.get("image_path") or "", (content, subset))
        if entry[1] != subset:
            what = f"{row['image_path']} is in two splits: {entry[1]} and {subset}"
            raise DataError(what, where=where, fix="remove one of the two lines")
        if content:
            contents[content].add(subset)
        if group := row.get("group"):
            groups[group].add(subset)
    return EarlierSplit(
        origin=path,
        files=files,
        groups={name: min(s) for name, s in groups.items() if len(s) == 1},
        contents={key: max(s, key=SPLITS.index) for key, s in contents.items()},
    )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    fix = "use a run folder, or a CSV with the columns image_path,split"
    if not path.is_file():
        raise DataError("there is no split file", where=path, fix=fix)
    header, rows = read_rows(path, errors="surrogateescape")
    if "split" not in header or not {"path", "image_path"} & set(header):
        what = "a split file needs the columns image_path and split, got: "
        raise DataError(f"{what}{', '.join(header)}", where=path, fix=fix)
    return [(line, _renamed(row)) for line, row in rows]


def _split(row: Mapping[str, str], where: str) -> str:
    value = (row.get("split") or "").strip().lower()
    split = "train" if value == UNUSED else SPLIT_ALIASES.get(value)
    if split is None:
        fix = f"use {', '.join(SPLITS)} or {UNUSED}"
        raise DataError(f"unknown split '{value}'", where=where, fix=fix)
    return split
