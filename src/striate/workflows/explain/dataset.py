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
from striate.interpret.activations_at import images_at_once
from striate.interpret.attribution.attribute import attribute
from striate.interpret.attribution.dataset import (
    DatasetAttribution,
    dataset_attribution,
)
from striate.interpret.render import enlarge, overlay_heatmap, to_image
from striate.report.format import percent
from striate.run.run import Run
from striate.workflows.explain.images import subsample

MOST = 2000  # images whose evidence is added up
BATCH = 64  # of them at once, at most
MISTAKES = 8  # drawn
CLASSES = 20  # drawn
SIDE = 120
_BORDER = 1.5  # times its area: from here the border is worth a word
_FEW = 5  # images of a class: fewer tell nothing


def dataset_section(run: Run) -> tuple[Section, dict[str, Any]]:
    """Show where a run's answers look: its sure mistakes, its classes, its borders."""
    subset = subsample(run.data.subsets[run.evaluated_split], MOST)
    size = images_at_once(*run.preprocess.spec.shape[1:], BATCH)
    batches = Batches(
        subset=subset, preprocess=run.preprocess, batch_size=size, shuffle=False
    )
    result = dataset_attribution(run.model, (x for x, _ in batches(0)), len(run.labels))
    blocks: list[Block] = []
    wrong = _mistakes(run)
    if wrong:
        title = "The surest mistakes"
        note = "Each image, and what spoke for the wrong answer."
        blocks.append(Images(title=title, images=tuple(wrong), note=note))
    blocks.append(_classes(run, subset, result))
    table, data = _table(run, result)
    blocks.append(table)
    blocks += _warnings(run, result)
    lead = (
        f"Grad-CAM at {result.layer.call} of the network's own answers, over "
        f"{len(subset):,} {run.evaluated_split} images, each map scaled to sum to one."
    )
    if result.empty:
        lead += f" {result.empty} of them have no evidence at all there."
    return Section(title="Over the whole set", lead=lead, blocks=tuple(blocks)), data


def _mistakes(run: Run) -> list[Image]:
    predictions = run.predictions(run.evaluated_split)
    subset = run.data.subsets[run.evaluated_split]
    wrong = np.flatnonzero(np.asarray(predictions.truth != predictions.predicted))
    confidence = np.asarray(predictions.probs).max(1)
    row_of = {path: i for i, path in enumerate(subset.paths)}
    images: list[Image] = []
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]:
        single = subset.take([row_of[predictions.paths[int(i)]]])
        batches = Batches(
            subset=single, preprocess=run.preprocess, batch_size=1, shuffle=False
        )
        x, _ = next(batches(0))
        predicted = run.labels[int(predictions.predicted[i])]
        result = attribute(run.model, x, method="gradcam", target=predicted,
                         labels=run.labels, sanity_checks=False)  # fmt: skip
        pixels = single.gather(torch.tensor([0]))[0].numpy()
        heat = result.heatmap.detach().cpu().numpy()
        pair = [_color(pixels), overlay_heatmap(pixels, heat, result.signed)]
        truth = run.labels[int(predictions.truth[i])]
        caption = f"{predicted}, is {truth}"
        images.append(
            to_image(
                enlarge(np.concatenate(pair, 1), SIDE),
                caption,
                percent(float(confidence[i])),
            )
        )
    return images


def _color(pixels: np.ndarray) -> np.ndarray:
    if pixels.shape[-1] == 3:
        return pixels
    gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
    return np.asarray(gray.repeat(3, -1))


def _classes(run: Run, subset: Subset, result: DatasetAttribution) -> Images:
    """Lay each class's mean evidence over its mean image."""
    order = [int(i) for i in result.counts.argsort(descending=True, stable=True)]
    classes = sorted(i for i in order[:CLASSES] if result.counts[i])
    images = []
    for i in classes:
        rows = (subset.labels == i).nonzero().flatten()
        if not len(rows):
            rows = torch.arange(len(subset))
        mean = subset.gather(rows).float().mean(0).round().to(torch.uint8).numpy()
        heat = result.heatmap[i].numpy()
        pixels = enlarge(overlay_heatmap(mean, heat, False), SIDE)
        images.append(
            to_image(pixels, run.labels[i], f"{int(result.counts[i])} answers")
        )
    note = "The mean evidence of a class's answers upon the mean image of the class."
    if len(classes) < int((result.counts > 0).sum()):
        note += f" The {len(classes)} most frequent answers."
    return Images(title="Where each class is seen", images=tuple(images), note=note)


def _table(run: Run, result: DatasetAttribution) -> tuple[Table, dict[str, Any]]:
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
            int(result.counts[i]),
            float(result.border[i]),
            result.border_area,
            float(result.background[i]),
            float(result.background_area[i]),
        )
        for i in range(len(run.labels))
        if result.counts[i]
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
        "layer": result.layer.call,
        "flat": result.empty,
        "classes": [dict(zip(names, row, strict=True)) for row in rows],
    }
    return table, data


def _warnings(run: Run, result: DatasetAttribution) -> list[Block]:
    limit = _BORDER * result.border_area
    named = [
        f"{run.labels[i]} ({percent(float(result.border[i]))})"
        for i in range(len(run.labels))
        if result.counts[i] >= _FEW and result.border[i] > limit
    ]
    if not named:
        return []
    text = (
        f"Evidence gathers on the border for {', '.join(named)}; the border is "
        f"{percent(result.border_area)} of the image. A frame, a caption or the place "
        "it was taken at may give the class away: look at these images."
    )
    return [Prose(text=text, tone="warning")]
