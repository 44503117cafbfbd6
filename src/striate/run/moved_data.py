"""Data set that was moved after training: recognize its images by their hashes."""

from __future__ import annotations

import os

from striate.core.errors import DataError
from striate.data.image_data import ImageData
from striate.data.sources.named import NAMED
from striate.data.sources.remote import is_remote
from striate.data.split.split_file import read_split_rows
from striate.run import layout as names
from striate.run.lost_data import is_lost
from striate.run.manifest import update_manifest
from striate.run.run import Run


def use_moved_data(run: Run, data: str) -> ImageData | None:
    """Read the images of a run from a new place, and record the place in the run.

    The old place must be gone, and the new place must have the same images: each image
    of the run is compared by its hash. Missing and changed images are quarantined.

    Returns:
        The images with the splits of the run; None if `data` is another data set.
    """
    if not is_lost(run.origin) or data in NAMED or is_remote(data):
        return None
    origin = os.path.abspath(data)  # noqa: PTH100 - keeps symbolic links
    try:
        images = run.read_again(origin=origin)
    except DataError:
        return None  # not one image of the run is there
    before = {
        row["image_path"]: row["content"]
        for row in read_split_rows(run.path / names.SPLIT)
    }
    same = sum(before.get(row.path) == row.content for row in images.rows)
    if same < len(images.rows) or 2 * same < len(before):
        return None
    facts = run.manifest["data"]
    record = {**facts, "source": origin, "moved_from": facts["source"]}
    update_manifest(run.path, data=record)
    run.__dict__.pop("manifest", None)
    run.data = images
    return images
