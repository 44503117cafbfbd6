"""Diagram of a network for the HTML summary."""

from __future__ import annotations

from striate.audit.block_graph import block_graph
from striate.audit.layer import shape_text
from striate.audit.network import Audit
from striate.core.findings import Diagram, DiagramNode
from striate.core.format import count_text


def network_diagram(audit: Audit) -> Diagram:
    """Return the diagram of a network: its blocks, and which block feeds which."""
    graph = block_graph(audit)
    nodes = [DiagramNode(title="image", detail=shape_text(audit.shape))]
    for block, rank in zip(graph.blocks, graph.ranks, strict=True):
        kinds = " · ".join(block.kinds)
        shape = shape_text(block.output) if block.output else ""
        kind = block.kinds[0] if block.layers < 4 else count_text(block.layers, "layer")
        nodes.append(
            DiagramNode(
                title=block.title,
                detail=f"{kind} · {shape}" if shape else kind,
                rank=rank + 1,
                hint=f"{block.title}: {kinds}; "
                f"{count_text(block.parameters, 'parameter')}, {block.macs:,} MACs",
            )
        )
    edges = tuple((source + 1, target + 1) for source, target in graph.edges)
    note = "Each box shows the shape of its output (height×width×channels)."
    return Diagram(nodes=tuple(nodes), edges=edges, note=note)
