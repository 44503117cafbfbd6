"""What channels look for: the places of the data that excite them, and its classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from striate.audit.rf_tracker import Box, Sight
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
from striate.interpret.activations_at import together
from striate.interpret.render import enlarge, tile, to_image
from striate.interpret.top_patches import Habits, Spot, habits
from striate.report.records import records
from striate.run.images import evenly
from striate.workflows.explain.images import some
from striate.workflows.explain.subject import Subject
from striate.workflows.explain.unit import sights_of

LAYERS = 12  # layers whose patches are drawn
CHANNELS = 6  # channels of a layer whose patches are drawn
CLASSES = 10  # of a channel's answers
PLACES = 3  # of a channel, told to programs
PATCH = 48  # pixels a patch is drawn high, at least
LOOKED_AT = 1000  # images of the data searched for patches
BATCH = 64  # of them at once, at most
CHANNEL_COLUMNS = (
    *("layer", "channel", "selectivity", "favorite", "rank", "value", "image"),
    *("top", "bottom", "left", "right"),
)

BoxOf = Callable[[int, int], Box]


@dataclass(frozen=True, kw_only=True)
class LookedFor:
    """What the channels of all layers answer to, over some of a run's images.

    Args:
        name: Of the part they are from.
        subset: The images.
        labels: Class names.
        found: One a layer, as the data flows.
        boxes: The box of each layer's units on the image.
    """

    name: str
    subset: Subset
    labels: Sequence[str]
    found: tuple[Habits, ...]
    boxes: Mapping[str, BoxOf]

    def row(self, one: Habits, channel: int) -> Image | None:
        """Draw a channel's places side by side; None where it is silent."""
        spots = [spot for spot in one.spots[channel] if spot.value > 0]
        if not spots:
            return None
        pixels = tile(
            _cut(self.subset, spots, self.boxes[one.call]), columns=len(spots)
        )
        return to_image(pixels, f"channel {channel}", self.words(one, channel))

    def words(self, one: Habits, channel: int) -> str:
        """Say how selective a channel is, and for what."""
        share = float(one.selectivity[channel])
        favorite = self.labels[one.favorites[channel]]
        return f"selectivity {share:.2f}, most for {favorite}"

    def channel(self, call: str, number: int) -> list[Block]:
        """Show one channel's places and what each class makes of it."""
        one = next((each for each in self.found if each.call == call), None)
        if one is None:
            return []
        row = self.row(one, number)
        if row is None:
            text = f"Channel {number} is silent on all {len(self.subset):,} images."
            return [Prose(text=text)]
        title = f"What channel {number} looks for"
        return [Images(title=title, images=(row,)), self._classes(one, number)]

    def _classes(self, one: Habits, number: int) -> Table:
        means = one.by_class[:, number]
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
        for one in self.found:
            box = self.boxes[one.call]
            for channel, spots in enumerate(one.spots):
                head = one.call, channel, *self._liking(one, channel)
                for rank, spot in enumerate(spots[:PLACES], 1):
                    edges = [e for span in box(spot.row, spot.column) for e in span]
                    path = self.subset.paths[spot.image]
                    rows.append((*head, rank, f"{spot.value:.5g}", path, *edges))
        return CHANNEL_COLUMNS, rows

    def _liking(self, one: Habits, channel: int) -> tuple[Cell, Cell]:
        """Return selectivity and favorite class; neither where it is silent."""
        share = float(one.selectivity[channel])
        if share != share:
            return None, None
        return round(share, 4), self.labels[one.favorites[channel]]


def look_for(subject: Subject, calls: Sequence[str]) -> LookedFor | None:
    """Search a run's images for what excites each channel; None without either."""
    run = subject.run
    if run is None or not calls:
        return None
    subset = some(run.data.subsets[run.evaluated_split], LOOKED_AT)
    height, width = subset.pixels.shape[1:3]
    batches = Batches(
        subset=subset,
        preprocess=subject.preprocess,
        batch_size=together(height, width, BATCH),
        shuffle=False,
    )
    found = habits(subject.model, batches(0), calls, len(run.labels))
    sights = sights_of(subject)
    everything = (0, height - 1), (0, width - 1)
    boxes = {call: _box_of(sights.get(call), everything) for call in calls}
    return LookedFor(
        name=run.evaluated_split,
        subset=subset,
        labels=run.labels.names,
        found=tuple(found),
        boxes=boxes,
    )


def _box_of(sight: Sight | None, everything: Box) -> BoxOf:
    """Return where a unit looks; the whole image where geometry cannot tell."""
    if sight is None:
        return lambda row, column: everything
    return lambda row, column: sight.box(row, column) or everything


def channels_section(looked: LookedFor) -> tuple[Section, list[dict[str, Cell]]]:
    """Show what channels look for: the data's places that excite them most."""
    table = _numbers(looked.found, looked.labels)
    blocks: list[Block] = [_curve(looked.found), table]
    blocks += [_patches(looked, one) for one in evenly(looked.found, LAYERS)]
    lead = (
        f"For single channels, the places of {len(looked.subset):,} {looked.name} "
        "images that excite them most, cut out by their exact receptive field. "
        "Every channel of every layer stands in channels.csv."
    )
    section = Section(title="What channels look for", lead=lead, blocks=tuple(blocks))
    return section, records(table)


def _curve(found: Sequence[Habits]) -> Curve:
    means = [float(one.selectivity.nanmean()) for one in found]
    depth = tuple(float(i) for i in range(1, len(found) + 1))
    series = Series(name="mean of the channels", x=depth, y=tuple(means))
    names = ", ".join(f"{i} {one.call}" for i, one in enumerate(found, 1))
    return Curve(
        title="Class selectivity by depth",
        x_label="layer",
        y_label="0 all classes alike, 1 one alone",
        series=(series,),
        note=names if len(found) <= 2 * LAYERS else "",
    )


def _numbers(found: Sequence[Habits], labels: Sequence[str]) -> Table:
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
    rows = tuple(_row(one, labels) for one in found)
    return Table(title="Selectivity in numbers", columns=columns, rows=rows)


def _row(one: Habits, labels: Sequence[str]) -> tuple[Cell, ...]:
    known = one.selectivity.nan_to_num(-1)
    heard = one.selectivity[~one.selectivity.isnan()]
    count, best = len(known), int(known.argmax())
    if not len(heard):
        return one.call, count, None, None, None, None, count
    share = float((heard > 0.5).double().mean())
    top = float(known[best])
    favorite = labels[one.favorites[best]]
    silent = count - len(heard)
    return one.call, count, float(heard.mean()), share, top, favorite, silent


def _patches(looked: LookedFor, one: Habits) -> Images:
    """Draw one row of patches for each of the most selective channels."""
    order = one.selectivity.nan_to_num(-1).argsort(descending=True).tolist()
    drawn = [looked.row(one, channel) for channel in order[:CHANNELS]]
    return Images(title=one.call, images=tuple(row for row in drawn if row))


def _cut(subset: Subset, spots: Sequence[Spot], box: BoxOf) -> list[np.ndarray]:
    """Cut patches of one size; where the border cuts a field short, gray stands in."""
    boxes = [box(spot.row, spot.column) for spot in spots]
    sides = [max(b[axis][1] - b[axis][0] + 1 for b in boxes) for axis in (0, 1)]
    found = []
    for spot, ((top, bottom), (left, right)) in zip(spots, boxes, strict=True):
        pixels = subset.pixels[spot.image].numpy()[top : bottom + 1, left : right + 1]
        if pixels.shape[-1] != 3:
            gray = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
            pixels = gray.repeat(3, -1)
        ground = np.full((*sides, 3), 128, np.uint8)
        # Cut at its first row, it ends where the others end.
        down = sides[0] - len(pixels) if top == 0 else 0
        across = sides[1] - pixels.shape[1] if left == 0 else 0
        ground[down : down + len(pixels), across : across + pixels.shape[1]] = pixels
        found.append(enlarge(ground, PATCH))
    return found
