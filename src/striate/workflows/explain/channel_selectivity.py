"""Report section on channels: top-activating patches and class selectivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from torch import nn

from striate.audit.receptive_field_tracker import Box, ReceptiveField
from striate.core import findings as f
from striate.core.format import count_text
from striate.core.layer_names import layer_at, named_layers
from striate.data.batches import batches_in_order
from striate.data.cache.image_rows import display_rows
from striate.data.subset import Subset
from striate.interpret.activations_at import images_at_once, module_name
from striate.interpret.filters import layers_with_filters
from striate.interpret.render import enlarge, limit_side, tile, to_image, to_rgb
from striate.interpret.top_patches import (
    ChannelPreferences,
    TopPatch,
    channel_preferences,
)
from striate.report.table_records import records
from striate.run.report_images import evenly_spaced
from striate.workflows.explain.images import subsample
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.unit import receptive_fields

LAYERS = 12  # layers whose patches are drawn
CHANNELS = 6  # channels of a layer whose patches are drawn
CLASSES = 10  # classes listed for one channel
PLACES = 3  # patches per channel in channels.csv
PATCHES = 6  # patches of a channel that are drawn
PATCH = 48  # minimum height of a drawn patch, in pixels
MAX_PATCH = 64  # maximum side of a drawn patch, in pixels
MOST = 48  # in deeper networks, one layer for each convolution
# Activation functions with an upper limit: many units have the limit as their value, so
# that the highest activations are not the strongest patches.
SATURATING = (nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh)
MAX_IMAGES = 1000  # images that are searched for patches
BATCH = 64  # images per batch, at most
CHANNEL_COLUMNS = (
    *("layer", "channel", "selectivity", "preferred_class", "rank", "value"),
    "image_path",
    *("top", "bottom", "left", "right"),
)

BoxOf = Callable[[int, int], Box]


@dataclass(frozen=True, kw_only=True)
class ChannelPatches:
    """Image patches with the highest activation of each channel, for all layers."""

    name: str
    subset: Subset
    labels: Sequence[str]
    layers: tuple[ChannelPreferences, ...]
    boxes: Mapping[str, BoxOf]
    saturating: frozenset[str] = frozenset()  # calls of such activation functions

    def row(self, layer: ChannelPreferences, channel: int) -> f.Image | None:
        """Draw the top patches of a channel; return None if the channel is dead."""
        patches = layer.patches[channel][:PATCHES]
        top_patches = [patch for patch in patches if patch.value > 0]
        if not top_patches:
            return None
        crops = _crops(self.subset, top_patches, self.boxes[layer.call])
        pixels = tile(crops, columns=len(crops))
        text = self.text(layer, channel)
        return to_image(pixels, f"channel {channel}", text, palette=True)

    def text(self, layer: ChannelPreferences, channel: int) -> str:
        """Return selectivity and preferred class of a channel as text."""
        share = float(layer.selectivity[channel])
        preferred = self.labels[layer.preferred_classes[channel]]
        return f"selectivity {share:.2f}, preferred class {preferred}"

    def channel(self, call: str, number: int) -> list[f.Block]:
        """Return the top patches and the mean activation by class of one channel."""
        layer = next((each for each in self.layers if each.call == call), None)
        if layer is None:
            return []
        row = self.row(layer, number)
        if row is None:
            images = count_text(len(self.subset), "image")
            text = f"Channel {number} is dead (never above zero) on all {images}."
            return [f.Prose(text)]
        title = f"Top patches of channel {number}"
        return [f.Images(title=title, images=(row,)), self._classes(layer, number)]

    def _classes(self, layer: ChannelPreferences, number: int) -> f.Table:
        means = layer.by_class[:, number]
        columns = (f.Column("Class"), f.Column("Mean Activation", "number", key="mean"))
        order = means.argsort(descending=True)[:CLASSES].tolist()
        rows = tuple((self.labels[i], float(means[i])) for i in order)
        title = "Mean activation by class"
        note = "Mean of the positive activations over images and positions of a class."
        return f.Table(title=title, columns=columns, rows=rows, note=note)

    def table(self) -> tuple[tuple[str, ...], list[tuple[f.Cell, ...]]]:
        """Return the header and rows of channels.csv."""
        rows: list[tuple[f.Cell, ...]] = []
        for layer in self.layers:
            box = cache(self.boxes[layer.call])
            preferred = layer.preferred_classes
            for channel, top_patches in enumerate(layer.patches):
                share = float(layer.selectivity[channel])
                classes: tuple[f.Cell, ...] = (None, None)  # of a dead channel
                if share == share:
                    classes = round(share, 4), self.labels[preferred[channel]]
                channel_cells = layer.call, channel, *classes
                for rank, patch in enumerate(top_patches[:PLACES], 1):
                    edges = [e for span in box(patch.row, patch.column) for e in span]
                    path = self.subset.paths[patch.image]
                    value = f"{patch.value:.5g}"
                    rows.append((*channel_cells, rank, value, path, *edges))
        return CHANNEL_COLUMNS, rows


def channel_layers(model: nn.Module, calls: Sequence[str]) -> list[str]:
    """Return the layers whose channels are described: all, or one per convolution.

    In deep networks it is the last layer before the next convolution, without
    activation functions that saturate.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU6())
        >>> channel_layers(model, ["0", "1", "2"])
        ['0', '1', '2']
    """
    if len(calls) <= MOST:
        return list(calls)
    filters, modules = layers_with_filters(model), dict(named_layers(model))
    layers: list[str] = []
    for call in calls:
        if call in filters or not layers:
            layers.append(call)
        elif not isinstance(modules[module_name(call)], SATURATING):
            layers[-1] = call
    return layers


def find_channel_patches(
    loaded: LoadedModel, calls: Sequence[str]
) -> ChannelPatches | None:
    """Find the top-activating patches of each channel; None if there is no run."""
    run = loaded.run
    if run is None or not calls:
        return None
    subset = subsample(run.data.subsets[run.evaluated_split], MAX_IMAGES)
    height, width = subset.pixels.shape[1:3]
    size = images_at_once((height, width), BATCH)
    batches = batches_in_order(subset, loaded.preprocess, size)
    layers = channel_preferences(loaded.model, batches, calls, len(run.labels))
    fields = receptive_fields(loaded)
    whole_image = (0, height - 1), (0, width - 1)
    boxes = {call: _box_function(fields.get(call), whole_image) for call in calls}
    return ChannelPatches(
        name=run.evaluated_split,
        subset=replace(subset, pixels=display_rows(subset.pixels, loaded.preprocess)),
        labels=run.labels.names,
        layers=tuple(layers),
        boxes=boxes,
        saturating=frozenset(call for call in calls if _saturates(loaded.model, call)),
    )


def _saturates(model: nn.Module, call: str) -> bool:
    return isinstance(layer_at(model, module_name(call)), SATURATING)


def _box_function(field: ReceptiveField | None, whole_image: Box) -> BoxOf:
    """Return a function from the row and column of a unit to its receptive field."""
    if field is None:
        return lambda row, column: whole_image
    return lambda row, column: field.box(row, column) or whole_image


def channels_section(
    patches: ChannelPatches,
) -> tuple[f.Section, list[dict[str, f.Cell]]]:
    """Return the report section with top patches and selectivity of the channels."""
    table = _numbers(patches.layers, patches.labels)
    layers = [each for each in patches.layers if each.call not in patches.saturating]
    drawn = evenly_spaced(layers or patches.layers, LAYERS)
    images = [_patches(patches, layer) for layer in drawn]
    lead = (
        f"For some channels, the image patches with the highest activation in "
        f"{len(patches.subset):,} {patches.name} images, cropped to the receptive "
        "field. The channels of all these layers are in channels.csv."
    )
    section = f.Section(
        "What channels detect", (_curve(patches.layers), table, *images), lead=lead
    )
    return section, records(table)


def _curve(layers: Sequence[ChannelPreferences]) -> f.Curve:
    means = tuple(float(layer.selectivity.nanmean()) for layer in layers)
    depth = tuple(float(i) for i in range(1, len(layers) + 1))
    series = f.Series("mean over channels", depth, means)
    names = ", ".join(f"{i} {layer.call}" for i, layer in enumerate(layers, 1))
    return f.Curve(
        "Class selectivity by depth",
        x_label="layer",
        y_label="0: all classes equal, 1: one class only",
        series=(series,),
        note=names if len(layers) <= 2 * LAYERS else "",
    )


def _numbers(layers: Sequence[ChannelPreferences], labels: Sequence[str]) -> f.Table:
    columns = (
        f.Column("Layer", "code"),
        f.Column("Channels", "integer", rank=1),
        f.Column("Mean Selectivity", "number", key="mean"),
        f.Column(
            "Selective",
            "share",
            hint="channels with selectivity above 0.5: one class activates them at "
            "least three times as strongly as the others",
        ),
        f.Column("Max", "number", rank=2),
        f.Column("Max for Class", key="preferred_class", rank=2),
        f.Column("Dead", "integer", hint="channels that are never above zero"),
    )
    rows = tuple(_row(layer, labels) for layer in layers)
    return f.Table(title="Selectivity by layer", columns=columns, rows=rows)


def _row(layer: ChannelPreferences, labels: Sequence[str]) -> tuple[f.Cell, ...]:
    selectivity = layer.selectivity.nan_to_num(-1)
    active = layer.selectivity[~layer.selectivity.isnan()]
    count, best = len(selectivity), int(selectivity.argmax())
    if not len(active):
        return layer.call, count, None, None, None, None, count
    share = float((active > 0.5).double().mean())
    first_row = float(selectivity[best])
    preferred = labels[layer.preferred_classes[best]]
    silent = count - len(active)
    return layer.call, count, float(active.mean()), share, first_row, preferred, silent


def _patches(patches: ChannelPatches, layer: ChannelPreferences) -> f.Images:
    """Draw the top patches of the most selective channels, one row per channel."""
    order = layer.selectivity.nan_to_num(-1).argsort(descending=True).tolist()
    images = [patches.row(layer, channel) for channel in order[:CHANNELS]]
    folded = len(patches.layers) > LAYERS
    rows = tuple(row for row in images if row)
    return f.Images(title=layer.call, images=rows, folded=folded)


def _crops(
    subset: Subset, top_patches: Sequence[TopPatch], box: BoxOf
) -> list[np.ndarray]:
    """Crop image patches to equal size; parts outside of the image are gray."""
    boxes = [box(patch.row, patch.column) for patch in top_patches]
    sides = [max(b[axis][1] - b[axis][0] + 1 for b in boxes) for axis in (0, 1)]
    crops = []
    for patch, ((first_row, last_row), (first_column, last_column)) in zip(
        top_patches, boxes, strict=True
    ):
        whole = to_rgb(subset.pixels[patch.image].numpy())
        pixels = whole[first_row : last_row + 1, first_column : last_column + 1]
        ground = np.full((*sides, 3), 128, np.uint8)
        # A field cut off at the top or left is aligned at the bottom or right.
        down = sides[0] - len(pixels) if first_row == 0 else 0
        across = sides[1] - pixels.shape[1] if first_column == 0 else 0
        ground[down : down + len(pixels), across : across + pixels.shape[1]] = pixels
        crops.append(enlarge(limit_side(ground, MAX_PATCH), PATCH))
    return crops
