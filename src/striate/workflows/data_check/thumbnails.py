"""Thumbnails of a checked data set: color images for the HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from striate.core.findings import Image, Images
from striate.data.check.check import DataCheckResult
from striate.data.check.finding import ImageGroup
from striate.data.check.image_stats import ExaminedImage, preview_pixels
from striate.data.check.sandbox import PREVIEWER
from striate.data.check.scan import examine_records
from striate.interpret.render import tile, to_image, to_rgb

SIDE_BY_SIDE = 4  # images shown of a group
DISPLAY_SIDE = 96  # display size of small images in pixels
WIDE_DISPLAY_SIDE = 144  # display size with a caption
GAP = 2

Thumbnails = Mapping[int, np.ndarray]


def load_previews(result: DataCheckResult, positions: Sequence[int]) -> Thumbnails:
    """Load thumbnails, (H, W, 3) pixels by image index; skip missing files."""
    source = result.source
    records = [result.items[i].record for i in positions]
    if source.arrays is not None:
        paths = (record.path for record in source.records)
        rows = dict(zip(paths, source.arrays, strict=True))
        pairs = zip(positions, records, strict=True)
        return {i: to_rgb(preview_pixels(rows[record.path])) for i, record in pairs}
    answers = examine_records(source, records, program=PREVIEWER)
    return {
        i: to_rgb(answer.view)
        for i, answer in zip(positions, answers, strict=True)
        if isinstance(answer, ExaminedImage)
    }


def common_folder(result: DataCheckResult) -> str:
    """Return the common parent folder of all image paths.

    The result is empty if the paths have no common folder.
    """
    folders = {tuple(item.record.path.split("/")[:-1]) for item in result.items}
    # Not `os.path.commonpath`, which takes a slash out of an address.
    levels = (set(names) for names in zip(*folders, strict=False))
    shared = takewhile(lambda names: len(names) == 1, levels)
    return "".join(f"{names.pop()}/" for names in shared)


def group_gallery(
    result: DataCheckResult,
    groups: Sequence[ImageGroup],
    thumbnails: Thumbnails,
    note: str,
    folder: str,
    side: int = DISPLAY_SIDE,
) -> Images | None:
    """Return a gallery of image groups, with the thumbnails of a group side by side."""
    images, shown = [], []
    for group in groups:
        members = [i for i in group.members if i in thumbnails][:SIDE_BY_SIDE]
        if members:
            images.append(_group_image(result, group, members, thumbnails, folder))
            shown += members
    if not images:
        return None
    scale = _scale(shown, thumbnails, side)
    return Images(images=tuple(images), scale=scale, note=note)


def _scale(
    members: Sequence[int], thumbnails: Thumbnails, side: int = DISPLAY_SIDE
) -> int:
    largest = max(int(max(thumbnails[i].shape[:2])) for i in members)
    return max(1, side // largest)


def _group_image(
    result: DataCheckResult,
    group: ImageGroup,
    members: Sequence[int],
    thumbnails: Thumbnails,
    folder: str,
) -> Image:
    pixels = thumbnails[members[0]]
    if len(members) > 1:
        height = max(thumbnails[i].shape[0] for i in members)
        width = max(thumbnails[i].shape[1] for i in members)
        cells = [_pad(thumbnails[i], height, width) for i in members]
        pixels = tile(cells, len(cells), GAP)
    paths = [result.items[i].record.path.removeprefix(folder) for i in members]
    rest = len(group.members) - len(members)
    caption = ", ".join(paths) + (f", {rest:,} more" if rest else "")
    return to_image(pixels, caption, _detail(result, group, members))


def _pad(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pad an image with transparent pixels on the right and at the bottom."""
    canvas = np.zeros((height, width, 4), np.uint8)
    rows, columns = pixels.shape[:2]
    canvas[:rows, :columns, :3] = pixels
    canvas[:rows, :columns, 3] = 255
    return canvas


def _detail(result: DataCheckResult, group: ImageGroup, members: Sequence[int]) -> str:
    records = [result.items[i].record for i in members]
    labels = list(dict.fromkeys(record.label for record in records))
    splits = list(dict.fromkeys(record.split for record in records if record.split))
    if group.note.startswith(f"label {labels[0]},"):
        labels = []  # the note of a label error starts with it
    texts = [" | ".join(labels), " | ".join(splits), group.note]
    return " · ".join(text for text in dict.fromkeys(texts) if text)


def class_gallery(
    thumbnails: Thumbnails, members: Sequence[int], title: str
) -> Images | None:
    """Return a gallery of example images of a class, without captions."""
    loaded = [i for i in members if i in thumbnails]
    if not loaded:
        return None
    images = tuple(to_image(thumbnails[i]) for i in loaded)
    return Images(images=images, title=title, scale=_scale(loaded, thumbnails))
