"""Small images in color of chosen places in a set, read again from its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile

import numpy as np

from striate.core.findings import Image, Images
from striate.data.check.check import Checked
from striate.data.check.finding import Group
from striate.data.check.measure import Examined, preview_pixels
from striate.data.check.sandbox import PREVIEWER
from striate.data.check.scan import examine_records
from striate.interpret.render import tile, to_image

SIDE_BY_SIDE = 4  # images of a group that are shown
SHOWN_SIDE = 96  # pixels on the screen that small images are enlarged to
WIDE_SIDE = 144  # with a sentence beneath
GAP = 2

Previews = Mapping[int, np.ndarray]


def previews(found: Checked, positions: Sequence[int]) -> Previews:
    """Return (H, W, 3) pixels for each position; a file gone meanwhile has none."""
    source = found.source
    if source.arrays is not None:
        rows = {record.path: row for row, record in enumerate(source.records)}
        places = [rows[found.items[i].record.path] for i in positions]
        return {
            i: _colored(preview_pixels(source.arrays[row]))
            for i, row in zip(positions, places, strict=True)
        }
    records = [found.items[i].record for i in positions]
    answers = examine_records(source, records, program=PREVIEWER)
    return {
        i: _colored(answer.view)
        for i, answer in zip(positions, answers, strict=True)
        if isinstance(answer, Examined)
    }


def _colored(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[-1] == 3:
        return pixels
    gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.asarray(gray.repeat(3, -1))


def base_of(found: Checked) -> str:
    """Return what all images' paths begin with, as folders; it need not be shown.

    Empty where they share no folder.
    """
    folders = {tuple(item.record.path.split("/")[:-1]) for item in found.items}
    # Not `os.path.commonpath`, which takes a slash out of an address.
    levels = (set(names) for names in zip(*folders, strict=False))
    shared = takewhile(lambda names: len(names) == 1, levels)
    return "".join(f"{names.pop()}/" for names in shared)


def group_images(
    found: Checked,
    groups: Sequence[Group],
    held: Previews,
    note: str,
    base: str,
    side: int = SHOWN_SIDE,
) -> Images | None:
    """Return a gallery with one image a group, its members side by side.

    Args:
        found: What was checked.
        groups: In this order.
        held: Pixels by position.
        note: Stands beneath.
        base: What names begin with and is not shown.
        side: Pixels on the screen that small images are enlarged to.
    """
    shown = [[i for i in g.members if i in held][:SIDE_BY_SIDE] for g in groups]
    tiles = tuple(
        _joined(found, group, members, held, base)
        for group, members in zip(groups, shown, strict=True)
        if members
    )
    if not tiles:
        return None
    return Images(images=tiles, scale=_scale(shown, held, side), note=note)


def _scale(
    shown: Sequence[Sequence[int]], held: Previews, side: int = SHOWN_SIDE
) -> int:
    sides = [max(held[i].shape[:2]) for members in shown for i in members]
    return max(1, side // int(max(sides)))


def _joined(
    found: Checked, group: Group, members: Sequence[int], held: Previews, base: str
) -> Image:
    height = max(held[i].shape[0] for i in members)
    width = max(held[i].shape[1] for i in members)
    cells = [_padded(held[i], height, width) for i in members]
    pixels = tile(cells, len(cells), GAP) if len(cells) > 1 else held[members[0]]
    paths = [found.items[i].record.path.removeprefix(base) for i in members]
    more = len(group.members) - len(members)
    caption = " = ".join(paths) + (f" = {more:,} more" if more else "")
    return to_image(pixels, caption, _detail(found, group, members))


def _padded(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Lay an image on a clear ground, top left."""
    ground = np.zeros((height, width, 4), np.uint8)
    rows, columns = pixels.shape[:2]
    ground[:rows, :columns, :3] = pixels
    ground[:rows, :columns, 3] = 255
    return ground


def _detail(found: Checked, group: Group, members: Sequence[int]) -> str:
    records = [found.items[i].record for i in members]
    labels = list(dict.fromkeys(record.label for record in records))
    splits = list(dict.fromkeys(record.split for record in records if record.split))
    if group.note.startswith(f"labeled {labels[0]},"):
        labels = []  # the note of a doubtful label begins with it
    words = [" | ".join(labels), " | ".join(splits), group.note]
    return " · ".join(word for word in dict.fromkeys(words) if word)


def class_images(held: Previews, members: Sequence[int], title: str) -> Images | None:
    """Return examples of a class, without words beneath."""
    known = [i for i in members if i in held]
    if not known:
        return None
    tiles = tuple(to_image(held[i]) for i in known)
    return Images(images=tiles, title=title, scale=_scale([known], held))
