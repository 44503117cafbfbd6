"""False negatives and false positives of one class, the highest loss first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from striate.core.findings import Block, Column, Image, Images, Prose, Section, Table
from striate.core.format import count_text
from striate.data.cache.image_rows import PixelRows
from striate.interpret.render import to_image
from striate.report.format import probability_text
from striate.workflows.evaluate.one_vs_rest import OneVsRest
from striate.workflows.evaluate.result import Misclassified, OperatingPointResult

MAX_ERROR_IMAGES = 12
SIDE = 96  # small images are enlarged to about this many pixels


def misclassified_images(
    data: OneVsRest, columns: Mapping[str, Sequence[str]], *, positive: bool
) -> tuple[Misclassified, ...]:
    """Return false negatives if `positive`, else false positives, highest loss first.

    The limit is 0.5 and not the threshold: at 0.5 the model's prediction changes.
    """
    wrong = (data.probs < 0.5) == positive
    rows = np.flatnonzero((data.positive == positive) & wrong)
    sign = 1 if positive else -1
    rows = rows[np.argsort(sign * data.probs[rows], kind="stable")].tolist()
    return tuple(
        Misclassified(
            row=i,
            image_path=data.paths[i],
            prob=float(data.probs[i]),
            cells=tuple((name, cells[i]) for name, cells in columns.items()),
        )
        for i in rows
    )


def misclassified_section(
    result: OperatingPointResult, pixels: PixelRows | None
) -> Section:
    """Return the report section on false negatives and false positives."""
    return Section(
        "Misclassified images",
        tuple(_blocks(result, pixels)),
        lead="Errors at probability 0.5, the most confident first. Check these for "
        "wrong labels first.",
    )


def _blocks(result: OperatingPointResult, pixels: PixelRows | None) -> Iterator[Block]:
    if pixels is None:
        text = "The image files could not be read, so only their paths are shown."
        yield Prose(text, "warning")
    target, rest = result.target, result.rest
    for title, images in (
        (f"False negatives: {target} predicted as {rest}", result.false_negatives),
        (f"False positives: {rest} predicted as {target}", result.false_positives),
    ):
        if images:
            heading = f"{title}, {count_text(len(images), 'image')}"
            yield _gallery(heading, images, target, pixels)
        else:
            yield Prose(f"{title}: none.", "good")


def _gallery(
    title: str, images: Sequence[Misclassified], target: str, pixels: PixelRows | None
) -> Block:
    visible = images[:MAX_ERROR_IMAGES]
    rest = len(images) - len(visible)
    note = f"{rest:,} more; see operating_point.json." if rest else ""
    if pixels is None:
        probability = Column(f"P({target})", "probability")
        columns = (Column("image", key="image_path"), probability)
        rows = tuple((image.image_path, image.prob) for image in visible)
        return Table(title=title, columns=columns, rows=rows, note=note)
    tiles = tuple(_tile(image, target, pixels) for image in visible)
    scale = max(1, SIDE // max(max(tile.width, tile.height) for tile in tiles))
    return Images(title=title, images=tiles, note=note, scale=scale)


def _tile(image: Misclassified, target: str, pixels: PixelRows) -> Image:
    cells = [f"{name} {cell}" for name, cell in image.cells if cell]
    detail = " · ".join([*cells, image.image_path.rsplit("/", 1)[-1]])
    caption = f"P({target}) {probability_text(image.prob)}"
    return to_image(pixels[image.row].numpy(), caption, detail)
