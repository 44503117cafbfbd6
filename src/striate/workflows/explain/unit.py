"""Report section on one unit (neuron): receptive field and contributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from striate.audit.network import Audit, audit
from striate.audit.receptive_field_tracker import Box, ReceptiveField
from striate.core.errors import GeometryError, StriateError
from striate.core.findings import Block, Image, Images, Prose, Section, Table
from striate.core.format import count_text
from striate.interpret.activations_at import iter_activations
from striate.interpret.arithmetic.contributions import Contributions, contributions
from striate.interpret.arithmetic.unit_arithmetic import UnitArithmetic
from striate.interpret.arithmetic.worked_example import (
    nearest_convolution,
    worked_example,
)
from striate.interpret.effective_receptive_field import (
    ENERGY_SHARE,
    EffectiveField,
    unit_effective_field,
)
from striate.interpret.layer_choice import target_layer
from striate.interpret.render import (
    draw_box,
    enlarge,
    overlay_heatmap,
    to_image,
    to_rgb,
)
from striate.report.format import number
from striate.report.table_records import table_dict
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.options import Unit

SIDE = 196  # minimum height of a drawn image, in pixels


@dataclass(frozen=True, kw_only=True)
class _UnitFacts:
    """Data of the report section on a unit."""

    layer: str
    unit: tuple[int, ...]
    field: EffectiveField
    box: Box | None
    contributions: Contributions | None


def strongest_unit(
    loaded: LoadedModel, image: ExplainedImage, layer: str | None, calls: Sequence[str]
) -> Unit:
    """Return the unit (channel, row, column) with the largest activation in a layer.

    Saturated units are left out: a value that several units share as the maximum is
    the limit of an activation function, such as 6 for ReLU6.

    Args:
        loaded: The network.
        image: The image.
        layer: The target layer; None for the last of `calls`.
        calls: Layers with maps of the shape (channels, height, width). If the target
            layer has other maps, such as tokens, the last of these layers is used.
    """
    call = layer or calls[-1]
    if call not in calls and not _has_maps(loaded, image, call):
        call = calls[-1]
    maps = next(iter_activations(loaded.model, [image.x], [call]))[call][0]
    top = maps.max()
    if int((maps == top).sum()) > 1 and bool((maps < top).any()):
        maps = maps.masked_fill(maps == top, -torch.inf)
    flat = int(maps.argmax())
    return call, tuple(int(i) for i in np.unravel_index(flat, tuple(maps.shape)))


def receptive_fields(loaded: LoadedModel) -> dict[str, ReceptiveField]:
    """Return the receptive fields by layer; empty if they cannot be computed."""
    spec = loaded.preprocess.spec
    try:
        result: Audit = audit(loaded.model, spec.shape)
    except StriateError:
        return {}
    fields = {
        name: row.receptive_field for name, row in result.container_outputs.items()
    }
    fields |= {layer.name: layer.receptive_field for layer in result.layers}
    return {name: field for name, field in fields.items() if field is not None}


def unit_section(
    loaded: LoadedModel,
    image: ExplainedImage,
    arithmetic: UnitArithmetic | None,
    unit: Unit,
    patch_blocks: Sequence[Block] = (),
    calls: Sequence[str] = (),
) -> tuple[Section, dict[str, Any]]:
    """Return the report section on one unit (neuron).

    `calls` are layers that are known to have maps (channels, height, width).
    """
    layer, index = unit
    if arithmetic is not None and layer not in arithmetic.names:
        arithmetic = None  # inside of a module that is a single step
    has_maps = len(index) == 3
    what = f"{layer} {list(index)} has no position"
    text = f"{what}: its receptive field is the whole image."
    if has_maps and layer not in calls and not _has_maps(loaded, image, layer):
        has_maps = False
        text = f"{layer} has no maps with channels, rows and columns, in this order."
    if not has_maps:
        section = Section("One unit", (Prose(text),))
        return section, {"layer": layer, "unit": list(index)}
    position = index[0], index[1], index[2]
    field = receptive_fields(loaded).get(layer)
    facts = _UnitFacts(
        layer=layer,
        unit=position,
        field=unit_effective_field(loaded.model, image.x, layer, position),
        box=field.box(position[1], position[2]) if field is not None else None,
        contributions=(
            None if arithmetic is None else contributions(arithmetic, layer, position)
        ),
    )
    table = _worked(arithmetic, facts)
    note = "The box is the exact receptive field, computed from the layer geometry."
    images = Images(images=tuple(_images(image, facts)), note=note)
    section = Section(
        "One unit",
        (images, *([table] if table else []), *patch_blocks),
        lead=_lead(facts),
    )
    return section, _as_data(facts, table)


def _has_maps(loaded: LoadedModel, image: ExplainedImage, layer: str) -> bool:
    """Return whether a layer's output has the shape (channels, height, width)."""
    try:
        where = target_layer(loaded.model, image.x, layer)
    except GeometryError:
        return False
    return where.layout.channels_first(len(where.shape) + 1)


def _worked(arithmetic: UnitArithmetic | None, facts: _UnitFacts) -> Table | None:
    if arithmetic is None:
        return None
    entry = nearest_convolution(arithmetic, arithmetic.open(facts.layer, facts.unit))
    return None if entry is None else worked_example(arithmetic, entry)


def _images(image: ExplainedImage, facts: _UnitFacts) -> list[Image]:
    energy = overlay_heatmap(image.pixels, facts.field.energy, False)
    views = [
        to_image(_with_box(to_rgb(image.pixels), facts.box), "receptive field"),
        to_image(_with_box(energy, facts.box), "effective field (gradient)"),
    ]
    if facts.contributions is not None:
        heat = facts.contributions.pixels.sum(0).cpu().numpy().astype(np.float64)
        added = _with_box(overlay_heatmap(image.pixels, heat, True), facts.box)
        detail = "red positive, blue negative"
        views.append(to_image(added, "contribution of each pixel", detail))
    if facts.box is not None:
        (first_row, last_row), (first_column, last_column) = facts.box
        inside = image.pixels[first_row : last_row + 1, first_column : last_column + 1]
        views.append(to_image(enlarge(inside, SIDE), "image in the field"))
    return views


def _lead(facts: _UnitFacts) -> str:
    rows = "unknown"
    if facts.box is not None:
        rows = "×".join(str(last - first + 1) for first, last in facts.box) + " pixels"
    text = (
        f"Unit {list(facts.unit)} of {facts.layer}. Its receptive field is {rows}. "
        f"{ENERGY_SHARE:.0%} of its squared gradient lies in "
        f"{count_text(facts.field.height, 'row')} "
        f"and {count_text(facts.field.width, 'column')} of this image "
        "(effective receptive field)."
    )
    if facts.contributions is None:
        return text
    pixels, steps = _sums(facts.contributions)
    return (
        f"{text} Its value is {number(facts.contributions.value)}: {number(pixels)} "
        f"from the pixels and {number(steps)} from biases."
    )


def _sums(result: Contributions) -> tuple[float, float]:
    return float(result.pixels.sum()), sum(result.steps.values())


def _as_data(facts: _UnitFacts, table: Table | None) -> dict[str, Any]:
    data: dict[str, Any] = {
        "layer": facts.layer,
        "unit": list(facts.unit),
        "box": None if facts.box is None else [list(span) for span in facts.box],
        "effective_field": {"rows": facts.field.height, "columns": facts.field.width},
    }
    if facts.contributions is not None:
        pixels, steps = _sums(facts.contributions)
        data |= {"value": facts.contributions.value, "pixels": pixels, "biases": steps}
    if table is not None:
        data["worked_example"] = table_dict(table)
    return data


def _with_box(pixels: np.ndarray, box: Box | None) -> np.ndarray:
    """Enlarge an image, and draw the outline of a box given in pixels of the image."""
    enlarged = enlarge(pixels, SIDE)
    if box is None:
        return enlarged
    times = len(enlarged) // len(pixels)
    spans = ((low * times, (high + 1) * times - 1) for low, high in box)
    return draw_box(enlarged, tuple(spans))
