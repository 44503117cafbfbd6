"""One unit: what it can see, what it looks at, and the sum that makes its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from striate.audit.network import Audit, audit
from striate.audit.rf_tracker import Box, Sight
from striate.core.errors import StriateError
from striate.core.findings import Block, Image, Images, Prose, Section, Table
from striate.interpret.activations_at import captured
from striate.interpret.arithmetic.contributions import Shares, shares
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.worked_example import beneath, worked
from striate.interpret.effective_receptive_field import HELD, EffectiveField, unit_field
from striate.interpret.layer_choice import place
from striate.interpret.render import enlarge, framed, overlay, to_image
from striate.report.format import number
from striate.report.records import table_dict
from striate.workflows.explain.images import Shown, Unit
from striate.workflows.explain.subject import Subject

SIDE = 196  # pixels an image is drawn high, at least


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of a unit."""

    call: str
    unit: tuple[int, ...]
    field: EffectiveField
    box: Box | None
    shares: Shares | None


def strongest(subject: Subject, one: Shown, layer: str | None) -> Unit:
    """Return the unit of a layer's maps with the largest number."""
    where = place(subject.model, one.x, layer or "auto")
    maps = next(captured(subject.model, [one.x], [where.call]))[where.call][0]
    flat = int(maps.argmax())
    return where.call, tuple(int(i) for i in np.unravel_index(flat, tuple(maps.shape)))


def sights_of(subject: Subject) -> dict[str, Sight]:
    """Return what each layer's units see; nothing where shapes cannot tell."""
    spec = subject.preprocess.spec
    try:
        found: Audit = audit(subject.model, spec.shape)
    except StriateError:
        return {}
    sights = {layer.name: layer.sight for layer in found.layers if layer.sight}
    ends = {name: row.sight for name, row in found.ends.items() if row.sight}
    return {**ends, **sights}


def unit_section(
    subject: Subject,
    one: Shown,
    book: UnitArithmetic | None,
    unit: Unit,
    looked_for: Sequence[Block] = (),
) -> tuple[Section, dict[str, Any]]:
    """Draw what one unit can see, what it looks at, and the sum that it is.

    Args:
        subject: The network.
        one: The image.
        book: Its ledger, where there is one.
        unit: The layer, and (channel, row, column).
        looked_for: What its channel looks for in the data, where that is known.
    """
    call, place_of = unit
    if book is not None and call not in book.names:
        book = None  # inside a module that is one step of the ledger
    if len(place_of) != 3:
        text = f"{call} {list(place_of)} has no place in the image: it sees all of it."
        section = Section(title="What one unit sees", blocks=(Prose(text=text),))
        return section, {"layer": call, "unit": list(place_of)}
    there = place_of[0], place_of[1], place_of[2]
    sight = sights_of(subject).get(call)
    seen = _Seen(
        call=call,
        unit=there,
        field=unit_field(subject.model, one.x, call, there),
        box=sight.box(*there[1:]) if sight is not None else None,
        shares=shares(book, call, there) if book is not None else None,
    )
    table = _worked(book, seen)
    note = "The box is exact: it comes from the network's geometry, without running it."
    images = Images(images=tuple(_views(one, seen)), note=note)
    section = Section(
        title="What one unit sees",
        lead=_lead(seen),
        blocks=(images, *([table] if table else []), *looked_for),
    )
    return section, _facts(seen, table)


def _worked(book: UnitArithmetic | None, seen: _Seen) -> Table | None:
    if book is None:
        return None
    entry = beneath(book, book.open(seen.call, seen.unit))
    return None if entry is None else worked(book, entry)


def _views(one: Shown, seen: _Seen) -> list[Image]:
    grown, times = _enlarged(one.pixels)
    views = [to_image(_boxed(grown, seen.box, times), "what it can see")]
    looked = enlarge(overlay(one.pixels, seen.field.energy, False), SIDE)
    views.append(to_image(_boxed(looked, seen.box, times), "what it looks at"))
    if seen.shares is not None:
        heat = seen.shares.pixels.sum(0).cpu().numpy().astype(np.float64)
        added = enlarge(overlay(one.pixels, heat, True), SIDE)
        words = "what each pixel adds to it", "red adds, blue takes away"
        views.append(to_image(_boxed(added, seen.box, times), *words))
    if seen.box is not None:
        (top, bottom), (left, right) = seen.box
        inside = one.pixels[top : bottom + 1, left : right + 1]
        views.append(to_image(enlarge(inside, SIDE), "what is there"))
    return views


def _lead(seen: _Seen) -> str:
    rows = "not known" if seen.box is None else f"{_sides(seen.box)} pixels"
    said = (
        f"Unit {list(seen.unit)} of {seen.call}. In theory it sees {rows}; {HELD:.0%} "
        f"of the squared derivative lies within {seen.field.height} rows and "
        f"{seen.field.width} columns of this image."
    )
    if seen.shares is None:
        return said
    pixels, steps = _sums(seen.shares)
    return (
        f"{said} Its number here is {number(seen.shares.value)}: the pixels add "
        f"{number(pixels)}, the layers' own constants {number(steps)}."
    )


def _sums(found: Shares) -> tuple[float, float]:
    return float(found.pixels.sum()), sum(found.steps.values())


def _facts(seen: _Seen, table: Table | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "layer": seen.call,
        "unit": list(seen.unit),
        "box": None if seen.box is None else [list(span) for span in seen.box],
        "effective": {"rows": seen.field.height, "columns": seen.field.width},
    }
    if seen.shares is not None:
        pixels, steps = _sums(seen.shares)
        facts |= {"value": seen.shares.value, "pixels": pixels, "constants": steps}
    if table is not None:
        facts["worked"] = table_dict(table)
    return facts


def _enlarged(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    color = pixels if pixels.shape[-1] == 3 else pixels.mean(-1, keepdims=True)
    color = np.broadcast_to(color, (*pixels.shape[:2], 3)).astype(np.uint8)
    grown = enlarge(color, SIDE)
    return grown, grown.shape[0] // pixels.shape[0]


def _boxed(pixels: np.ndarray, box: Box | None, times: int) -> np.ndarray:
    if box is None:
        return pixels
    grown = tuple((low * times, (high + 1) * times - 1) for low, high in box)
    return framed(pixels, grown)


def _sides(box: Box) -> str:
    return "×".join(str(high - low + 1) for low, high in box)
