"""Tar shards in the WebDataset layout: the files of a sample share a base name.

A sample is an image with a class file (`000.jpg`, and `000.cls` or `000.json` with
`label`), or an image in a class folder (`cat/000.jpg`). Tars are read in place; nothing
is unpacked.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from striate.core.errors import DataError
from striate.core.format import count_text
from striate.data.sources.remote import is_remote
from striate.data.sources.source import SPLIT_ALIASES, Skipped

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WORDS = re.compile(r"[a-z]+")
LARGEST_TEXT = 1 << 16
MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class TarMember:
    """An image in a shard: file name, class, and byte range in the tar file."""

    name: str
    label: str
    offset: int
    size: int


def is_shards(data: str | Path) -> bool:
    """Return whether DATA is a pattern, a file or a folder of tar shards.

    Example:
        >>> is_shards("photos-{000..099}.tar"), is_shards("photos")
        (True, False)
    """
    text = str(data)
    if text.lower().endswith(".tar"):
        return True
    # os.path, because Path.is_dir raises on names that are too long for the system.
    if is_remote(text) or not os.path.isdir(text):  # noqa: PTH112
        return False
    try:
        names = [name.lower() for name in os.listdir(text)]  # noqa: PTH208
    except OSError:  # reading the folder will report it
        return False
    visible = [name for name in names if not name.startswith(".")]
    return bool(visible) and all(name.endswith(".tar") for name in visible)


def shard_names(data: str | Path) -> list[str]:
    """Return the names of the shards in DATA, in order.

    Raises:
        DataError: The pattern is invalid, or a local shard is missing.

    Example:
        >>> shard_names("memory://a/p-{08..10}.tar")
        ['memory://a/p-08.tar', 'memory://a/p-09.tar', 'memory://a/p-10.tar']
    """
    text = str(data)
    if not is_remote(text) and Path(text).is_dir():
        return sorted(str(path) for path in Path(text).glob("[!.]*.tar"))
    names = list(_expanded(text))
    missing = [n for n in names if not is_remote(n) and not Path(n).is_file()]
    if missing:
        what = f"missing shards: {len(missing):,} of {len(names):,}"
        raise DataError(what, where=missing[0], fix="check the numbers in the braces")
    return names


def _expanded(text: str) -> Iterator[str]:
    match = _RANGE.search(text)
    if match is None:
        yield text
        return
    first, last = match.groups()
    count = int(last) - int(first) + 1
    if not 0 < count <= MOST_SHARDS:
        what = f"{match[0]} expands to {count_text(max(count, 0), 'shard')}"
        raise DataError(what, where=text, fix=f"use a range of 1 to {MOST_SHARDS:,}")
    for number in range(int(first), int(last) + 1):
        name = f"{number:0{len(first)}d}"
        yield from _expanded(text[: match.start()] + name + text[match.end() :])


def split_of_shard(shard: str) -> str | None:
    """Return the split that a shard's file name contains, or None.

    Example:
        >>> split_of_shard("photos-train-000.tar"), split_of_shard("trains-000.tar")
        ('train', None)
    """
    words = _WORDS.findall(shard.rpartition("/")[2].lower())
    splits = [SPLIT_ALIASES[word] for word in words if word in SPLIT_ALIASES]
    return splits[0] if splits else None


def tar_members(path: Path, skipped: list[Skipped]) -> Iterator[TarMember]:
    """Yield the images of a shard; other files are appended to `skipped`.

    Raises:
        DataError: The file is not a tar file, or is truncated or damaged.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield from _members(tar, skipped)
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        what = f"the shard cannot be read: {error}"
        fix = "copy or create the shard again"
        raise DataError(what, where=path, fix=fix) from error


def _members(tar: tarfile.TarFile, skipped: list[Skipped]) -> Iterator[TarMember]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # else it keeps every member
        stem, _, suffix = info.name.rpartition(".")
        if not info.isreg():
            if not info.isdir():
                reason = "a link, pipe or device"
                skip = Skipped(path=info.name, reason="not-a-file", detail=reason)
                skipped.append(skip)
            continue
        if suffix.lower() in IMAGES:
            images[stem] = info
        elif suffix.lower() in ("cls", "json"):
            labels[stem] = _read_label(tar, info, skipped)
        else:
            skipped.append(Skipped(path=info.name, reason="not-read-here"))
        # The files of a sample follow one another: earlier samples are complete.
        for complete_stem in [key for key in images if key != stem]:
            yield from _complete_sample(complete_stem, images, labels, skipped)
        for old_stem in [key for key in labels if key != stem]:
            del labels[old_stem]
    for complete_stem in list(images):
        yield from _complete_sample(complete_stem, images, labels, skipped)


def _check_end(tar: tarfile.TarFile) -> None:
    """Raise an error for a damaged header, which tarfile takes as the archive's end."""
    file, place = tar.fileobj, tar.offset
    assert file is not None  # noqa: S101 - it is open
    file.seek(place)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"the header at byte {place:,} is damaged")


def _complete_sample(
    stem: str,
    images: dict[str, tarfile.TarInfo],
    labels: dict[str, str],
    skipped: list[Skipped],
) -> Iterator[TarMember]:
    info = images.pop(stem)
    folder = stem.rpartition("/")[0].rpartition("/")[2]
    label = labels.pop(stem, "") or folder
    if not label:
        detail = "no .cls or .json file of the same name, and no class folder"
        skipped.append(Skipped(path=info.name, reason="no-label", detail=detail))
        return
    yield TarMember(info.name, label, info.offset_data, info.size)


def _read_label(
    tar: tarfile.TarFile, info: tarfile.TarInfo, skipped: list[Skipped]
) -> str:
    file = tar.extractfile(info) if info.size <= LARGEST_TEXT else None
    try:
        if file is None:
            raise ValueError("too long")
        text = file.read().decode("utf-8").strip()
        if info.name.lower().endswith(".cls"):
            return text
        content = json.loads(text)
        return str(content["label"]) if isinstance(content, dict) else ""
    except (ValueError, KeyError, RecursionError) as error:
        detail = f"{type(error).__name__}: {error}"
        skipped.append(Skipped(path=info.name, reason="no-label", detail=detail))
        return ""
