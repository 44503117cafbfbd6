"""Shards as a source of files: the tars are walked through, no image is decoded.

`data check` decodes where a decoder may die. So nothing here is dealt by what it shows:
an image has the part that its shard's name gives it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.cache.cache_folder import PassingFolder
from striate.data.decode.file_bytes import MAX_BYTES, UndecodableError
from striate.data.shards.index import Nearby
from striate.data.shards.load import UNCACHED, name_of, origin_of
from striate.data.shards.tars import Member, members, shard_names, split_of
from striate.data.sources.files import Stamp
from striate.data.sources.source import Record, Skipped, Source


@dataclass(frozen=True)
class MemberFiles:
    """Images in tars by the paths of their records.

    Args:
        places: Shard and member of each path.
        nearby: Gives the shards' bytes.
    """

    places: Mapping[str, tuple[str, Member]] = field(repr=False)
    nearby: Nearby = field(repr=False)

    def read(self, path: str) -> bytes:
        """Return an image's bytes.

        Raises:
            UndecodableError: The shard cannot be read, or the image is no image.
        """
        shard, member = self.places[path]
        if not member.size:
            raise UndecodableError("not-an-image", "the file is empty")
        if member.size > MAX_BYTES:
            size = f"{member.size:,} bytes, at most {MAX_BYTES:,}"
            raise UndecodableError("too-large", size)
        try:
            with self.nearby.path(shard).open("rb") as file:
                return os.pread(file.fileno(), member.size, member.offset)
        except FileNotFoundError:
            raise UndecodableError("missing", "the shard is gone") from None
        except (OSError, DataError) as error:
            raise UndecodableError("unreadable", str(error)) from None

    def stamp(self, path: str) -> Stamp | None:
        """Return None: what a tar holds is read again."""
        return None

    def name(self, path: str) -> bytes:
        """Return shard and place."""
        return f"shard {path}".encode("utf-8", "surrogateescape")


def list_shards(data: str | Path) -> Source:
    """Return the images of shards as records named `shard/member`.

    A shard that cannot be walked to its end is quarantined; what came before stays.
    Copies of remote shards are fetched anew and go with the source.

    Raises:
        DataError: There are no shards, or a remote one cannot be had.
    """
    owner = PassingFolder()
    nearby = Nearby(owner.path, UNCACHED, owner)
    places: dict[str, tuple[str, Member]] = {}
    records: list[Record] = []
    skipped: list[Skipped] = []
    # As `origin_of` has them: checked again, an image has the same path.
    for shard in shard_names(origin_of(data)):
        for member in _walked(shard, nearby, skipped):
            path = f"{shard}/{member.name}"
            if path in places:  # a tar may hold a name twice
                path += f"#{member.offset}"
            places[path] = shard, member
            split = split_of(shard)
            records.append(Record(path=path, label=member.label, split=split))
    return Source(
        name=name_of(data),
        records=tuple(records),
        labels=ClassNames.of([record.label for record in records]),
        files=MemberFiles(places, nearby),
        quarantined=tuple(skipped),
    )


def _walked(shard: str, nearby: Nearby, skipped: list[Skipped]) -> list[Member]:
    """Return a shard's images; what else is in it joins `skipped`."""
    local = nearby.path(shard)
    found: list[Member] = []
    passed: list[Skipped] = []
    broken: list[Skipped] = []
    try:
        for member in members(local, passed):
            found.append(member)  # noqa: PERF402 - it may break off
    except DataError as error:
        broken.append(Skipped(path=shard, reason="damaged", detail=error.what))
    skipped += [replace(skip, path=f"{shard}/{skip.path}") for skip in passed] + broken
    return found
