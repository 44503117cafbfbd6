"""Shards: tar files in which the files of a sample share a name (WebDataset's layout).

A sample is an image with its class beside it (`000.jpg`, `000.cls` or `000.json` with
`label`), or an image in a class folder (`cat/000.jpg`). Tars are only walked through;
nothing is unpacked.
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
from striate.data.sources.remote import is_remote
from striate.data.sources.source import SPLIT_ALIASES, Skipped

IMAGES = {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm"}
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_WORDS = re.compile(r"[a-z]+")
LARGEST_TEXT = 1 << 16
MOST_SHARDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Member:
    """An image in a shard: its name there, class, and the bytes it takes."""

    name: str
    label: str
    offset: int
    size: int


def is_shards(data: str | Path) -> bool:
    """Tell whether DATA names tar shards: a pattern, a file, or a folder of them.

    Example:
        >>> is_shards("photos-{000..099}.tar"), is_shards("photos")
        (True, False)
    """
    text = str(data)
    if text.lower().endswith(".tar"):
        return True
    folder = Path(text)
    # os.path: Path.is_dir raises on a name that is too long for the system.
    if is_remote(text) or not os.path.isdir(text):  # noqa: PTH112
        return False
    names = [path.name.lower() for path in folder.iterdir()]
    seen = [name for name in names if not name.startswith(".")]
    return bool(seen) and all(name.endswith(".tar") for name in seen)


def shard_names(data: str | Path) -> list[str]:
    """Return the shards that DATA names, in order.

    Raises:
        DataError: There are none, or a local one is missing.

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
        what = f"{len(missing)} of {len(names)} shards are not there"
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
        raise DataError(f"{match[0]} names {max(count, 0):,} shards", where=text)
    for number in range(int(first), int(last) + 1):
        name = f"{number:0{len(first)}d}"
        yield from _expanded(text[: match.start()] + name + text[match.end() :])


def split_of(shard: str) -> str | None:
    """Return the part that a shard's name gives it.

    Example:
        >>> split_of("photos-train-000.tar"), split_of("trains-000.tar")
        ('train', None)
    """
    words = _WORDS.findall(shard.rpartition("/")[2].lower())
    splits = [SPLIT_ALIASES[word] for word in words if word in SPLIT_ALIASES]
    return splits[0] if splits else None


def members(path: Path, skipped: list[Skipped]) -> Iterator[Member]:
    """Yield the images of a shard with their classes; tell what else is in it.

    Raises:
        DataError: It is not a tar file, it is cut short, or one of its headers is bad.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            yield from _members(tar, skipped)
            _check_end(tar)
    except (tarfile.TarError, EOFError, OSError) as error:
        what = f"the shard cannot be read: {error}"
        raise DataError(what, where=path, fix="copy or make it again") from error


def _members(tar: tarfile.TarFile, skipped: list[Skipped]) -> Iterator[Member]:
    waiting: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, str] = {}
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # it would remember every one
        stem, _, suffix = info.name.rpartition(".")
        if not info.isreg():
            if not info.isdir():
                reason = "a link, pipe or device"
                skip = Skipped(path=info.name, reason="not-a-file", detail=reason)
                skipped.append(skip)
            continue
        if suffix.lower() in IMAGES:
            waiting[stem] = info
        elif suffix.lower() in ("cls", "json"):
            labels[stem] = _label(tar, info, skipped)
        else:
            skipped.append(Skipped(path=info.name, reason="not-read-here"))
        # A sample's files follow one another: what came before the last is complete.
        for done in [key for key in waiting if key != stem]:
            yield from _complete(done, waiting, labels, skipped)
        for old in [key for key in labels if key != stem]:
            del labels[old]
    for done in list(waiting):
        yield from _complete(done, waiting, labels, skipped)


def _check_end(tar: tarfile.TarFile) -> None:
    """Refuse a damaged header, which tarfile takes for the end of the archive.

    Raises:
        ReadError: What follows the last member is no end.
    """
    file, place = tar.fileobj, tar.offset
    assert file is not None  # noqa: S101 - it is open
    file.seek(place)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"the header at byte {place:,} is damaged")


def _complete(
    stem: str,
    waiting: dict[str, tarfile.TarInfo],
    labels: dict[str, str],
    skipped: list[Skipped],
) -> Iterator[Member]:
    info = waiting.pop(stem)
    folder = stem.rpartition("/")[0].rpartition("/")[2]
    label = labels.pop(stem, "") or folder
    if not label:
        detail = "no .cls or .json beside it, and no class folder"
        skipped.append(Skipped(path=info.name, reason="no-label", detail=detail))
        return
    yield Member(info.name, label, info.offset_data, info.size)


def _label(tar: tarfile.TarFile, info: tarfile.TarInfo, skipped: list[Skipped]) -> str:
    file = tar.extractfile(info) if info.size <= LARGEST_TEXT else None
    try:
        if file is None:
            raise ValueError("too long")
        text = file.read().decode("utf-8").strip()
        if info.name.lower().endswith(".cls"):
            return text
        found = json.loads(text)
        return str(found["label"]) if isinstance(found, dict) else ""
    except (ValueError, KeyError, RecursionError) as error:
        detail = f"{type(error).__name__}: {error}"
        skipped.append(Skipped(path=info.name, reason="no-label", detail=detail))
        return ""
