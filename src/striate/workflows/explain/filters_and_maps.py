"""Report sections on layers: filters, feature maps, and activation statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from striate.audit.layer import shape_text
from striate.core.findings import Block, Cell, Column, Image, Images, Section, Table
from striate.core.format import count_text
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import forward, module_name
from striate.interpret.feature_maps import MAX_CHANNELS, map_sheet
from striate.interpret.filters import (
    filter_statistics,
    filter_tiles,
    kernel_sheet,
    layers_with_filters,
)
from striate.interpret.layer_statistics import activation_statistics
from striate.interpret.render import tile, to_image
from striate.report.table_records import records
from striate.run.report_images import evenly_spaced
from striate.workflows.explain.channel_selectivity import (
    ChannelPatches,
    channels_section,
)
from striate.workflows.explain.images import ExplainedImage
from striate.workflows.explain.load_model import LoadedModel
from striate.workflows.explain.optional_parts import OptionalParts

MOST = 48  # layers drawn; in deeper networks only those with filters
OPEN_LAYERS = 12  # in deeper networks each layer is folded
_COLUMNS = 16  # filters of one or three channels side by side
_READABLE = (1, 3)  # numbers of channels that can be drawn as one image
LEAD = (
    "Filters of each layer, and its feature maps for the first image, in forward "
    "order. Filters: blue is negative, red is positive; filters with three channels "
    "are drawn as RGB, with gray as zero. Feature maps: dark is the minimum, light "
    "the maximum of the map."
)


def filters_and_maps_section(
    model: nn.Module, x: Tensor, calls: Sequence[str]
) -> Section:
    """Draw filters and feature maps layer by layer, in forward order."""
    filters = layers_with_filters(model)
    drawn_layers = _layers_to_draw(calls, filters)
    sheets = _maps(model, x, drawn_layers)
    blocks: list[Block] = []
    for number, call in enumerate(calls, 1):
        if call not in sheets:
            continue
        images_of_layer = [sheets[call]]
        if call in filters:  # a later call of a module has the filters of the first
            images_of_layer.insert(0, _filters(filters[call]))
        title = f"{number} · {call}"
        folded = len(drawn_layers) > OPEN_LAYERS
        blocks.append(Images(title=title, images=tuple(images_of_layer), folded=folded))
    if filters:
        blocks.append(_filter_table(filters))
    lead = LEAD
    if len(drawn_layers) < len(calls):
        shown = f"{len(drawn_layers)} of {len(calls)}"
        lead += f" {shown} layers are shown: those with filters."
    title = "Filters and feature maps"
    return Section(title, tuple(blocks), lead=lead)


def _layers_to_draw(calls: Sequence[str], filters: dict[str, Tensor]) -> list[str]:
    """Return the layers to draw: all, or evenly spaced layers of a deep network."""
    if len(calls) <= MOST:
        return list(calls)
    weighted = [call for call in calls if module_name(call) in filters]
    return evenly_spaced(weighted or calls, MOST)


def _maps(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Image]:
    """Draw the feature maps of each layer during the forward pass."""
    names = set(calls)
    images: dict[str, Image] = {}

    def note(call: str, output: object) -> None:
        if call in names and isinstance(output, Tensor):
            maps = output[0].detach().float().cpu()
            drawn_layers = min(len(maps), MAX_CHANNELS)
            caption = f"feature maps, {shape_text(tuple(maps.shape))}"
            detail = f"{drawn_layers} of {count_text(len(maps), 'channel')}"
            images[call] = to_image(map_sheet(maps), caption, detail, palette=True)

    modules = list(dict.fromkeys(module_name(call) for call in calls))
    with (
        evaluation_mode(model),
        intercept_outputs(model, modules, note),
        torch.no_grad(),
    ):
        forward(model, x)
    return images


def _filters(weight: Tensor) -> Image:
    count, channels, height, width = weight.shape
    caption = f"{count_text(count, 'filter')} of {height}×{width}×{channels}"
    if channels in _READABLE:
        return to_image(tile(filter_tiles(weight), _COLUMNS), caption)
    sheet, detail = kernel_sheet(weight)
    return to_image(sheet, caption, detail, palette=True)


def _filter_table(filters: dict[str, Tensor]) -> Table:
    columns = (
        Column("Layer", "code"),
        Column("Filters", "integer"),
        Column("Kernel", "code", rank=1),
        Column("Min Norm", "number", rank=2),
        Column("Median Norm", "number"),
        Column("Max Norm", "number", rank=3),
        Column(
            "Dead",
            "integer",
            hint="filters with a norm below a thousandth of the largest",
        ),
        Column(
            "DC Share",
            "share",
            key="mean_share",
            hint="share of the squared weights in the kernels' means: 0 % for edge "
            "detectors, 100 % for kernels that only average",
        ),
        Column(
            "Max Cosine",
            "number",
            hint="largest |cosine| with another filter, median over filters; 1: "
            "duplicates",
        ),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, weight in filters.items():
        facts = filter_statistics(weight)
        channels, height, width = facts.kernel
        kernel = f"{height}×{width}×{channels}"
        norms = facts.min_norm, facts.median_norm, facts.max_norm
        others = facts.dead, facts.mean_share, facts.max_cosine
        rows.append((name, facts.count, kernel, *norms, *others))
    return Table(title="Filter statistics", columns=columns, rows=tuple(rows))


def layer_sections(
    loaded: LoadedModel,
    image: ExplainedImage,
    calls: Sequence[str],
    channel_patches: ChannelPatches | None,
    parts: OptionalParts,
) -> tuple[list[Section], dict[str, Any]]:
    """Return the report sections on filters, channels, and activation statistics."""
    data: dict[str, Any] = {}

    def filters() -> tuple[Section, list[dict[str, Cell]]]:
        section = filters_and_maps_section(loaded.model, image.x, calls)
        tables = [block for block in section.blocks if isinstance(block, Table)]
        return section, [row for table in tables for row in records(table)]

    section, data["filters"] = parts.section("Filters and feature maps", filters)
    sections = [section]
    if channel_patches is not None:
        section, data["selectivity"] = parts.section(
            "What channels detect", lambda: channels_section(channel_patches)
        )
        sections.append(section)
    section, data["layers"] = parts.section(
        "Activation statistics", lambda: _layer_table(loaded, image)
    )
    return [*sections, section], data


def _layer_table(
    loaded: LoadedModel, image: ExplainedImage
) -> tuple[Section, list[dict[str, Cell]]]:
    columns = (
        Column("Layer", "code"),
        Column("Type", rank=2),
        Column("Output Shape", "code", key="output", rank=1),
        Column("Mean", "number"),
        Column("Std", "number"),
        Column("Max", "number", rank=2),
        Column("Zeros", "share", key="zero_share", hint="share of exact zeros"),
        Column(
            "Dead",
            "integer",
            key="dead_channels",
            hint="channels that are zero everywhere in this image",
        ),
    )
    rows: list[tuple[Cell, ...]] = []
    for layer in activation_statistics(loaded.model, image.x):
        first = layer.name, layer.kind, shape_text(layer.shape)
        numbers = layer.mean, layer.std, layer.maximum
        rows.append((*first, *numbers, layer.zero_share, layer.dead_channels))
    title, lead = "Activation statistics", "Output of every layer for the first image."
    table = Table(columns=columns, rows=tuple(rows))
    return Section(title, (table,), lead=lead), records(table)
