"""The layers of an explanation: fields, patches, selectivity, statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from striate.audit.layer import shape_text
from striate.audit.network import Audit, audit
from striate.audit.sight import Sight
from striate.core.errors import StriateError
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Curve,
    Images,
    Prose,
    Section,
    Series,
    Table,
)
from striate.data.batches import Batches
from striate.data.part import Part
from striate.look.capture import captured
from striate.look.effective import HELD, unit_field
from striate.look.patches import Habits, Spot, habits
from striate.look.raster import enlarge, framed, overlay, picture, tile
from striate.look.spatial import calls_of, place
from striate.look.statistics import activation_statistics
from striate.runs.explain.flow import flow_section
from striate.runs.explain.shown import Shown, Wish, some
from striate.runs.explain.subject import Subject
from striate.runs.gallery import evenly

SIDE = 196
LAYERS = 12  # layers whose patches are drawn
CHANNELS = 6  # channels of a layer whose patches are drawn
PATCH = 48  # pixels a patch is drawn high, at least
LOOKED_AT = 1000  # pictures of the data searched for patches


def field_section(
    subject: Subject, one: Shown, layer: str | None, wish: Wish
) -> Section:
    """Draw what one unit can see, what it looks at, and what it found there."""
    call, unit = wish.unit or _strongest(subject, one, layer)
    if len(unit) != 3:
        text = f"{call} {list(unit)} has no place in the picture: it sees all of it."
        return Section(title="What one unit sees", blocks=(Prose(text=text),))
    field = unit_field(subject.model, one.x, call, (unit[0], unit[1], unit[2]))
    sight = _sights(subject).get(call)
    box = sight.box(*unit[1:]) if sight is not None else None
    grown, times = _enlarged(one.pixels)
    views = [picture(_boxed(grown, box, times), "what it can see")]
    looked = enlarge(overlay(one.pixels, field.energy, False), SIDE)
    views.append(picture(_boxed(looked, box, times), "what it looks at"))
    if box is not None:
        (top, bottom), (left, right) = box
        inside = one.pixels[top : bottom + 1, left : right + 1]
        views.append(picture(enlarge(inside, SIDE), "what is there"))
    rows = "not known" if box is None else _sides(box)
    lead = (
        f"Unit {list(unit)} of {call}. In theory it sees {rows} pixels; {HELD:.0%} of "
        f"the squared derivative lies within {field.height} rows and {field.width} "
        "columns of this picture."
    )
    note = "The box is exact: it comes from the network's geometry, without running it."
    images = Images(pictures=tuple(views), note=note)
    return Section(title="What one unit sees", lead=lead, blocks=(images,))


def _strongest(
    subject: Subject, one: Shown, layer: str | None
) -> tuple[str, tuple[int, ...]]:
    where = place(subject.model, one.x, layer or "auto")
    maps = next(captured(subject.model, [one.x], [where.call]))[where.call][0]
    flat = int(maps.argmax())
    return where.call, tuple(int(i) for i in np.unravel_index(flat, tuple(maps.shape)))


def _enlarged(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    colour = pixels if pixels.shape[-1] == 3 else pixels.mean(-1, keepdims=True)
    colour = np.broadcast_to(colour, (*pixels.shape[:2], 3)).astype(np.uint8)
    grown = enlarge(colour, SIDE)
    return grown, grown.shape[0] // pixels.shape[0]


def _boxed(
    pixels: np.ndarray, box: tuple[tuple[int, int], ...] | None, times: int
) -> np.ndarray:
    if box is None:
        return pixels
    grown = tuple((low * times, (high + 1) * times - 1) for low, high in box)
    return framed(pixels, grown)


def _sides(box: tuple[tuple[int, int], ...]) -> str:
    return "×".join(str(high - low + 1) for low, high in box)


def _sights(subject: Subject) -> dict[str, Sight]:
    """Return what each layer's units see; nothing where shapes cannot tell."""
    spec = subject.preprocess.spec
    try:
        found: Audit = audit(subject.model, spec.shape)
    except StriateError:
        return {}
    sights = {layer.name: layer.sight for layer in found.layers if layer.sight}
    ends = {name: row.sight for name, row in found.ends.items() if row.sight}
    return {**ends, **sights}


def layer_sections(subject: Subject, one: Shown) -> list[Section]:
    """Return filters and maps from low to high, patches, and the table of layers."""
    shapes = calls_of(subject.model, one.x)
    maps = [c for c, s in shapes.items() if len(s) == 3 and s[1] * s[2] > 1]
    inner = [c for c in maps if not any(o.startswith(f"{c}.") for o in maps)]
    sections = [flow_section(subject.model, one.x, inner)]
    if subject.run is not None:
        sections.append(_habits(subject, inner))
    sections.append(_table(subject, one))
    return sections


def _habits(subject: Subject, calls: Sequence[str]) -> Section:
    """Show what channels look for: the data's places that excite them most."""
    assert subject.run is not None  # noqa: S101 - asked by the caller
    run = subject.run
    part = some(run.data.parts[run.judged_part], LOOKED_AT)
    batches = Batches(
        part=part, preprocess=subject.preprocess, batch_size=64, shuffle=False
    )
    found = habits(subject.model, batches(0), calls, len(run.labels))
    chosen = evenly(found, LAYERS)
    sights = _sights(subject)
    blocks: list[Block] = [_curve(found), _numbers(found, run.labels.names)]
    for one in chosen:
        sight = sights.get(one.call)
        box = sight.box if sight is not None else _whole(part)
        blocks.append(_patches(one, part, box, run.labels.names))
    lead = (
        f"For single channels, the places of {len(part):,} {run.judged_part} pictures "
        "that excite them most, cut out by their exact receptive field."
    )
    return Section(title="What channels look for", lead=lead, blocks=tuple(blocks))


BoxOf = Callable[[int, int], tuple[tuple[int, int], ...] | None]


def _whole(part: Part) -> BoxOf:
    height, width = part.pixels.shape[1:3]
    return lambda row, column: ((0, height - 1), (0, width - 1))


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
        Column(title="for", key="favourite", rank=2),
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
    favourite = labels[one.favourites[best]]
    silent = count - len(heard)
    return one.call, count, float(heard.mean()), share, top, favourite, silent


def _patches(one: Habits, part: Part, box: BoxOf, labels: Sequence[str]) -> Images:
    """Draw one row of patches for each of the most selective channels."""
    order = one.selectivity.nan_to_num(-1).argsort(descending=True).tolist()
    drawn = []
    for channel in order[:CHANNELS]:
        spots = [spot for spot in one.spots[channel] if spot.value > 0]
        if not spots:
            continue
        row = tile(_cut(part, spots, box), columns=len(spots))
        share = float(one.selectivity[channel])
        favourite = labels[one.favourites[channel]]
        detail = f"selectivity {share:.2f}, most for {favourite}"
        drawn.append(picture(row, f"channel {channel}", detail))
    return Images(title=one.call, pictures=tuple(drawn))


def _cut(part: Part, spots: Sequence[Spot], box: BoxOf) -> list[np.ndarray]:
    """Cut patches of one size; where the border cuts a field short, grey stands in."""
    everything = tuple((0, side - 1) for side in part.pixels.shape[1:3])
    boxes = [box(spot.row, spot.column) or everything for spot in spots]
    sides = [max(b[axis][1] - b[axis][0] + 1 for b in boxes) for axis in (0, 1)]
    found = []
    for spot, ((top, bottom), (left, right)) in zip(spots, boxes, strict=True):
        pixels = part.pixels[spot.picture].numpy()[top : bottom + 1, left : right + 1]
        if pixels.shape[-1] != 3:
            grey = pixels.mean(-1, keepdims=True).round().astype(np.uint8)
            pixels = grey.repeat(3, -1)
        ground = np.full((*sides, 3), 128, np.uint8)
        # Cut at its first row, it ends where the others end.
        down = sides[0] - len(pixels) if top == 0 else 0
        across = sides[1] - pixels.shape[1] if left == 0 else 0
        ground[down : down + len(pixels), across : across + pixels.shape[1]] = pixels
        found.append(enlarge(ground, PATCH))
    return found


def _table(subject: Subject, one: Shown) -> Section:
    found = activation_statistics(subject.model, one.x)
    columns = (
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Kind", key="kind", rank=2),
        Column(title="Output", kind="code", key="output", rank=1),
        Column(title="Mean", kind="number", key="mean"),
        Column(title="Deviation", kind="number", key="deviation"),
        Column(title="Most", kind="number", key="most", rank=2),
        Column(title="Zero", kind="share", key="zero", hint="share of exact zeros"),
        Column(
            title="Silent",
            kind="integer",
            key="silent",
            hint="channels that are zero everywhere in this picture",
        ),
    )
    rows = tuple(
        (
            each.name,
            each.kind,
            shape_text(each.shape),
            each.mean,
            each.deviation,
            each.high,
            each.zero,
            each.silent,
        )
        for each in found
    )
    lead = "What every layer gave out for the first picture."
    return Section(
        title="Layers", lead=lead, blocks=(Table(columns=columns, rows=rows),)
    )
