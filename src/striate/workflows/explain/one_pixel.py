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
    SUBSAMPLED,
    ChangedCells,
    one_pixel_shift,
    resize_gray,
    shift_stages,
)
from striate.interpret.render import enlarge, sequential_colors, tile, to_image
from striate.report.format import percent
from striate.report.records import records
from striate.workflows.explain.images import subsample

MOST = 5000  # images of each part
CLASSES = 20  # up to so many are told apart
MIN_PIXELS = 84  # pixels a map is drawn high, at least
_MARK = (214, 58, 48)  # cells that differ
_STEPS = 41  # points of a distribution


@dataclass(frozen=True, kw_only=True)
class OnePixelCounts:
    """The experiment over a set.

    Args:
        gray: (N, 28, 28), from 0 to 1.
        labels: (N,).
        preferences: The stages.
    """

    gray: Tensor
    labels: Tensor
    preferences: tuple[ChangedCells, ...]

    def stage(self, name: str) -> ChangedCells:
        """Return a stage by name."""
        return next(stage for stage in self.preferences if stage.stage == name)

    def changes(self, name: str) -> Tensor:
        """Return each image's change of the count, from the input to a stage."""
        first = self.stage(INPUT).counts.double()
        nonempty = first > 0  # an empty image does not change at all
        return self.stage(name).counts.double()[nonempty] / first[nonempty] - 1


def count_changes(data: ImageData) -> OnePixelCounts:
    """Count over every part of a gray set: nothing is learned, so none is spared."""
    subsets = [subsample(subset, MOST) for subset in data.subsets.values()]
    gray = torch.cat(
        [
            resize_gray(subset.gather(torch.arange(len(subset)))[..., 0].float() / 255)
            for subset in subsets
        ]
    )
    labels = torch.cat([subset.labels for subset in subsets])
    return OnePixelCounts(
        gray=gray, labels=labels, preferences=tuple(one_pixel_shift(gray))
    )


def one_pixel_blocks(data: ImageData) -> tuple[list[Block], dict[str, Any]]:
    """Return the experiment's words, images, tables and distribution."""
    counts = count_changes(data)
    table = _table(counts.preferences)
    blocks: list[Block] = [_text(counts), _example(counts), table, _curve(counts)]
    facts: dict[str, Any] = {
        "images": len(counts.gray),
        "side": NOTES_SIDE,
        "stages": records(table),
    }
    if len(data.labels) <= CLASSES:
        classes = _classes(counts, data.labels)
        blocks.append(classes)
        facts["classes"] = records(classes)
    return blocks, facts


def _text(counts: OnePixelCounts) -> Prose:
    first, pooled, subsampled = (
        counts.stage(name) for name in (INPUT, POOLED, SUBSAMPLED)
    )
    pooled_change, subsampled_change = (
        stage.mean / (first.mean or 1.0) - 1 for stage in (pooled, subsampled)
    )
    fewer = float((counts.changes(POOLED) < 0).double().mean())
    text = (
        f"One pixel to the right, over {len(counts.gray):,} images at "
        f"{NOTES_SIDE}×{NOTES_SIDE}: {first.mean:.1f} cells change at the input, "
        f"{pooled.mean:.1f} behind a vertical-edge filter and 2×2 max pooling, "
        f"{percent(pooled_change)}; the notes count {NOTES[0]} and {NOTES[1]} in one digit, "
        f"{percent(NOTES[1] / NOTES[0] - 1)}. In {percent(fewer)} of the images "
        "the count falls.\n\n"
        "A pooled map has a quarter of the cells. To take every other cell, and pool "
        f"nothing, gives {subsampled.mean:.1f}, {percent(subsampled_change)}: so far the count falls by "
        f"the number of cells alone. Of its cells {percent(pooled.share)} change where "
        f"the strongest is taken, {percent(subsampled.share)} where every other one is."
    )
    return Prose(text=text)


def _example(counts: OnePixelCounts) -> Images:
    """Draw the image whose count comes nearest to the notes', stage by stage."""
    at_input = counts.stage(INPUT).counts
    example = int((at_input - NOTES[0]).abs().argmin())
    original, shifted = shift_stages(counts.gray[example : example + 1])
    images = []
    for stage in original:
        row = [_draw_map(original[stage][0]), _draw_map(shifted[stage][0])]
        row.append(_differing(original[stage][0], shifted[stage][0]))
        count = int(counts.stage(stage).counts[example])
        detail = f"{count} of {original[stage][0].numel()} cells differ"
        images.append(to_image(tile(row, columns=3), stage, detail))
    note = (
        "As it is, moved, and in red what differs. Of all images this one's count at "
        f"the input comes nearest to the notes' {NOTES[0]}."
    )
    return Images(title="One image, moved", images=tuple(images), note=note)


def _draw_map(maps: Tensor) -> np.ndarray:
    return enlarge(sequential_colors(maps.numpy()), MIN_PIXELS)


def _differing(original: Tensor, shifted: Tensor) -> np.ndarray:
    marked = np.full((*original.shape, 3), 235, np.uint8)
    marked[(original != shifted).numpy()] = _MARK
    return enlarge(marked, MIN_PIXELS)


def _table(stages: Sequence[ChangedCells]) -> Table:
    first = stages[0].mean or 1.0
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
            stage.stage,
            stage.cells,
            round(stage.mean, 1),
            round(stage.std, 1),
            int(stage.counts.min()),
            int(stage.counts.max()),
            stage.mean / first - 1,
            stage.share,
        )
        for stage in stages
    )
    note = (
        "Black and white at half the range; a vertical-edge filter and ReLU, then 2×2 "
        "max pooling, or every other cell in its place."
    )
    return Table(title="One pixel to the right", columns=columns, rows=rows, note=note)


def _curve(counts: OnePixelCounts) -> Curve:
    """Return the share of images whose count falls at least so far."""
    series = []
    for name in (POOLED, SUBSAMPLED):
        changes = counts.changes(name).sort().values
        if not len(changes):
            continue
        places = [round(i * (len(changes) - 1) / (_STEPS - 1)) for i in range(_STEPS)]
        series.append(
            Series(
                name=name,
                x=tuple(float(changes[i]) for i in places),
                y=tuple((i + 1) / len(changes) for i in places),
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


def _classes(counts: OnePixelCounts, labels: Labels) -> Table:
    columns = (
        Column(title="Class", key="class"),
        Column(title="Images", kind="integer", key="images"),
        Column(title="At the input", kind="number", key="input"),
        Column(title="Pooled", kind="number", key="pooled"),
        Column(title="Change", kind="percent", key="less"),
    )
    rows: list[tuple[Cell, ...]] = []
    for i, name in enumerate(labels.names):
        own = counts.labels == i
        if not bool(own.any()):
            continue
        first, pooled = (
            float(counts.stage(stage).counts[own].double().mean())
            for stage in (INPUT, POOLED)
        )
        change = pooled / (first or 1.0) - 1
        rows.append((name, int(own.sum()), round(first, 1), round(pooled, 1), change))
    return Table(title="One pixel, by class", columns=columns, rows=tuple(rows))
