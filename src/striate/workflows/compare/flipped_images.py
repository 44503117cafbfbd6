"""Which images changed sides: as galleries on a page, as a list in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from striate.core.findings import Block, Cell, Column, Image, Images, Prose, Table
from striate.data.cache.pixel_rows import PixelRows
from striate.interpret.render import to_image
from striate.report.format import counted, percent
from striate.run.images import subset_pixels
from striate.workflows.compare.evaluated_run import Contender
from striate.workflows.compare.pairing import Flip, flips
from striate.workflows.compare.significance import Match

IMAGES_SHOWN = 48
LISTED = 8
SIDE = 96  # pixels a small image is enlarged to, about


def flipped_list(match: Match) -> Table | None:
    """Return the plainest flips as rows."""
    found = flips(match.pairings)
    if not found:
        return None
    a, b = match.first.letter, match.second.letter
    gained, lost = _sorted_out(found)
    chosen = [*gained[:LISTED], *lost[:LISTED]]
    rows = tuple(_row(flip, match) for flip in chosen)
    rest = len(found) - len(rows)
    note = f"{rest:,} more are in the page (--html FILE) and in --json." if rest else ""
    columns = (
        Column(title="better", kind="code"),
        Column(title="image"),
        Column(title="is"),
        Column(title=f"{a} says", key="first"),
        Column(title=f"{b} says", key="second"),
    )
    title = f"Images that flipped, {b} against {a}"
    return Table(title=title, columns=columns, rows=rows, note=note)


def _sorted_out(found: Sequence[Flip]) -> tuple[list[Flip], list[Flip]]:
    return [f for f in found if f.gained], [f for f in found if not f.gained]


def _row(flip: Flip, match: Match) -> tuple[Cell, ...]:
    better = match.second if flip.gained else match.first
    return (better.letter, flip.path, flip.label, _said(flip, 0), _said(flip, 1))


def _said(flip: Flip, side: int) -> str:
    text = f"{flip.said[side]}, {percent(flip.sure[side], 0)}"
    if flip.times > 1:
        text += f", right {flip.right[side]} of {flip.times}"
    return text


def flipped_blocks(match: Match) -> Iterator[Block]:
    """Yield a gallery of what the second side gained, and one of what it lost."""
    found = flips(match.pairings)
    if not found:
        yield Prose(text="No image changed sides.")
        return
    if len(match.pairings) == 1:
        yield _fourfold(match)
    pixels = _pixels(found)
    if any(held is None for held in pixels.values()):
        text = "The images could not be read again, so only their names are shown."
        yield Prose(text=text, tone="warning")
    gained, lost = _sorted_out(found)
    a, b = match.first.letter, match.second.letter
    for some, better, worse in ((gained, b, a), (lost, a, b)):
        if some:
            title = f"{better} right, {worse} wrong: {counted(len(some), 'image')}"
            yield _gallery(some, pixels, match, title)


def _fourfold(match: Match) -> Table:
    """Return right and wrong of both sides, counted against each other."""
    paired = match.pairings[0].paired
    a, b = match.first.letter, match.second.letter
    columns = (
        Column(title="", key="first"),
        Column(title=f"{b} right", key="right", kind="integer"),
        Column(title=f"{b} wrong", key="wrong", kind="integer"),
    )
    rows = (
        (f"{a} right", paired.both, paired.lost),
        (f"{a} wrong", paired.gained, paired.neither),
    )
    return Table(title="Right and wrong", columns=columns, rows=rows)


def _pixels(found: Sequence[Flip]) -> dict[Contender, PixelRows | None]:
    sources = dict.fromkeys(flip.source[0] for flip in found)
    return {
        one: subset_pixels(one.run, one.split, one.predictions.paths) for one in sources
    }


def _gallery(
    some: Sequence[Flip],
    pixels: dict[Contender, PixelRows | None],
    match: Match,
    title: str,
) -> Block:
    shown = some[:IMAGES_SHOWN]
    rest = len(some) - len(shown)
    note = f"{rest:,} more stand in --json." if rest else ""
    if any(pixels[flip.source[0]] is None for flip in shown):
        rows = tuple(_row(flip, match)[1:] for flip in shown)
        letters = match.first.letter, match.second.letter
        said = [Column(title=f"{letter} says") for letter in letters]
        columns = (Column(title="image"), Column(title="is"), *said)
        return Table(title=title, columns=columns, rows=rows, note=note)
    images = tuple(_image(flip, pixels, match) for flip in shown)
    side = max(max(one.width, one.height) for one in images)
    scale = max(1, SIDE // side)
    return Images(title=title, images=images, note=note, scale=scale)


def _image(
    flip: Flip, pixels: dict[Contender, PixelRows | None], match: Match
) -> Image:
    source, row = flip.source
    held = pixels[source]
    assert held is not None  # noqa: S101 - asked before
    a, b = match.first.letter, match.second.letter
    caption = f"{a}: {flip.said[0]} → {b}: {flip.said[1]}"
    sure = " → ".join(percent(probs, 0) for probs in flip.sure)
    if flip.times > 1:
        sure += f", right {flip.right[0]} → {flip.right[1]} of {flip.times}"
    return to_image(held[row].numpy(), caption, f"{sure} · {flip.path}")
