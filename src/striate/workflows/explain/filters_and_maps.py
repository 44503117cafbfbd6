"""Filters and maps of every layer, in the order in which the data flows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from striate.audit.layer import shape_text
from striate.core.findings import (
    Block,
    Cell,
    Column,
    Image,
    Images,
    Section,
    Table,
)
from striate.core.hooks import evaluation_mode, intercept_outputs
from striate.interpret.activations_at import forward, module_of
from striate.interpret.feature_maps import SHOWN, map_sheet
from striate.interpret.filters import (
    filter_facts,
    filter_tiles,
    kernel_sheet,
    layers_with_filters,
)
from striate.interpret.render import tile, to_image
from striate.run.images import evenly

MOST = 48  # layers drawn; of deeper networks those with filters
_COLUMNS = 16  # filters of one or three channels side by side
_READABLE = (1, 3)  # channels that can be seen as one image


def flow_section(model: nn.Module, x: Tensor, calls: Sequence[str]) -> Section:
    """Draw filters and maps layer by layer, low ones first.

    Args:
        model: Any network; left as it was.
        x: The image whose maps are drawn, (1, C, H, W).
        calls: Layers whose outputs are maps, in the order they run.
    """
    filters = layers_with_filters(model)
    shown = _chosen(calls, filters)
    sheets = _maps(model, x, shown)
    blocks: list[Block] = []
    for number, call in enumerate(calls, 1):
        if call not in sheets:
            continue
        drawn = [sheets[call]]
        if call in filters:  # a later call of a module has the filters of the first
            drawn.insert(0, _filters(filters[call]))
        title = f"{number} · {call}"
        blocks.append(Images(title=title, images=tuple(drawn)))
    if filters:
        blocks.append(_table(filters))
    return Section(
        title="Filters and maps", lead=_lead(shown, calls), blocks=tuple(blocks)
    )


def _lead(shown: Sequence[str], calls: Sequence[str]) -> str:
    text = (
        "The first image on its way through, low layers first: each layer's filters, "
        "and the maps that it makes. Of filters blue is negative and red positive; a "
        "first layer's of three channels are in color, gray is zero. Maps go from "
        "their least, dark, to their most, light."
    )
    if len(shown) < len(calls):
        text += f" {len(shown)} of {len(calls)} layers: those with filters."
    return text


def _chosen(calls: Sequence[str], filters: dict[str, Tensor]) -> list[str]:
    """Return all layers; of a deep network those with filters, evenly if too many."""
    if len(calls) <= MOST:
        return list(calls)
    weighted = [call for call in calls if module_of(call) in filters]
    return evenly(weighted or calls, MOST)


def _maps(model: nn.Module, x: Tensor, calls: Sequence[str]) -> dict[str, Image]:
    """Draw maps as they pass: memory holds one layer's."""
    wanted = set(calls)
    found: dict[str, Image] = {}

    def note(call: str, output: object) -> None:
        if call in wanted and isinstance(output, Tensor):
            stack = output[0].detach().float().cpu()
            shown = min(len(stack), SHOWN)
            words = f"maps, {shape_text(tuple(stack.shape))}"
            detail = f"{shown} of {len(stack)} channels"
            found[call] = to_image(map_sheet(stack), words, detail)

    modules = list(dict.fromkeys(module_of(call) for call in calls))
    with (
        evaluation_mode(model),
        intercept_outputs(model, modules, note),
        torch.no_grad(),
    ):
        forward(model, x)
    return found


def _filters(weight: Tensor) -> Image:
    count, channels, height, width = weight.shape
    words = f"filters, {count} of {height}×{width}×{channels}"
    if channels in _READABLE:
        return to_image(tile(filter_tiles(weight), _COLUMNS), words)
    sheet, detail = kernel_sheet(weight)
    return to_image(sheet, words, detail)


def _table(filters: dict[str, Tensor]) -> Table:
    columns = (
        Column(title="Layer", kind="code", key="layer"),
        Column(title="Filters", kind="integer", key="filters"),
        Column(title="Kernel", kind="code", key="kernel", rank=1),
        Column(title="Least norm", kind="number", key="least", rank=2),
        Column(title="Median norm", kind="number", key="median"),
        Column(title="Most", kind="number", key="most", rank=3),
        Column(
            title="Dead",
            kind="integer",
            key="dead",
            hint="filters of less than a thousandth of the largest norm",
        ),
        Column(
            title="Level",
            kind="share",
            key="level",
            hint="share of the squared weights that lies in the kernels' means: near 0 "
            "they tell differences, as edges are; at 100 % they only add up",
        ),
        Column(
            title="Alike",
            kind="number",
            key="alike",
            hint="median over filters of the largest |cosine| with another",
        ),
    )
    rows: list[tuple[Cell, ...]] = []
    for name, weight in filters.items():
        facts = filter_facts(weight)
        channels, height, width = facts.kernel
        rows.append(
            (
                name,
                facts.count,
                f"{height}×{width}×{channels}",
                facts.least,
                facts.median,
                facts.most,
                facts.dead,
                facts.level,
                facts.alike,
            )
        )
    return Table(title="Filters in numbers", columns=columns, rows=tuple(rows))
