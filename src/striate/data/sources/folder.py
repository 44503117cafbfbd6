"""Read an image folder: class folders, optionally inside train, val and test."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.source import SPLIT_ALIASES, Record, Skipped, Source

# Files that operating systems leave behind; never classes or images.
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}

FOLDER_LAYOUT = "use the layout FOLDER/<class>/*.jpg, or FOLDER/train/<class>/*.jpg"


def read_folder(root: Path) -> Source:
    """Return a source of the images below `root`; list all other files as ignored.

    Raises:
        DataError: There are no class folders, or they are empty.
    """
    ignored: list[Skipped] = []
    folders = _subfolders(root, root, ignored)
    if not folders:
        direct = sum(skip.reason == "not-in-a-class-folder" for skip in ignored)
        what = (
            f"no class folders, but {count_text(direct, 'file')} directly in the folder"
        )
        what = what if direct else "the folder is empty"
        raise DataError(what, where=root, fix=FOLDER_LAYOUT)
    if are_splits((folder.name for folder in folders), root):
        records = [
            record
            for folder in folders
            for record in _class_records(
                root,
                _subfolders(folder, root, ignored),
                SPLIT_ALIASES[folder.name.lower()],
                ignored,
            )
        ]
    else:
        records = _class_records(root, folders, None, ignored)
    if not records:
        what = "the class folders are empty"
        raise DataError(what, where=root, fix="add images to them")
    labels = ClassNames.of([record.label for record in records])
    return Source(
        name=root.resolve().name or "data",
        root=root,
        records=tuple(records),
        labels=labels,
        ignored=tuple(ignored),
    )


def are_splits(folders: Iterable[str], where: Path | str) -> bool:
    """Return True if the folder names are splits (`train`, …), False for classes.

    Raises:
        DataError: Some folders are splits and some are not.

    Example:
        >>> are_splits(["train", "valid"], "set"), are_splits(["cat", "dog"], "set")
        (True, False)
    """
    names = {name.lower() for name in folders}
    splits = {SPLIT_ALIASES[name] for name in names if name in SPLIT_ALIASES}
    others = sorted(names - SPLIT_ALIASES.keys())
    if "train" in splits and len(splits) > 1 and others:
        # Otherwise `train` and `test` would be learned as two classes.
        what = f"some folders are not train, val or test: {', '.join(others)}"
        raise DataError(what, where=where, fix="move these folders to another place")
    return "train" in splits and not others


def _class_records(
    root: Path, folders: list[Path], split: str | None, ignored: list[Skipped]
) -> list[Record]:
    records = []
    for folder in folders:
        ancestors = {_identity(root), _identity(folder.parent)}
        paths = _files(folder, root, ignored, ancestors)
        names = [str(path.relative_to(root)) for path in paths]
        records += [Record(path=n, label=folder.name, split=split) for n in names]
        listed = {skip.path for skip in ignored}
        if not names and str(folder.relative_to(root)) not in listed:
            ignored.append(_skip(folder, root, "empty-class-folder"))
    return records


def _subfolders(folder: Path, root: Path, ignored: list[Skipped]) -> list[Path]:
    """Return the class folders of a folder; files outside class folders are ignored."""
    class_folders = []
    for path in _entries(folder, root, ignored):
        if path.is_dir():
            class_folders.append(path)
        else:
            ignored.append(_skip(path, root, "not-in-a-class-folder"))
    return class_folders


def _files(
    folder: Path, root: Path, ignored: list[Skipped], ancestors: set[tuple[int, int]]
) -> Iterator[Path]:
    """Yield all files below a folder; `ancestors` detects loops of symbolic links."""
    if (key := _identity(folder)) in ancestors:
        ignored.append(_skip(folder, root, "link-loop"))
        return
    for path in _entries(folder, root, ignored):
        if path.is_dir():
            yield from _files(path, root, ignored, ancestors | {key})
        else:
            yield path


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path, root: Path, ignored: list[Skipped]) -> list[Path]:
    """Return the sorted entries of a folder, without hidden and system files."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - keeps undecodable bytes
    except OSError as error:
        ignored.append(_skip(folder, root, "unreadable-folder", error.strerror or ""))
        return []
    entries = []
    for name in names:
        path = folder / name
        if name.startswith("."):
            ignored.append(_skip(path, root, "hidden"))
        elif name.lower() in SYSTEM_FILES:
            ignored.append(_skip(path, root, "system-file"))
        elif path.is_symlink() and not path.exists():
            ignored.append(_skip(path, root, "dangling-link"))
        else:
            entries.append(path)
    return entries


def _skip(path: Path, root: Path, reason: str, detail: str = "") -> Skipped:
    return Skipped(path=str(path.relative_to(root)), reason=reason, detail=detail)
