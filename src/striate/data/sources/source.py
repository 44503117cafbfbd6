"""A source of images: records in a fixed order, and skipped files with reasons."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.format import count_text
from striate.data.decode.file_bytes import UndecodableError
from striate.data.sources.files import Files, LocalFiles

SPLITS = ("train", "val", "test")
UNUSED = "unused"  # in split.csv: training images outside the fraction
SPLIT_ALIASES = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Record of an image: path, class, and optional split and group.

    `path` is relative to the source's root, or `set/number` for sets of arrays.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """File that is not used: path, short reason and detail."""

    path: str
    reason: str
    detail: str = ""

    @classmethod
    def of(cls, path: str, error: UndecodableError) -> Skipped:
        """Create a `Skipped` from the error of a file that cannot be decoded."""
        return cls(path=path, reason=error.reason, detail=error.detail)

    def as_dict(self) -> dict[str, str]:
        """Return path, reason and detail as JSON values."""
        values = {"reason": self.reason, "detail": self.detail}
        return {"image_path": self.path, **values}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data set before decoding: records of images in a fixed order."""

    name: str  # short name of the set
    records: tuple[Record, ...]  # one per image
    labels: ClassNames  # class names in output order
    # folder that the records' paths are relative to; None for arrays
    root: Path | None = None
    # reader of the files; None for local files below `root`
    files: Files | None = field(default=None, repr=False)
    # pixels (N, height, width, channels), row i for records[i], or None
    arrays: np.ndarray | None = field(default=None, repr=False)
    ignored: tuple[Skipped, ...] = ()  # files that do not belong to the data set
    # files that should be images but cannot be used
    quarantined: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()  # warnings for the user, as sentences

    @property
    def reader(self) -> Files:
        """Return the object that reads the image files of this data source."""
        if self.files is not None:
            return self.files
        if self.root is None:
            raise TypeError("a source of arrays has no files")
        return LocalFiles(self.root)

    @property
    def class_folders(self) -> str:
        """Return the folder with the class folders if it is below `root`, else ''.

        This happens if an archive was unpacked into one more folder. All images then
        seem to have one class.

        Example:
            >>> paths = "photos/cat/1.png", "photos/dog/1.png"
            >>> records = tuple(Record(path=p, label="photos") for p in paths)
            >>> root, labels = Path("set"), ClassNames(("photos",))
            >>> source = Source(name="", records=records, labels=labels, root=root)
            >>> source.class_folders
            'set/photos'
        """
        folders = {posixpath.dirname(record.path) for record in self.records}
        if self.root is None or any(map(posixpath.isabs, folders)):
            return ""
        common = posixpath.commonpath(folders)
        names = {record.label for record in self.records}
        nested = len(names) == 1 and names <= set(common.split("/"))
        return "" if common in folders or not nested else str(self.root / common)

    def take(self, index: Sequence[int], records: Sequence[Record]) -> Self:
        """Return a source of the images at the given indices, with these records."""
        arrays = None if self.arrays is None else self.arrays[list(index)]
        return replace(self, records=tuple(records), arrays=arrays)

    def payload(self, index: int) -> bytes:
        """Return the bytes of a record's file.

        Raises:
            UndecodableError: The file cannot be read.
        """
        return self.reader.read(self.records[index].path)


def from_arrays(
    name: str,
    images: np.ndarray,
    labels: Sequence[str | int],
    *,
    classes: ClassNames | None = None,
    splits: Sequence[str] | None = None,
) -> Source:
    """Create a source from images in memory.

    Args:
        name: Prefix of the records' paths.
        images: 8-bit pixels, (N, height, width) or (N, height, width, channels).
        labels: A class name, an integer or a boolean for each image.
        classes: Classes in output order; sorted names by default.
        splits: `train`, `val` or `test` for each image, if the set has splits.

    Example:
        >>> gray = np.zeros((2, 4, 4), np.uint8)
        >>> from_arrays("toy", gray, ["a", "b"]).arrays.shape
        (2, 4, 4, 1)
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        shape = f"{images.dtype} of {count_text(images.ndim, 'dimension')}"
        raise ValueError(f"images must be uint8 (N, H, W[, C]), got {shape}")
    if len(images) != len(labels):
        raise ValueError(
            f"{count_text(len(images), 'image')} but {count_text(len(labels), 'label')}"
        )
    names = [_class_name(label) for label in labels]
    width = len(str(len(images) - 1))
    split_or_none: Sequence[str | None] = splits or [None] * len(names)
    records = tuple(
        Record(path=f"{name}/{i:0{width}d}", label=label, split=split)
        for i, (label, split) in enumerate(zip(names, split_or_none, strict=True))
    )
    return Source(
        name=name,
        records=records,
        labels=classes or ClassNames.of(names),
        arrays=images if images.ndim == 4 else images[..., None],
    )


def _class_name(label: Any) -> str:
    """Return a label as a class name; True and False are the classes 1 and 0."""
    if isinstance(label, str):
        return str(label)  # NumPy's strings, too
    number = label.item() if hasattr(label, "item") else label
    if isinstance(number, float) and not number.is_integer():
        what = f"labels must be class names or integers, got {number!r}"
        raise ValueError(what)
    return number if isinstance(number, str) else str(int(number))
