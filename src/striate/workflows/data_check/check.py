"""`data check` in one call: what images show, and what networks make of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from striate.data.check import check
from striate.data.check.check import Checked
from striate.data.check.scan import Tick
from striate.data.sources.source import Source


def check_data(
    data: str | Path | Source,
    *,
    near: bool = True,
    labels: bool = False,
    since: Mapping[str, str] | None = None,
    workers: int | None = None,
    tick: Tick | None = None,
) -> Checked:
    """Check a set of images without writing anything.

    Args:
        data: A named set, a folder, a CSV, IDX files, shards, an address, or a source.
        near: Look for near-duplicates too.
        labels: Train small networks too, and tell which labels they doubt; the ranking
            of all images is then `doubts.ranking()`.
        since: Hashes of an earlier check, to tell what changed.
        workers: Decoding processes; as many as processors where not given.
        tick: Called with (done, all) while decoding, and again while training.

    Raises:
        DataError: Nothing is there, or its layout is not one that is read.

    Example:
        >>> check_data("digits", near=False).good
        True
    """
    found = check.check_data(data, near=near, since=since, workers=workers, tick=tick)
    if not labels:
        return found
    from striate.workflows.data_check.label_errors import (
        doubt_labels,  # which brings torch
    )

    return doubt_labels(found, tick=tick)
