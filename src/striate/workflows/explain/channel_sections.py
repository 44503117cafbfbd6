"""Report sections on chosen channels: optimized images, and ablation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from striate.core import findings as f
from striate.core.errors import SettingError
from striate.core.format import count_text
from striate.data.batches import batches_in_order
from striate.interpret.ablation import REPLACEMENTS, ChannelAblation, ablate_channels
from striate.interpret.activations_at import images_at_once
from striate.interpret.feature_visualization import (
    FeatureVisualization,
    visualize_channel,
)
from striate.interpret.render import enlarge, to_image, to_rgb
from striate.report.format import number, percent
from striate.report.table_records import records
from striate.workflows.explain.images import ExplainedImage, subsample
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import Channels, ExplainOptions

SIDE = 196  # minimum height of a drawn image, in pixels
MAX_CHANNELS = 8  # channels per report
MAX_IMAGES = 500  # images of the run for an ablation
BATCH = 64  # images per batch, at most
CLASSES = 20  # classes listed
VISUALIZE_LEAD = (
    "Images that were optimized from noise so that the mean activation of a channel is "
    "large (Olah et al. 2017). They show what the channel responds to, not real images."
)


def check_channels(channels: Channels, flag: str) -> None:
    """Raise an error if there are too many channels for one report."""
    if len(channels[1]) > MAX_CHANNELS:
        what = f"{count_text(len(channels[1]), 'channel')}; at most {MAX_CHANNELS}"
        raise SettingError(what, where=flag, fix="name fewer channels")


def visualization_section(
    loaded: LoadedModel, channels: Channels, options: ExplainOptions
) -> tuple[f.Section, list[dict[str, Any]]]:
    """Return the report section with an optimized image of each channel."""
    layer, numbers = channels
    results = []
    for channel in numbers:
        options.on_progress(f"image for channel {channel} of {layer}")
        results.append(
            visualize_channel(
                loaded.model, loaded.preprocess, layer, channel, seed=options.seed
            )
        )
    images = tuple(_image(result) for result in results)
    data = [
        {
            "layer": result.layer,
            "channel": result.channel,
            "activation": result.activation,
            "random_activation": result.random_activation,
        }
        for result in results
    ]
    title = f"Feature visualization of {layer}"
    return f.Section(title, (f.Images(images=images),), lead=VISUALIZE_LEAD), data


def _image(result: FeatureVisualization) -> f.Image:
    values = number(result.activation), number(result.random_activation)
    detail = f"mean activation {values[0]}; random image {values[1]}"
    pixels = enlarge(to_rgb(result.pixels), SIDE)
    return to_image(pixels, f"channel {result.channel}", detail)


def ablation_section(
    loaded: LoadedModel, images: Sequence[ExplainedImage], channels: Channels
) -> tuple[f.Section, dict[str, Any]]:
    """Return the report section on the effect of channels on logits and accuracy.

    A run is measured on the images of its evaluated split; another network on the
    explained images, which have no labels.
    """
    layer, numbers = channels
    batches, labels = _images(loaded, images)
    results = [
        ablate_channels(loaded.model, batches, layer, numbers, replacement)
        for replacement in REPLACEMENTS
    ]
    table = _summary(results, labels)
    classes = _class_table(loaded, results, labels)
    count = sum(map(len, batches))
    source = "explained images"
    if loaded.run is not None:
        source = f"images of the {loaded.run.evaluated_split} split"
    names = ", ".join(map(str, numbers))
    lead = (
        f"{count_text(len(numbers), 'channel')} of {layer} ({names}): each is replaced "
        f"at all positions by zero, or by its mean. Measured on {count:,} {source}. "
        "A large change means that the network depends on these channels."
    )
    data = {
        "layer": layer,
        "channels": list(numbers),
        "replacements": records(table),
        "classes": records(classes),
    }
    section = f.Section("Ablation of channels", (table, classes), lead=lead)
    return section, data


def _images(
    loaded: LoadedModel, images: Sequence[ExplainedImage]
) -> tuple[list[Tensor], Tensor | None]:
    if loaded.run is None:
        return [image.x for image in images], None
    subset = subsample(loaded.run.data.subsets[loaded.run.evaluated_split], MAX_IMAGES)
    size = images_at_once(loaded.preprocess.spec.shape, BATCH)
    pairs = list(batches_in_order(subset, loaded.preprocess, size))
    return [x for x, _ in pairs], torch.cat([y for _, y in pairs])


def _summary(results: Sequence[ChannelAblation], labels: Tensor | None) -> f.Table:
    columns = (
        f.Column("Replaced by"),
        f.Column("Value", "code", hint="value of each channel after the replacement"),
        f.Column("Accuracy before", "percent"),
        f.Column("Accuracy after", "percent"),
        f.Column("Changed predictions", "integer", hint="images with another class"),
        f.Column(
            "Logit change",
            "number",
            hint="mean absolute change of a logit, over images and classes",
        ),
    )
    rows: list[tuple[f.Cell, ...]] = []
    for result in results:
        accuracy: tuple[f.Cell, f.Cell] = (None, None)
        if labels is not None:
            accuracy = result.accuracy(labels)
        values = ", ".join(number(value) for value in result.values)
        change = float((result.after - result.before).abs().mean())
        changed = result.changed_predictions
        rows.append((result.replacement, values, *accuracy, changed, change))
    return f.Table(title="Effect of the ablation", columns=columns, rows=tuple(rows))


def _class_table(
    loaded: LoadedModel, results: Sequence[ChannelAblation], labels: Tensor | None
) -> f.Table:
    """Return the table of logit changes by class, largest change first."""
    zero, mean = (result.logit_change for result in results)
    order = torch.maximum(zero.abs(), mean.abs()).argsort(descending=True)[:CLASSES]
    columns = (
        f.Column("Class"),
        f.Column("Logit change, zero", "number", key="zero"),
        f.Column("Logit change, mean", "number", key="mean"),
        f.Column("Recall before", key="recall_before"),
        f.Column("Recall after, zero", key="recall_zero"),
        f.Column("Recall after, mean", key="recall_mean"),
    )
    rows: list[tuple[f.Cell, ...]] = []
    for i in order.tolist():
        name = loaded.labels[i] if loaded.labels else f"class {i}"
        logits = results[0].before, results[0].after, results[1].after
        recalls = [_recall(part, labels, i) for part in logits]
        rows.append((name, float(zero[i]), float(mean[i]), *recalls))
    title = "Mean change of the logits by class"
    return f.Table(title=title, columns=columns, rows=tuple(rows))


def _recall(logits: Tensor, labels: Tensor | None, index: int) -> str | None:
    if labels is None or not bool((labels == index).any()):
        return None
    return percent(float((logits.argmax(1)[labels == index] == index).double().mean()))
