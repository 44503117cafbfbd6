"""Read an image folder: class folders, optionally inside train, val and test."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.source import SPLIT_ALIASES, Record, Skipped, Source

# Files that operating systems leave behind; never classes or images.
SYSTEM_FILES = {"thumbs.db", "desktop.ini", "__macosx"}

# reasons to ignore a folder or a file
UNREADABLE, DANGLING = "unreadable-folder", "dangling-link"
FOLDER_LAYOUT = "use the layout FOLDER/<class>/*.jpg, or FOLDER/train/<class>/*.jpg"


def read_folder(root: Path) -> Source:
    """Return a source of the images below `root`; list all other files as ignored.

    Raises:
        DataError: There are no class folders, or they are empty.
    """
    ignored: list[Skipped] = []
    folders = _subfolders(root, root, ignored)
    if not folders:
        raise _no_class_folders(root, ignored)
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
        raise _no_class_folders(root, ignored)
    labels = ClassNames.of([record.label for record in records])
    return Source(
        name=root.resolve().name or "data",
        root=root,
        records=tuple(records),
        labels=labels,
        ignored=tuple(ignored),
        warnings=_unreadable_folders(ignored),
    )


def _no_class_folders(root: Path, ignored: Sequence[Skipped]) -> DataError:
    """Return the error for a folder without images in class folders."""
    unreadable = [skip for skip in ignored if skip.reason == UNREADABLE]
    if unreadable:
        where = root / unreadable[0].path
        what = f"the folder cannot be read: {unreadable[0].detail}"
        return DataError(what, where=where, fix="check its permissions")
    direct = sum(skip.reason == "not-in-a-class-folder" for skip in ignored)
    if direct:
        what = f"no class folders, but {count_text(direct, 'file')} directly in the "
        return DataError(f"{what}folder", where=root, fix=FOLDER_LAYOUT)
    if any(skip.reason == "empty-class-folder" for skip in ignored):
        what = "the class folders are empty"
        return DataError(what, where=root, fix="add images to them")
    return DataError("the folder is empty", where=root, fix=FOLDER_LAYOUT)


def _unreadable_folders(ignored: Sequence[Skipped]) -> tuple[str, ...]:
    """Return a warning for each folder whose images are missing from the data set."""
    return tuple(
        f"the folder {skip.path} cannot be read ({skip.detail}): its images are missing"
        for skip in ignored
        if skip.reason == UNREADABLE
    )


def are_splits(folders: Iterable[str], where: Path | str) -> bool:
    """Return True if the folder names are splits (`train`, …), False for classes.

    Raises:
        DataError: Some folders are splits and some are not.

    Example:
        >>> are_splits(["train", "valid"], "set"), are_splits(["cat", "dog"], "set")
        (True, False)
        >>> are_splits(["test"], "set")
        True
    """
    names = {name.lower() for name in folders}
    splits = {SPLIT_ALIASES[name] for name in names if name in SPLIT_ALIASES}
    others = sorted(names - SPLIT_ALIASES.keys())
    if len(splits) > 1 and others:
        # Otherwise `train` and `test` would be learned as two classes.
        what = f"some folders are not train, val or test: {', '.join(others)}"
        raise DataError(what, where=where, fix="move these folders to another place")
    return bool(splits) and not others


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
        if os.path.isdir(path):  # noqa: PTH112 - False without permission to look
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
        if os.path.isdir(path):  # noqa: PTH112 - as above
            yield from _files(path, root, ignored, ancestors | {key})
        else:
            yield path


def files_below(folder: Path) -> list[Path]:
    """Return all files below a folder, also those that cannot be read.

    These are links to missing files, pipes, and folders without permission. Hidden and
    system files are left out.
    """
    ignored: list[Skipped] = []
    files = list(_files(folder, folder, ignored, set()))
    reasons = (UNREADABLE, DANGLING)
    lost = [folder / skip.path for skip in ignored if skip.reason in reasons]
    return sorted([*files, *lost])


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path, root: Path, ignored: list[Skipped]) -> list[Path]:
    """Return the sorted entries of a folder, without hidden and system files."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - keeps undecodable bytes
    except OSError as error:
        ignored.append(_skip(folder, root, UNREADABLE, error.strerror or ""))
        return []
    entries = []
    for name in names:
        path = folder / name
        if name.startswith("."):
            ignored.append(_skip(path, root, "hidden"))
        elif name.lower() in SYSTEM_FILES:
            ignored.append(_skip(path, root, "system-file"))
        elif os.path.islink(path) and not os.path.exists(path):  # noqa: PTH110, PTH114
            ignored.append(_skip(path, root, DANGLING))
        else:
            entries.append(path)
    return entries


def _skip(path: Path, root: Path, reason: str, detail: str = "") -> Skipped:
    return Skipped(path=str(path.relative_to(root)), reason=reason, detail=detail)
