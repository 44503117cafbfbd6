"""Report section on a dataset: mean heatmap by class, most confident errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from striate.core import findings as f
from striate.core.format import count_text
from striate.data.batches import batches_in_order
from striate.data.cache.image_rows import display_rows, gather_rows
from striate.data.subset import Subset
from striate.interpret.activations_at import images_at_once
from striate.interpret.attribution.attribute import attribute
from striate.interpret.attribution.mean_heatmaps import (
    DatasetAttribution,
    dataset_attribution,
)
from striate.interpret.render import enlarge, overlay_heatmap, to_image, to_rgb
from striate.report.format import percent, probability_text
from striate.report.table_records import records
from striate.run.run import Run
from striate.workflows.explain.images import subsample

MOST = 2000  # images, at most
BATCH = 64  # images per batch, at most
MISTAKES = 8  # errors drawn
CLASSES = 20  # classes drawn
SIDE = 120
_BORDER = 1.5  # ratio to its area: above it, warn about the border
_FEW = 5  # images of a class: no warning for fewer


def dataset_section(run: Run) -> tuple[f.Section, dict[str, Any]]:
    """Return the report section on confident errors and mean heatmaps by class."""
    subset = subsample(run.data.subsets[run.evaluated_split], MOST)
    size = images_at_once(run.preprocess.spec.shape, BATCH)
    inputs = (x for x, _ in batches_in_order(subset, run.preprocess, size))
    result = dataset_attribution(run.model, inputs, len(run.labels))
    blocks: list[f.Block] = []
    wrong = _mistakes(run)
    if wrong:
        title = "Most confident errors"
        note = "Each image with its Grad-CAM for the wrong prediction."
        blocks.append(f.Images(title=title, images=tuple(wrong), note=note))
    blocks.append(_classes(run, subset, result))
    table = _table(run, result)
    data = {
        "layer": result.layer.call,
        "empty_heatmaps": result.empty,
        "classes": records(table),
    }
    blocks.append(table)
    blocks += _warnings(run, result)
    lead = (
        f"Grad-CAM at {result.layer.call} of the predicted class, over "
        f"{count_text(len(subset), 'image')} of the {run.evaluated_split} split; each "
        "heatmap is scaled to sum to one."
    )
    if result.empty:
        lead += f" Images with an empty heatmap: {result.empty}."
    title = "Heatmaps over the dataset"
    return f.Section(title, tuple(blocks), lead=lead), data


def _mistakes(run: Run) -> list[f.Image]:
    predictions = run.predictions(run.evaluated_split)
    subset = run.data.subsets[run.evaluated_split]
    wrong = np.flatnonzero(np.asarray(predictions.truth != predictions.predicted))
    confidence = np.asarray(predictions.probs).max(1)
    row_of = {path: i for i, path in enumerate(subset.paths)}
    images: list[f.Image] = []
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]:
        single = subset.take([row_of[predictions.paths[int(i)]]])
        x, _ = next(batches_in_order(single, run.preprocess, 1))
        predicted = run.labels[int(predictions.predicted[i])]
        result = attribute(run.model, x, method="gradcam", target=predicted,
                         labels=run.labels, sanity_checks=False)  # fmt: skip
        pixels = display_rows(single.pixels, run.preprocess)[0].numpy()
        heat = result.heatmap.detach().cpu().numpy()
        pair = [to_rgb(pixels), overlay_heatmap(pixels, heat, result.signed)]
        truth = run.labels[int(predictions.truth[i])]
        caption = f"predicted {predicted}, true {truth}"
        both = enlarge(np.concatenate(pair, 1), SIDE)
        images.append(to_image(both, caption, probability_text(float(confidence[i]))))
    return images


def _classes(run: Run, subset: Subset, result: DatasetAttribution) -> f.Images:
    """Draw mean heatmaps by predicted class, each over the mean image of the class."""
    order = [int(i) for i in result.counts.argsort(descending=True, stable=True)]
    classes = sorted(i for i in order[:CLASSES] if result.counts[i])
    images = []
    for i in classes:
        rows = (subset.labels == i).nonzero().flatten()
        if not len(rows):
            rows = torch.arange(len(subset))
        visible = display_rows(subset.pixels, run.preprocess)
        mean = (
            gather_rows(visible, rows).float().mean(0).round().to(torch.uint8).numpy()
        )
        heat = result.heatmap[i].numpy()
        pixels = enlarge(overlay_heatmap(mean, heat, False), SIDE)
        count = count_text(int(result.counts[i]), "image")
        images.append(to_image(pixels, run.labels[i], count))
    note = "Mean heatmap of all images predicted as a class, over its mean image."
    if len(classes) < int((result.counts > 0).sum()):
        note += f" The {len(classes)} most frequent predictions."
    return f.Images(title="Mean heatmap by class", images=tuple(images), note=note)


def _table(run: Run, result: DatasetAttribution) -> f.Table:
    columns = (
        f.Column("Predicted Class", key="class"),
        f.Column("Images", "integer"),
        f.Column("On Border", "percent", key="border"),
        f.Column("Border Area", "percent"),
        f.Column("On Background", "percent", key="background"),
        f.Column("Background Area", "percent", rank=1),
    )
    rows: list[tuple[f.Cell, ...]] = [
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
        "Share of the heatmap on the border and on the background, next to their share "
        "of the area. Border: a tenth of the image on each side. Background: pixels "
        "with about the color of the border; a rough estimate. Attribution there can "
        "be correct (the hole of a 0), and coarse heatmaps spill over."
    )
    title = "Attribution on border and background"
    return f.Table(title=title, columns=columns, rows=tuple(rows), note=note)


def _warnings(run: Run, result: DatasetAttribution) -> list[f.Block]:
    limit = _BORDER * result.border_area
    named = [
        f"{run.labels[i]} ({percent(float(result.border[i]))})"
        for i in range(len(run.labels))
        if result.counts[i] >= _FEW and result.border[i] > limit
    ]
    if not named:
        return []
    text = (
        f"Unusually much attribution on the border for {', '.join(named)}; the border "
        f"is {percent(result.border_area)} of the area. A frame, a caption or the "
        "background may reveal the class (shortcut). Check these images."
    )
    return [f.Prose(text, "warning")]
