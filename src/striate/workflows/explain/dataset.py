"""The part of an explanation about a whole set: mistakes, classes, shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from striate.core.findings import (
    Block,
    Cell,
    Column,
    Image,
    Images,
    Prose,
    Section,
    Table,
)
from striate.data.batches import Batches
from striate.data.subset import Subset
from striate.interpret.activations_at import together
from striate.interpret.attribution.attribute import evidence
from striate.interpret.attribution.dataset import WholeSet, whole_set
from striate.interpret.render import enlarge, overlay, to_image
from striate.report.format import percent
from striate.run.run import Run
from striate.workflows.explain.images import some

MOST = 2000  # images whose evidence is added up
BATCH = 64  # of them at once, at most
MISTAKES = 8  # drawn
CLASSES = 20  # drawn
SIDE = 120
_BORDER = 1.5  # times its area: from here the border is worth a word
_FEW = 5  # images of a class: fewer tell nothing


def whole_section(run: Run) -> tuple[Section, dict[str, Any]]:
    """Show where a run's answers look: its sure mistakes, its classes, its borders."""
    subset = some(run.data.subsets[run.evaluated_split], MOST)
    size = together(*run.preprocess.spec.shape[1:], BATCH)
    made = Batches(
        subset=subset, preprocess=run.preprocess, batch_size=size, shuffle=False
    )
    found = whole_set(run.model, (x for x, _ in made(0)), len(run.labels))
    blocks: list[Block] = []
    wrong = _mistakes(run)
    if wrong:
        title = "The surest mistakes"
        note = "Each image, and what spoke for the wrong answer."
        blocks.append(Images(title=title, images=tuple(wrong), note=note))
    blocks.append(_classes(run, subset, found))
    table, data = _table(run, found)
    blocks.append(table)
    blocks += _warnings(run, found)
    lead = (
        f"Grad-CAM at {found.place.call} of the network's own answers, over "
        f"{len(subset):,} {run.evaluated_split} images, each map scaled to sum to one."
    )
    if found.flat:
        lead += f" {found.flat} of them have no evidence at all there."
    return Section(title="Over the whole set", lead=lead, blocks=tuple(blocks)), data


def _mistakes(run: Run) -> list[Image]:
    predictions = run.predictions(run.evaluated_split)
    subset = run.data.subsets[run.evaluated_split]
    wrong = np.flatnonzero(np.asarray(predictions.truth != predictions.predicted))
    sure = np.asarray(predictions.probs).max(1)
    place = {path: i for i, path in enumerate(subset.paths)}
    drawn: list[Image] = []
    for i in wrong[np.argsort(-sure[wrong], kind="stable")][:MISTAKES]:
        one = subset.take([place[predictions.paths[int(i)]]])
        made = Batches(
            subset=one, preprocess=run.preprocess, batch_size=1, shuffle=False
        )
        x, _ = next(made(0))
        said = run.labels[int(predictions.predicted[i])]
        found = evidence(run.model, x, method="gradcam", target=said,
                         labels=run.labels, trust=False)  # fmt: skip
        pixels = one.gather(torch.tensor([0]))[0].numpy()
        heat = found.heat.detach().cpu().numpy()
        pair = [_color(pixels), overlay(pixels, heat, found.signed)]
        truth = run.labels[int(predictions.truth[i])]
        words = f"{said}, is {truth}"
        drawn.append(
            to_image(
                enlarge(np.concatenate(pair, 1), SIDE), words, percent(float(sure[i]))
            )
        )
    return drawn


def _color(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[-1] == 3:
        return pixels
    gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.asarray(gray.repeat(3, -1))


def _classes(run: Run, subset: Subset, found: WholeSet) -> Images:
    """Lay each class's mean evidence over its mean image."""
    order = [int(i) for i in found.counts.argsort(descending=True, stable=True)]
    chosen = sorted(i for i in order[:CLASSES] if found.counts[i])
    drawn = []
    for i in chosen:
        rows = (subset.labels == i).nonzero().flatten()
        if not len(rows):
            rows = torch.arange(len(subset))
        mean = subset.gather(rows).float().mean(0).round().to(torch.uint8).numpy()
        heat = found.heat[i].numpy()
        pixels = enlarge(overlay(mean, heat, False), SIDE)
        drawn.append(to_image(pixels, run.labels[i], f"{int(found.counts[i])} answers"))
    note = "The mean evidence of a class's answers upon the mean image of the class."
    if len(chosen) < int((found.counts > 0).sum()):
        note += f" The {len(chosen)} most frequent answers."
    return Images(title="Where each class is seen", images=tuple(drawn), note=note)


def _table(run: Run, found: WholeSet) -> tuple[Table, dict[str, Any]]:
    columns = (
        Column(title="Answer", key="class"),
        Column(title="Images", kind="integer", key="images"),
        Column(title="On the border", kind="percent", key="border"),
        Column(title="by area", kind="percent", key="border_area"),
        Column(title="On plain ground", kind="percent", key="ground"),
        Column(title="of its area", kind="percent", key="ground_area", rank=1),
    )
    rows: list[tuple[Cell, ...]] = [
        (
            run.labels[i],
            int(found.counts[i]),
            float(found.border[i]),
            found.border_area,
            float(found.ground[i]),
            float(found.ground_area[i]),
        )
        for i in range(len(run.labels))
        if found.counts[i]
    ]
    note = (
        "The border is a tenth of the image at each side. Plain ground is what has "
        "about the color of the image's own border: a guess, good for things on a "
        "plain ground. Evidence there can be right (the hole of a 0), and maps of few "
        "cells spill over."
    )
    table = Table(
        title="Where evidence sits", columns=columns, rows=tuple(rows), note=note
    )
    names = [column.key for column in columns]
    data = {
        "layer": found.place.call,
        "flat": found.flat,
        "classes": [dict(zip(names, row, strict=True)) for row in rows],
    }
    return table, data


def _warnings(run: Run, found: WholeSet) -> list[Block]:
    limit = _BORDER * found.border_area
    named = [
        f"{run.labels[i]} ({percent(float(found.border[i]))})"
        for i in range(len(run.labels))
        if found.counts[i] >= _FEW and found.border[i] > limit
    ]
    if not named:
        return []
    text = (
        f"Evidence gathers on the border for {', '.join(named)}; the border is "
        f"{percent(found.border_area)} of the image. A frame, a caption or the place "
        "it was taken at may give the class away: look at these images."
    )
    return [Prose(text=text, tone="warning")]
