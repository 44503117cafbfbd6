"""Apply an earlier split: assign the same images to the same splits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from striate.data.scan import MISSING
from striate.data.sources.source import Skipped, Source


def apply_split(source: Source, split_by_path: Mapping[str, str]) -> Source:
    """Return a source with the given splits; images without a split are ignored."""
    given = {i: r for i, r in enumerate(source.records) if r.path in split_by_path}
    records = [replace(r, split=split_by_path[r.path]) for r in given.values()]
    skipped = [
        Skipped(path=record.path, reason="not-in-split")
        for record in source.records
        if record.path not in split_by_path
    ]
    ignored = (*source.ignored, *skipped)
    return replace(source.take(list(given), records), ignored=ignored)


def missing_files(source: Source, split_by_path: Mapping[str, str]) -> list[Skipped]:
    """Return the files of an earlier split that no longer exist."""
    paths = {record.path for record in source.records}
    detail = "the file existed when the split was made"
    return [
        Skipped(path=path, reason=MISSING, detail=detail)
        for path in split_by_path
        if path not in paths
    ]
