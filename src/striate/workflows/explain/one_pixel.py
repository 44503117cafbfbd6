"""The notes' one-pixel experiment over a whole set: the counts, and one to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Images,
    Prose,
    Series,
    Table,
)
from striate.core.spec import Labels
from striate.data.image_data import ImageData
from striate.interpret.invariance.one_pixel_shift import (
    INPUT,
    NOTES,
    NOTES_SIDE,
    POOLED,
    TAKEN,
    Changed,
    one_pixel,
    sized,
    stages,
)
from striate.interpret.render import amounts, enlarge, tile, to_image
from striate.report.format import percent
from striate.report.records import records
from striate.workflows.explain.images import some

MOST = 5000  # images of each part
CLASSES = 20  # up to so many are told apart
DRAWN = 84  # pixels a map is drawn high, at least
_MARK = (214, 58, 48)  # cells that differ
_STEPS = 41  # points of a distribution


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The experiment over a set.

    Args:
        gray: (N, 28, 28), from 0 to 1.
        labels: (N,).
        found: The stages.
    """

    gray: Tensor
    labels: Tensor
    found: tuple[Changed, ...]

    def stage(self, name: str) -> Changed:
        """Return a stage by name."""
        return next(one for one in self.found if one.stage == name)

    def falls(self, name: str) -> Tensor:
        """Return each image's change of the count, from the input to a stage."""
        first = self.stage(INPUT).counts.double()
        seen = first > 0  # an empty image does not change at all
        return self.stage(name).counts.double()[seen] / first[seen] - 1


def count_all(data: ImageData) -> Counted:
    """Count over every part of a gray set: nothing is learned, so none is spared."""
    subsets = [some(subset, MOST) for subset in data.subsets.values()]
    gray = torch.cat(
        [
            sized(subset.gather(torch.arange(len(subset)))[..., 0].float() / 255)
            for subset in subsets
        ]
    )
    labels = torch.cat([subset.labels for subset in subsets])
    return Counted(gray=gray, labels=labels, found=tuple(one_pixel(gray)))


def one_pixel_blocks(data: ImageData) -> tuple[list[Block], dict[str, Any]]:
    """Return the experiment's words, images, tables and distribution."""
    counted = count_all(data)
    table = _table(counted.found)
    blocks: list[Block] = [_words(counted), _example(counted), table, _curve(counted)]
    facts: dict[str, Any] = {
        "images": len(counted.gray),
        "side": NOTES_SIDE,
        "stages": records(table),
    }
    if len(data.labels) <= CLASSES:
        classes = _classes(counted, data.labels)
        blocks.append(classes)
        facts["classes"] = records(classes)
    return blocks, facts


def _words(counted: Counted) -> Prose:
    first, pooled, taken = (counted.stage(name) for name in (INPUT, POOLED, TAKEN))
    fall, plain = (one.mean / (first.mean or 1.0) - 1 for one in (pooled, taken))
    fewer = float((counted.falls(POOLED) < 0).double().mean())
    text = (
        f"One pixel to the right, over {len(counted.gray):,} images at "
        f"{NOTES_SIDE}×{NOTES_SIDE}: {first.mean:.1f} cells change at the input, "
        f"{pooled.mean:.1f} behind a vertical-edge filter and 2×2 max pooling, "
        f"{percent(fall)}; the notes count {NOTES[0]} and {NOTES[1]} in one digit, "
        f"{percent(NOTES[1] / NOTES[0] - 1)}. In {percent(fewer)} of the images "
        "the count falls.\n\n"
        "A pooled map has a quarter of the cells. To take every other cell, and pool "
        f"nothing, gives {taken.mean:.1f}, {percent(plain)}: so far the count falls by "
        f"the number of cells alone. Of its cells {percent(pooled.share)} change where "
        f"the strongest is taken, {percent(taken.share)} where every other one is."
    )
    return Prose(text=text)


def _example(counted: Counted) -> Images:
    """Draw the image whose count comes nearest to the notes', stage by stage."""
    counts = counted.stage(INPUT).counts
    chosen = int((counts - NOTES[0]).abs().argmin())
    there, gone = stages(counted.gray[chosen : chosen + 1])
    drawn = []
    for stage in there:
        row = [_drawn(there[stage][0]), _drawn(gone[stage][0])]
        row.append(_differing(there[stage][0], gone[stage][0]))
        count = int(counted.stage(stage).counts[chosen])
        detail = f"{count} of {there[stage][0].numel()} cells differ"
        drawn.append(to_image(tile(row, columns=3), stage, detail))
    note = (
        "As it is, moved, and in red what differs. Of all images this one's count at "
        f"the input comes nearest to the notes' {NOTES[0]}."
    )
    return Images(title="One image, moved", images=tuple(drawn), note=note)


def _drawn(maps: Tensor) -> np.ndarray:
    return enlarge(amounts(maps.numpy()), DRAWN)


def _differing(there: Tensor, gone: Tensor) -> np.ndarray:
    marked = np.full((*there.shape, 3), 235, np.uint8)
    marked[(there != gone).numpy()] = _MARK
    return enlarge(marked, DRAWN)


def _table(found: Sequence[Changed]) -> Table:
    first = found[0].mean or 1.0
    columns = (
        Column(title="Where", key="stage"),
        Column(title="Cells", kind="integer", key="cells"),
        Column(title="Changed", kind="number", key="changed"),
        Column(title="Deviation", kind="number", key="deviation", rank=2),
        Column(title="Least", kind="integer", key="least", rank=3),
        Column(title="Most", kind="integer", key="most", rank=3),
        Column(title="against the image", kind="percent", key="less"),
        Column(title="of its cells", kind="percent", key="share"),
    )
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            one.stage,
            one.cells,
            round(one.mean, 1),
            round(one.deviation, 1),
            int(one.counts.min()),
            int(one.counts.max()),
            one.mean / first - 1,
            one.share,
        )
        for one in found
    )
    note = (
        "Black and white at half the range; a vertical-edge filter and ReLU, then 2×2 "
        "max pooling, or every other cell in its place."
    )
    return Table(title="One pixel to the right", columns=columns, rows=rows, note=note)


def _curve(counted: Counted) -> Curve:
    """Return the share of images whose count falls at least so far."""
    series = []
    for name in (POOLED, TAKEN):
        falls = counted.falls(name).sort().values
        if not len(falls):
            continue
        places = [round(i * (len(falls) - 1) / (_STEPS - 1)) for i in range(_STEPS)]
        series.append(
            Series(
                name=name,
                x=tuple(float(falls[i]) for i in places),
                y=tuple((i + 1) / len(falls) for i in places),
            )
        )
    return Curve(
        title="From the input to the map, image by image",
        x_label="change of the count, −1 nothing is left to differ",
        y_label="share of images that fall so far",
        series=tuple(series),
        percent_y=True,
        mark=(NOTES[1] / NOTES[0] - 1, "the notes"),
    )


def _classes(counted: Counted, labels: Labels) -> Table:
    columns = (
        Column(title="Class", key="class"),
        Column(title="Images", kind="integer", key="images"),
        Column(title="At the input", kind="number", key="input"),
        Column(title="Pooled", kind="number", key="pooled"),
        Column(title="Change", kind="percent", key="less"),
    )
    rows: list[tuple[Cell, ...]] = []
    for i, name in enumerate(labels.names):
        own = counted.labels == i
        if not bool(own.any()):
            continue
        first, pooled = (
            float(counted.stage(stage).counts[own].double().mean())
            for stage in (INPUT, POOLED)
        )
        less = pooled / (first or 1.0) - 1
        rows.append((name, int(own.sum()), round(first, 1), round(pooled, 1), less))
    return Table(title="One pixel, by class", columns=columns, rows=tuple(rows))
