"""IDX files: the file format of MNIST and Fashion-MNIST (LeCun, 1998)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.source import Source, from_arrays

_PREFIXES = {"train": "train", "t10k": "test", "test": "test", "val": "val"}
_UNSIGNED_BYTE = 0x08


def has_idx(folder: Path) -> bool:
    """Return whether a folder contains IDX images."""
    return _locate(folder, "train", "images") is not None


def read_idx(folder: Path, names: tuple[str, ...] | None = None) -> Source:
    """Read the images and labels of all splits from IDX files, gzipped or not.

    Raises:
        DataError: A file is missing or damaged, or images and labels do not match.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    splits: list[str] = []
    for prefix, split in _PREFIXES.items():
        image_file = _locate(folder, prefix, "images")
        label_file = _locate(folder, prefix, "labels")
        if image_file is None:
            continue
        if label_file is None:
            raise DataError(f"the IDX file {prefix}-labels is missing", where=folder)
        pixels = _read(image_file, dimensions=3)
        numbers = _read(label_file, dimensions=1)
        if len(pixels) != len(numbers):
            what = (
                f"{count_text(len(pixels), 'image')} but "
                f"{count_text(len(numbers), 'label')} in '{prefix}'"
            )
            raise DataError(what, where=folder)
        if images and pixels.shape[1:] != images[0].shape[1:]:
            sides = pixels.shape[1:]
            what = f"'{prefix}' images are {sides}, unlike the training images"
            raise DataError(what, where=folder)
        images.append(pixels)
        labels.append(numbers)
        splits += [split] * len(pixels)
    numbers = np.concatenate(labels)
    if not len(numbers):
        raise DataError("the IDX files contain no images", where=folder)
    classes = names or tuple(str(n) for n in range(int(numbers.max()) + 1))
    if numbers.max() >= len(classes):
        what = (
            f"found label {numbers.max()}, but there are only "
            f"{count_text(len(classes), 'class', 'classes')}"
        )
        raise DataError(what, where=folder, fix="copy the files again")
    return from_arrays(
        folder.resolve().name,
        np.concatenate(images),
        [classes[n] for n in numbers],
        classes=ClassNames(classes),
        splits=splits,
    )


def _locate(folder: Path, prefix: str, kind: str) -> Path | None:
    paths = sorted(folder.glob(f"{prefix}-{kind}*idx*"))
    return paths[0] if paths else None


def _read(path: Path, dimensions: int) -> np.ndarray:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"the file is damaged: {error}", where=path) from error
    if len(raw) < 4 or raw[:3] != bytes((0, 0, _UNSIGNED_BYTE)) or raw[3] != dimensions:
        what = (
            "not an IDX file of unsigned bytes in "
            f"{count_text(dimensions, 'dimension')}"
        )
        raise DataError(what, where=path)
    head = 4 + 4 * dimensions
    sides = struct.unpack(f">{dimensions}I", raw[4:head].ljust(head - 4, b"\xff"))
    if len(raw) - head != math.prod(sides):
        what = f"expected {math.prod(sides):,} bytes of data, got {len(raw) - head:,}"
        raise DataError(what, where=path, fix="copy the file again")
    return np.frombuffer(raw, np.uint8, offset=head).reshape(sides)
