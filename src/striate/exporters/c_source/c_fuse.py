"""Fusion of an addition and a limit (ReLU, clamp) into the convolution before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from striate.exporters.graph import GraphNode, NetworkGraph

_HOSTS = ("conv", "linear")


@dataclass(frozen=True, kw_only=True)
class FusedNode:
    """An operation with what is computed when its values are stored."""

    node: GraphNode
    output: str
    residual: str | None = None  # value that is added
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_limited(self) -> bool:
        """Return whether the values are clamped."""
        return self.low > -math.inf or self.high < math.inf


def fuse_nodes(graph: NetworkGraph) -> list[FusedNode]:
    """Return the operations in execution order, with the fused ones left out.

    Example:
        >>> from torch import nn
        >>> from striate.exporters.trace_graph import trace_graph
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> [f.node.kind for f in fuse_nodes(trace_graph(model, (1, 4, 4)))]
        ['conv', 'reshape']
    """
    uses = {name: len(nodes) for name, nodes in graph.uses().items()}
    uses[graph.output] = uses.get(graph.output, 0) + 1
    single = {name for name, count in uses.items() if count == 1}
    fused: dict[str, FusedNode] = {}  # by output, in execution order
    for node in graph.nodes:
        host = _host(node, graph, fused, single)
        if host is None:
            fused[node.output] = FusedNode(node=node, output=node.output)
        else:
            del fused[host.output]
            fused[node.output] = _with(host, node)
    return list(fused.values())


def _host(
    node: GraphNode,
    graph: NetworkGraph,
    fused: dict[str, FusedNode],
    single: set[str],
) -> FusedNode | None:
    """Return the layer that can take the operation in."""
    if node.kind in ("relu", "clamp"):
        names: Sequence[str] = node.inputs[:1]
    elif node.kind == "add" and _same_shapes(node, graph):
        names = node.inputs[::-1]
    else:
        return None
    hosts = [fused[name] for name in names if name in single and name in fused]
    hosts = [
        host
        for host in hosts
        if host.node.kind in _HOSTS
        and not host.is_limited
        and not (node.kind == "add" and host.residual)
    ]
    if not hosts:
        return None
    outputs = list(fused)
    return max(hosts, key=lambda host: outputs.index(host.output))


def _same_shapes(node: GraphNode, graph: NetworkGraph) -> bool:
    a, b = node.inputs
    values = all(name not in graph.constants for name in (a, b))
    return values and a != b and graph.shape(a) == graph.shape(b)


def _with(host: FusedNode, node: GraphNode) -> FusedNode:
    if node.kind == "add":
        a, b = node.inputs
        other = b if a == host.output else a
        return replace(host, residual=other, output=node.output)
    low, high = (0.0, None)
    if node.kind == "clamp":
        low, high = node.attrs["low"], node.attrs["high"]
    return replace(
        host,
        output=node.output,
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
    )
