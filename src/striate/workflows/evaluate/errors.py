"""The most wrong answers: of the class and unseen, and called so for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from striate.core.findings import Block, Column, Image, Images, Prose, Section, Table
from striate.data.cache.pixel_rows import PixelRows
from striate.interpret.render import to_image
from striate.report.format import counted, percent
from striate.workflows.evaluate.one_vs_rest import Seen
from striate.workflows.evaluate.result import Told, Wrong

SHOWN = 12
SIDE = 96  # pixels a small image is enlarged to, about


def wrong_answers(
    view: Seen, columns: Mapping[str, Sequence[str]]
) -> tuple[tuple[Wrong, ...], tuple[Wrong, ...]]:
    """Return what is of the class and less than half likely, and the other way round.

    The costliest first: one half, not the threshold, is where an answer is wrong by
    the network's own word.
    """
    missed = np.flatnonzero(view.positive & (view.probs < 0.5))
    alarms = np.flatnonzero(~view.positive & (view.probs >= 0.5))
    missed = missed[np.argsort(view.probs[missed], kind="stable")]
    alarms = alarms[np.argsort(-view.probs[alarms], kind="stable")]
    return _each(missed, view, columns), _each(alarms, view, columns)


def _each(
    rows: Iterable[int], view: Seen, columns: Mapping[str, Sequence[str]]
) -> tuple[Wrong, ...]:
    return tuple(
        Wrong(
            row=int(i),
            path=view.paths[i],
            probs=float(view.probs[i]),
            cells=tuple((name, cells[i]) for name, cells in columns.items()),
        )
        for i in rows
    )


def wrong_section(told: Told, pixels: PixelRows | None) -> Section:
    """Return the most wrong images."""
    return Section(
        title="Most wrong",
        lead="The answers that cost most, at one half: look here for wrong labels "
        "first, then for what the network cannot see.",
        blocks=tuple(_blocks(told, pixels)),
    )


def _blocks(told: Told, pixels: PixelRows | None) -> Iterator[Block]:
    if pixels is None:
        text = "The images could not be read again, so only their names are shown."
        yield Prose(text=text, tone="warning")
    titles = (
        f"Are {told.target}, taken for {told.rest}",
        f"Are {told.rest}, taken for {told.target}",
    )
    for title, found in zip(titles, told.wrong, strict=True):
        if found:
            headed = f"{title}: {counted(len(found), 'image')}"
            yield _gallery(headed, found[:SHOWN], len(found), told.target, pixels)
        else:
            yield Prose(text=f"{title}: none.", tone="good")


def _gallery(
    title: str,
    shown: Sequence[Wrong],
    count: int,
    target: str,
    pixels: PixelRows | None,
) -> Block:
    rest = count - len(shown)
    note = f"{rest:,} more stand in detection.json." if rest else ""
    if pixels is None:
        columns = (
            Column(title="image"),
            Column(title=f"P({target})", kind="percent"),
        )
        rows = tuple((one.path, one.probs) for one in shown)
        return Table(title=title, columns=columns, rows=rows, note=note)
    images = tuple(_image(one, target, pixels) for one in shown)
    side = max(max(one.width, one.height) for one in images)
    scale = max(1, SIDE // side)
    return Images(title=title, images=images, note=note, scale=scale)


def _image(one: Wrong, target: str, pixels: PixelRows) -> Image:
    cells = [f"{name} {cell}" for name, cell in one.cells if cell]
    detail = " · ".join([*cells, one.path.rsplit("/", 1)[-1]])
    caption = f"P({target}) {percent(one.probs)}"
    return to_image(pixels[one.row].numpy(), caption, detail)
