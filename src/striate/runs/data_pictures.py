"""Small pictures in colour of chosen places in a set, read again from its files."""

from __future__ import annotations

from collections.abc import Sequence

from striate.core.findings import Picture
from striate.data.check import Checked
from striate.data.disposable import PREVIEWER, examine_files
from striate.data.examine import Examined, preview_pixels
from striate.data.survey import file_of
from striate.look.raster import picture


def previews(found: Checked, positions: Sequence[int]) -> dict[int, Picture]:
    """Return a picture for each position; a file gone meanwhile has none."""
    source = found.source
    if source.arrays is not None:
        rows = {record.path: row for row, record in enumerate(source.records)}
        places = [rows[found.items[i].record.path] for i in positions]
        return {
            i: picture(preview_pixels(source.arrays[row]))
            for i, row in zip(positions, places, strict=True)
        }
    paths = [file_of(source, found.items[i].record) for i in positions]
    answers = examine_files(paths, program=PREVIEWER)
    return {
        i: picture(answer.view)
        for i, answer in zip(positions, answers, strict=True)
        if isinstance(answer, Examined)
    }
