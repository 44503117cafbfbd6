"""List the images in tar shards without decoding, for `data check`.

`data check` decodes in processes that may crash. So splits are not assigned by image
hash here: an image has the split in its shard's name, or none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from striate.core.class_names import ClassNames
from striate.core.errors import DataError
from striate.data.cache.cache_folder import TemporaryFolder
from striate.data.decode.file_bytes import MAX_BYTES, UndecodableError
from striate.data.shards.index import LocalShards
from striate.data.shards.load import UNCACHED, shards_name, shards_origin
from striate.data.shards.tars import TarMember, shard_names, split_of_shard, tar_members
from striate.data.sources.files import Stamp
from striate.data.sources.source import Record, Skipped, Source


@dataclass(frozen=True)
class MemberFiles:
    """Reader of images in tar shards, by record path."""

    # shard and tar member of each path
    places: Mapping[str, tuple[str, TarMember]] = field(repr=False)
    local_shards: LocalShards = field(repr=False)  # provider of local copies of shards

    def read(self, path: str) -> bytes:
        """Return the bytes of an image.

        Raises:
            UndecodableError: The shard is unreadable; the image is empty or too large.
        """
        shard, member = self.places[path]
        if not member.size:
            raise UndecodableError("not-an-image", "the file is empty")
        if member.size > MAX_BYTES:
            size = f"{member.size:,} bytes, at most {MAX_BYTES:,}"
            raise UndecodableError("too-large", size)
        try:
            with self.local_shards.path(shard).open("rb") as file:
                return os.pread(file.fileno(), member.size, member.offset)
        except FileNotFoundError:
            raise UndecodableError("missing", "the shard does not exist") from None
        except (OSError, DataError) as error:
            raise UndecodableError("unreadable", str(error)) from None

    def stamp(self, path: str) -> Stamp | None:
        """Return None, because changes of an image in a tar file cannot be detected."""
        return None

    def name(self, path: str) -> bytes:
        """Return the unique name of an image: its shard and member."""
        return f"shard {path}".encode("utf-8", "surrogateescape")


def list_shards(data: str | Path) -> Source:
    """Return a source of the images in shards, with paths `shard/member`.

    A shard that cannot be read to its end is quarantined; images before the error are
    used. Remote shards are downloaded, and removed together with the source.

    Raises:
        DataError: There are no shards, or one cannot be downloaded.
    """
    owner = TemporaryFolder()
    local_shards = LocalShards(owner.path, UNCACHED, owner)
    places: dict[str, tuple[str, TarMember]] = {}
    records: list[Record] = []
    skipped: list[Skipped] = []
    # Absolute, so that images have the same paths in another check.
    for shard in shard_names(shards_origin(data)):
        for member in _list_images(shard, local_shards, skipped):
            path = f"{shard}/{member.name}"
            if path in places:  # a name may occur twice in a tar
                path += f"#{member.offset}"
            places[path] = shard, member
            split = split_of_shard(shard)
            records.append(Record(path=path, label=member.label, split=split))
    return Source(
        name=shards_name(data),
        records=tuple(records),
        labels=ClassNames.of([record.label for record in records]),
        files=MemberFiles(places, local_shards),
        quarantined=tuple(skipped),
    )


def _list_images(
    shard: str, local_shards: LocalShards, skipped: list[Skipped]
) -> list[TarMember]:
    """Return the images of a shard; other files are appended to `skipped`."""
    local = local_shards.path(shard)
    images: list[TarMember] = []
    other_files: list[Skipped] = []
    errors: list[Skipped] = []
    try:
        for member in tar_members(local, other_files):
            images.append(member)  # noqa: PERF402 - it may raise in between
    except DataError as error:
        errors.append(Skipped(path=shard, reason="damaged", detail=error.what))
    skipped += [replace(skip, path=f"{shard}/{skip.path}") for skip in other_files]
    skipped += errors
    return images
