"""Diagram of a network for the HTML summary, with links to the table of layers."""

from __future__ import annotations

from collections.abc import Mapping

from striate.audit.block_graph import (
    BlockGraph,
    NetworkBlock,
    block_graph,
    inner_graphs,
)
from striate.audit.layer import Shape, shape_text
from striate.audit.network import Audit
from striate.core.findings import Diagram, DiagramNode
from striate.core.format import count_text

FEW = 3  # a block of so few layers shows the kind of the first one
NOTE = "Each box shows the shape of its output (height×width×channels)."
LINKS = "A click on a box shows its row in the table of layers."
NAMES = 4  # blocks of the same structure that a title lists


def network_diagram(audit: Audit, row_ids: Mapping[str, str] | None = None) -> Diagram:
    """Return the diagram of a network: its blocks, and which block feeds which.

    `row_ids` are the ids of the rows in the table of layers, by layer name.
    """
    image = DiagramNode(title="image", detail=shape_text(audit.shape))
    note = f"{NOTE} {LINKS}" if row_ids else NOTE
    return _diagram(block_graph(audit), image, row_ids or {}, note)


def inner_diagrams(
    audit: Audit, row_ids: Mapping[str, str] | None = None
) -> tuple[Diagram, ...]:
    """Return a folded diagram for each structure inside of the blocks of a network."""
    diagrams = []
    for inner in inner_graphs(audit):
        detail = shape_text(inner.input) if inner.input else ""
        outside = DiagramNode(title="input", detail=detail)
        first, *others = inner.names
        title = f"Inside {first}"
        if others:
            listed = ", ".join(others[:NAMES]) + (", …" if others[NAMES:] else "")
            blocks = count_text(len(others), "more block")
            title += f", and {blocks} of the same structure: {listed}"
        rows = row_ids or {}
        diagrams.append(_diagram(inner.graph, outside, rows, inside=first, title=title))
    return tuple(diagrams)


def _diagram(
    graph: BlockGraph,
    entry: DiagramNode,
    row_ids: Mapping[str, str],
    note: str = "",
    inside: str = "",
    title: str = "",
) -> Diagram:
    prefix = f"{inside}."
    pairs = zip(graph.blocks, graph.ranks, strict=True)
    nodes = [
        _node(
            block, block.title.removeprefix(prefix), rank + 1, _row_id(block, row_ids)
        )
        for block, rank in pairs
    ]
    return Diagram(
        nodes=(entry, *nodes),
        edges=tuple((source + 1, target + 1) for source, target in graph.edges),
        title=title,
        note=note,
        folded=bool(inside),
    )


def _node(block: NetworkBlock, title: str, rank: int, link: str) -> DiagramNode:
    kind = block.kinds[0]
    if block.layers > FEW:
        kind = count_text(block.layers, "layer")
    shape = _shape(block.output)
    hint = f"{block.title}: {' · '.join(block.kinds)}; "
    hint += f"{count_text(block.parameters, 'parameter')}, {block.macs:,} MACs"
    return DiagramNode(
        title=title,
        detail=f"{kind} · {shape}" if shape else kind,
        rank=rank,
        hint=hint,
        link=link,
    )


def _shape(output: Shape | None) -> str:
    return shape_text(output) if output else ""


def _row_id(block: NetworkBlock, row_ids: Mapping[str, str]) -> str:
    """Return the row id of a block: of itself, its first layer, or its container."""
    if block.name in row_ids:
        return row_ids[block.name]
    for name, row_id in row_ids.items():
        if name.startswith(f"{block.name}.") or block.name.startswith(f"{name}."):
            return row_id
    return ""
