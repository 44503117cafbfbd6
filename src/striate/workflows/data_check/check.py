"""Function of `data check`: check the images and, optionally, the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from striate.data.check.check import DataCheckResult, check_dataset
from striate.data.check.scan import Tick
from striate.data.sources.source import Source


def check_data(
    data: str | Path | Source,
    *,
    near: bool = True,
    labels: bool = False,
    offline: bool = False,
    since: Mapping[str, str] | None = None,
    workers: int | None = None,
    tick: Tick | None = None,
) -> DataCheckResult:
    """Check a data set before training, without writing files.

    Args:
        data: A data set name, a folder, a CSV, IDX files, tar shards, an address, or a
            source.
        near: Also search for near-duplicates.
        labels: Also search for label errors, by cross-validation; the ranking of all
            images is `label_errors.ranking()`.
        offline: Use pretrained weights only if they are on this machine.
        since: File hashes of an earlier check, to report changed files.
        workers: Number of decoding processes; default: number of CPU cores.
        tick: Called with the numbers (done, total) while decoding, then in training.

    Raises:
        DataError: There is no such data set, or its layout is not supported.

    Example:
        >>> check_data("digits", near=False).ok
        True
    """
    result = check_dataset(data, near=near, since=since, workers=workers, tick=tick)
    if not labels:
        return result
    from striate.workflows.data_check import label_errors  # which brings torch

    return label_errors.find_label_errors(result, offline=offline, tick=tick)
