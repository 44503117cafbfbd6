"""What channels look for: the places of the data that excite them, and its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from striate.audit.rf_tracker import Box, ReceptiveField
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Image,
    Images,
    Prose,
    Section,
    Series,
    Table,
)
from striate.data.batches import Batches
from striate.data.subset import Subset
from striate.interpret.activations_at import images_at_once
from striate.interpret.render import enlarge, tile, to_image
from striate.interpret.top_patches import (
    ChannelPreferences,
    TopPatch,
    channel_preferences,
)
from striate.report.records import records
from striate.run.images import evenly
from striate.workflows.explain.images import subsample
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.unit import receptive_fields

LAYERS = 12  # layers whose patches are drawn
CHANNELS = 6  # channels of a layer whose patches are drawn
CLASSES = 10  # of a channel's answers
PLACES = 3  # of a channel, told to programs
PATCH = 48  # pixels a patch is drawn high, at least
MAX_IMAGES = 1000  # images of the data searched for patches
BATCH = 64  # of them at once, at most
CHANNEL_COLUMNS = (
    *("layer", "channel", "selectivity", "favorite", "rank", "value", "image"),
    *("top", "bottom", "left", "right"),
)

BoxOf = Callable[[int, int], Box]


@dataclass(frozen=True, kw_only=True)
class ChannelPatches:
    """What the channels of all layers answer to, over some of a run's images.

    Args:
        name: Of the part they are from.
        subset: The images.
        labels: Class names.
        layers: One a layer, as the data flows.
        boxes: The box of each layer's units on the image.
    """

    name: str
    subset: Subset
    labels: Sequence[str]
    layers: tuple[ChannelPreferences, ...]
    boxes: Mapping[str, BoxOf]

    def row(self, layer: ChannelPreferences, channel: int) -> Image | None:
        """Draw a channel's places side by side; None where it is silent."""
        top_patches = [patch for patch in layer.patches[channel] if patch.value > 0]
        if not top_patches:
            return None
        pixels = tile(
            _crops(self.subset, top_patches, self.boxes[layer.call]),
            columns=len(top_patches),
        )
        return to_image(pixels, f"channel {channel}", self.text(layer, channel))

    def text(self, layer: ChannelPreferences, channel: int) -> str:
        """Say how selective a channel is, and for what."""
        share = float(layer.selectivity[channel])
        preferred = self.labels[layer.preferred_classes[channel]]
        return f"selectivity {share:.2f}, most for {preferred}"

    def channel(self, call: str, number: int) -> list[Block]:
        """Show one channel's places and what each class makes of it."""
        layer = next((each for each in self.layers if each.call == call), None)
        if layer is None:
            return []
        row = self.row(layer, number)
        if row is None:
            text = f"Channel {number} is silent on all {len(self.subset):,} images."
            return [Prose(text=text)]
        title = f"What channel {number} looks for"
        return [Images(title=title, images=(row,)), self._classes(layer, number)]

    def _classes(self, layer: ChannelPreferences, number: int) -> Table:
        means = layer.by_class[:, number]
        columns = (
            Column(title="Class", key="class"),
            Column(title="Mean answer", kind="number", key="mean"),
        )
        order = means.argsort(descending=True)[:CLASSES].tolist()
        rows = tuple((self.labels[i], float(means[i])) for i in order)
        note = "What is above zero, averaged over a class's images and places."
        return Table(title="By class", columns=columns, rows=rows, note=note)

    def table(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """Return every channel of every layer with its best places, for programs."""
        rows: list[tuple[Cell, ...]] = []
        for layer in self.layers:
            box = self.boxes[layer.call]
            for channel, top_patches in enumerate(layer.patches):
                channel_cells = layer.call, channel, *self._selectivity(layer, channel)
                for rank, patch in enumerate(top_patches[:PLACES], 1):
                    edges = [e for span in box(patch.row, patch.column) for e in span]
                    path = self.subset.paths[patch.image]
                    rows.append(
                        (*channel_cells, rank, f"{patch.value:.5g}", path, *edges)
                    )
        return CHANNEL_COLUMNS, rows

    def _selectivity(
        self, layer: ChannelPreferences, channel: int
    ) -> tuple[Cell, Cell]:
        """Return selectivity and favorite class; neither where it is silent."""
        share = float(layer.selectivity[channel])
        if share != share:
            return None, None
        return round(share, 4), self.labels[layer.preferred_classes[channel]]


def find_channel_patches(
    loaded: LoadedModel, calls: Sequence[str]
) -> ChannelPatches | None:
    """Search a run's images for what excites each channel; None without either."""
    run = loaded.run
    if run is None or not calls:
        return None
    subset = subsample(run.data.subsets[run.evaluated_split], MAX_IMAGES)
    height, width = subset.pixels.shape[1:3]
    batches = Batches(
        subset=subset,
        preprocess=loaded.preprocess,
        batch_size=images_at_once(height, width, BATCH),
        shuffle=False,
    )
    layers = channel_preferences(loaded.model, batches(0), calls, len(run.labels))
    fields = receptive_fields(loaded)
    whole_image = (0, height - 1), (0, width - 1)
    boxes = {call: _box_function(fields.get(call), whole_image) for call in calls}
    return ChannelPatches(
        name=run.evaluated_split,
        subset=subset,
        labels=run.labels.names,
        layers=tuple(layers),
        boxes=boxes,
    )


def _box_function(field: ReceptiveField | None, whole_image: Box) -> BoxOf:
    """Return where a unit looks; the whole image where geometry cannot tell."""
    if field is None:
        return lambda row, column: whole_image
    return lambda row, column: field.box(row, column) or whole_image


def channels_section(patches: ChannelPatches) -> tuple[Section, list[dict[str, Cell]]]:
    """Show what channels look for: the data's places that excite them most."""
    table = _numbers(patches.layers, patches.labels)
    blocks: list[Block] = [_curve(patches.layers), table]
    blocks += [_patches(patches, layer) for layer in evenly(patches.layers, LAYERS)]
    lead = (
        f"For single channels, the places of {len(patches.subset):,} {patches.name} "
        "images that excite them most, cut out by their exact receptive field. "
        "Every channel of every layer stands in channels.csv."
    )
    section = Section(title="What channels look for", lead=lead, blocks=tuple(blocks))
    return section, records(table)


def _curve(layers: Sequence[ChannelPreferences]) -> Curve:
    means = [float(layer.selectivity.nanmean()) for layer in layers]
    depth = tuple(float(i) for i in range(1, len(layers) + 1))
    series = Series(name="mean of the channels", x=depth, y=tuple(means))
    names = ", ".join(f"{i} {layer.call}" for i, layer in enumerate(layers, 1))
    return Curve(
        title="Class selectivity by depth",
        x_label="layer",
        y_label="0 all classes alike, 1 one alone",
        series=(series,),
        note=names if len(layers) <= 2 * LAYERS else "",
    )


def _numbers(layers: Sequence[ChannelPreferences], labels: Sequence[str]) -> Table:
    columns = (
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Channels", kind="integer", key="channels", rank=1),
        Column(title="Selectivity", kind="number", key="mean"),
        Column(
            title="Above a half",
            kind="share",
            key="selective",
            hint="channels that answer a class three times as strongly as the others",
        ),
        Column(title="Most", kind="number", key="most", rank=2),
        Column(title="for", key="favorite", rank=2),
        Column(
            title="Silent",
            kind="integer",
            key="silent",
            hint="channels that are never above zero",
        ),
    )
    rows = tuple(_row(layer, labels) for layer in layers)
    return Table(title="Selectivity in numbers", columns=columns, rows=rows)


def _row(layer: ChannelPreferences, labels: Sequence[str]) -> tuple[Cell, ...]:
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


def _patches(patches: ChannelPatches, layer: ChannelPreferences) -> Images:
    """Draw one row of patches for each of the most selective channels."""
    order = layer.selectivity.nan_to_num(-1).argsort(descending=True).tolist()
    images = [patches.row(layer, channel) for channel in order[:CHANNELS]]
    return Images(title=layer.call, images=tuple(row for row in images if row))


def _crops(
    subset: Subset, top_patches: Sequence[TopPatch], box: BoxOf
) -> list[np.ndarray]:
    """Cut patches of one size; where the border cuts a field short, gray stands in."""
    boxes = [box(patch.row, patch.column) for patch in top_patches]
    sides = [max(b[axis][1] - b[axis][0] + 1 for b in boxes) for axis in (0, 1)]
    layers = []
    for patch, ((first_row, last_row), (first_column, last_column)) in zip(
        top_patches, boxes, strict=True
    ):
        pixels = subset.pixels[patch.image].numpy()[
            first_row : last_row + 1, first_column : last_column + 1
        ]
        if pixels.shape[-1] != 3:
            gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
            pixels = gray.repeat(3, -1)
        ground = np.full((*sides, 3), 128, np.uint8)
        # Cut at its first row, it ends where the others end.
        down = sides[0] - len(pixels) if first_row == 0 else 0
        across = sides[1] - pixels.shape[1] if first_column == 0 else 0
        ground[down : down + len(pixels), across : across + pixels.shape[1]] = pixels
        layers.append(enlarge(ground, PATCH))
    return layers
