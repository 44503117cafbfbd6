"""Experiment: number of values changed by shifting an image by one pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from striate.core import findings as f
from striate.core.class_names import ClassNames
from striate.core.format import count_text
from striate.data.cache.image_rows import display_rows
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
from striate.report.table_records import records
from striate.workflows.explain.images import subsample

MOST = 5000  # images per split
CLASSES = 20  # no table by class for more
MIN_PIXELS = 84  # minimum height of a drawn map, in pixels
_MARK = (214, 58, 48)  # cells that differ
_STEPS = 41  # points of a distribution


@dataclass(frozen=True, kw_only=True)
class OnePixelCounts:
    """Number of values that a one-pixel shift changes, for each image of a dataset."""

    gray: Tensor
    labels: Tensor
    stages: tuple[ChangedCells, ...]

    def stage(self, name: str) -> ChangedCells:
        """Return the counts of changed values at a processing stage, by its name."""
        return next(stage for stage in self.stages if stage.stage == name)

    def relative_changes(self, name: str) -> Tensor:
        """Return (changed values at a stage / at the input) − 1 for each image."""
        first = self.stage(INPUT).counts.double()
        nonempty = first > 0  # an empty image does not change at all
        return self.stage(name).counts.double()[nonempty] / first[nonempty] - 1


def count_changes(data: ImageData) -> OnePixelCounts:
    """Count the values changed by a one-pixel shift, over a gray dataset."""
    preprocess = data.preprocess
    subsets = [subsample(subset, MOST) for subset in data.subsets.values()]
    images = [display_rows(subset.pixels, preprocess)[:] for subset in subsets]
    gray = torch.cat([resize_gray(pixels[..., 0].float() / 255) for pixels in images])
    labels = torch.cat([subset.labels for subset in subsets])
    return OnePixelCounts(gray=gray, labels=labels, stages=tuple(one_pixel_shift(gray)))


def one_pixel_blocks(data: ImageData) -> tuple[list[f.Block], dict[str, Any]]:
    """Run the experiment; return text, example, tables and charts of the results."""
    counts = count_changes(data)
    table = _table(counts.stages)
    blocks: list[f.Block] = [_text(counts), _example(counts), table, _curve(counts)]
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


def _text(counts: OnePixelCounts) -> f.Prose:
    first, pooled, subsampled = map(counts.stage, (INPUT, POOLED, SUBSAMPLED))
    pooled_change = pooled.mean / (first.mean or 1.0) - 1
    subsampled_change = subsampled.mean / (first.mean or 1.0) - 1
    fewer = float((counts.relative_changes(POOLED) < 0).double().mean())
    text = (
        "Shift by one pixel to the right, over "
        f"{count_text(len(counts.gray), 'image')} at "
        f"{NOTES_SIDE}×{NOTES_SIDE}: on average {first.mean:.1f} pixels change at the "
        f"input, and {pooled.mean:.1f} cells after a vertical-edge filter and 2×2 max "
        f"pooling ({percent(pooled_change)}). The study notes count {NOTES[0]} and "
        f"{NOTES[1]} in one digit ({percent(NOTES[1] / NOTES[0] - 1)}). The count "
        f"decreases in {percent(fewer)} of the images.\n\n"
        "A pooled map has a quarter of the cells. Subsampling without pooling (every "
        f"other cell) gives {subsampled.mean:.1f} ({percent(subsampled_change)}): the "
        "decrease that comes from fewer cells alone. Share of changed cells: "
        f"{percent(pooled.share)} with max pooling, {percent(subsampled.share)} with "
        "subsampling."
    )
    return f.Prose(text)


def _example(counts: OnePixelCounts) -> f.Images:
    """Draw the example image at each processing stage, before and after the shift."""
    at_input = counts.stage(INPUT).counts
    example = int((at_input - NOTES[0]).abs().argmin())
    original, shifted = shift_stages(counts.gray[example : example + 1])
    images = []
    for stage in original:
        before, after = original[stage][0], shifted[stage][0]
        marked = np.full((*before.shape, 3), 235, np.uint8)
        marked[(before != after).numpy()] = _MARK
        maps = sequential_colors(before.numpy()), sequential_colors(after.numpy())
        row = [enlarge(pixels, MIN_PIXELS) for pixels in (*maps, marked)]
        count = int(counts.stage(stage).counts[example])
        detail = f"{count} of {before.numel()} cells differ"
        images.append(to_image(tile(row, columns=3), stage, detail))
    note = (
        "Original, shifted, and the difference in red. Its count at the input is the "
        f"closest of all images to the {NOTES[0]} in the study notes."
    )
    return f.Images(title="One image, shifted", images=tuple(images), note=note)


def _table(stages: Sequence[ChangedCells]) -> f.Table:
    first = stages[0].mean or 1.0
    columns = (
        f.Column("Stage"),
        f.Column("Cells", "integer"),
        f.Column("Changed", "number"),
        f.Column("Std", "number", rank=2),
        f.Column("Min", "integer", rank=3),
        f.Column("Max", "integer", rank=3),
        f.Column("Change from Input", "percent", key="change"),
        f.Column("Share of Cells", "percent", key="share"),
    )
    rows: list[tuple[f.Cell, ...]] = []
    for stage in stages:
        mean_std = round(stage.mean, 1), round(stage.std, 1)
        limits = int(stage.counts.min()), int(stage.counts.max())
        shares = stage.mean / first - 1, stage.share
        rows.append((stage.stage, stage.cells, *mean_std, *limits, *shares))
    note = (
        "Images are binarized at half the range. Edges: vertical-edge filter and ReLU. "
        "Then 2×2 max pooling, or subsampling (every other cell)."
    )
    title = "Cells changed by a shift of one pixel"
    return f.Table(title=title, columns=columns, rows=tuple(rows), note=note)


def _curve(counts: OnePixelCounts) -> f.Curve:
    """Return a chart of the cumulative distribution of `relative_changes`, by stage."""
    series = []
    for name in (POOLED, SUBSAMPLED):
        changes = counts.relative_changes(name).sort().values
        if not len(changes):
            continue
        places = [round(i * (len(changes) - 1) / (_STEPS - 1)) for i in range(_STEPS)]
        x = tuple(float(changes[i]) for i in places)
        y = tuple((i + 1) / len(changes) for i in places)
        series.append(f.Series(name, x, y))
    return f.Curve(
        "Change of the count from input to map, over images",
        x_label="relative change of the count (−1: no cell differs)",
        y_label="share of images with this change or less",
        series=tuple(series),
        percent_y=True,
        mark=(NOTES[1] / NOTES[0] - 1, "study notes"),
    )


def _classes(counts: OnePixelCounts, labels: ClassNames) -> f.Table:
    columns = (
        f.Column("Class"),
        f.Column("Images", "integer"),
        f.Column("Input", "number"),
        f.Column("Pooled", "number"),
        f.Column("Change", "percent"),
    )
    rows: list[tuple[f.Cell, ...]] = []
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
    return f.Table(title="One-pixel shift by class", columns=columns, rows=tuple(rows))
