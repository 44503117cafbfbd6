"""Images that only one of two runs classifies correctly, as galleries and a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.core.findings import Block, Cell, Column, Image, Images, Prose, Table
from striate.core.format import count_text
from striate.data.cache.image_rows import PixelRows
from striate.interpret.render import to_image
from striate.report.format import probability_text
from striate.run.report_images import subset_pixels
from striate.workflows.compare.evaluated_run import EvaluatedRun
from striate.workflows.compare.pairing import FlippedImage, flipped_images
from striate.workflows.compare.significance import PairwiseTest

MAX_FLIPPED_IMAGES = 48
MAX_FLIPPED_ROWS = 8  # per direction
SIDE = 96  # small images are enlarged to about this many pixels


def flipped_table(test: PairwiseTest) -> Table | None:
    """Return a table of images on which one of two run groups is correct more often."""
    images = flipped_images(test.pairings)
    if not images:
        return None
    gained, lost = ([i for i in images if i.gained is side] for side in (True, False))
    rows = tuple(
        _row(image, test)
        for image in [*gained[:MAX_FLIPPED_ROWS], *lost[:MAX_FLIPPED_ROWS]]
    )
    rest = len(images) - len(rows)
    columns = (Column("correct", "code", key="better"), *_columns(test))
    return Table(
        title=f"Flipped images, {test.second.letter} against {test.first.letter}",
        columns=columns,
        rows=rows,
        note=f"{rest:,} more; see the report (--html FILE) or --json." if rest else "",
    )


def _columns(test: PairwiseTest) -> tuple[Column, ...]:
    return (
        Column("image", key="image_path"),
        Column("true class", key="true"),
        Column(f"{test.first.letter} predicts", key="first"),
        Column(f"{test.second.letter} predicts", key="second"),
    )


def _row(image: FlippedImage, test: PairwiseTest) -> tuple[Cell, ...]:
    better = test.second if image.gained else test.first
    predictions = _prediction_text(image, 0), _prediction_text(image, 1)
    return (better.letter, image.image_path, image.true, *predictions)


def _prediction_text(image: FlippedImage, side: int) -> str:
    text = f"{image.pred[side]} ({probability_text(image.confidence[side], 0)})"
    if image.pairs > 1:
        text += f", correct {image.correct[side]} of {image.pairs}"
    return text


def flipped_blocks(test: PairwiseTest) -> Iterator[Block]:
    """Yield two galleries: images on which the second run group is better, or worse."""
    images = flipped_images(test.pairings)
    if not images:
        yield Prose("No image flipped.")
        return
    if len(test.pairings) == 1:
        yield _contingency_table(test)
    pixels = {
        run: subset_pixels(run.run, run.split, run.predictions.paths)
        for run in dict.fromkeys(image.source[0] for image in images)
    }
    if any(rows is None for rows in pixels.values()):
        text = "The image files could not be read, so only their paths are shown."
        yield Prose(text, "warning")
    a, b = test.first.letter, test.second.letter
    for side, better, worse in ((True, b, a), (False, a, b)):
        some = [image for image in images if image.gained is side]
        if some:
            title = f"{better} correct, {worse} wrong: {count_text(len(some), 'image')}"
            yield _gallery(some, pixels, test, title)


def _contingency_table(test: PairwiseTest) -> Table:
    """Return a 2×2 table of the images that two runs predict correctly or wrongly."""
    paired = test.pairings[0].paired
    a, b = test.first.letter, test.second.letter
    columns = (
        Column("", key="first"),
        Column(f"{b} correct", "integer", key="correct"),
        Column(f"{b} wrong", "integer", key="wrong"),
    )
    rows = (
        (f"{a} correct", paired.both, paired.lost),
        (f"{a} wrong", paired.gained, paired.neither),
    )
    return Table(title="Correct and wrong predictions", columns=columns, rows=rows)


def _gallery(
    images: Sequence[FlippedImage],
    pixels: dict[EvaluatedRun, PixelRows | None],
    test: PairwiseTest,
    title: str,
) -> Block:
    visible = images[:MAX_FLIPPED_IMAGES]
    rest = len(images) - len(visible)
    note = f"{rest:,} more; see the output of --json." if rest else ""
    if any(pixels[image.source[0]] is None for image in visible):
        rows = tuple(_row(image, test)[1:] for image in visible)
        return Table(title=title, columns=_columns(test), rows=rows, note=note)
    tiles = tuple(_tile(image, pixels, test) for image in visible)
    scale = max(1, SIDE // max(max(tile.width, tile.height) for tile in tiles))
    return Images(title=title, images=tiles, note=note, scale=scale)


def _tile(
    image: FlippedImage,
    pixels: dict[EvaluatedRun, PixelRows | None],
    test: PairwiseTest,
) -> Image:
    run, row = image.source
    rows = pixels[run]
    assert rows is not None  # noqa: S101 - checked by the caller
    a, b = test.first.letter, test.second.letter
    caption = f"{a}: {image.pred[0]} → {b}: {image.pred[1]}"
    detail = " → ".join(probability_text(prob, 0) for prob in image.confidence)
    if image.pairs > 1:
        detail += f", correct {image.correct[0]} → {image.correct[1]} of {image.pairs}"
    return to_image(rows[row].numpy(), caption, f"{detail} · {image.image_path}")
