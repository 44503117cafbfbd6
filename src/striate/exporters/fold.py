"""Folding of batch normalization into the convolution or linear layer before it.

In evaluation mode batch normalization is y = a·x + b for each channel, with
a = weight/√(var + eps) and b = bias − a·mean (Ioffe and Szegedy 2015, algorithm 2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from striate.exporters.graph import GraphNode, NetworkGraph

_FOLDABLE = ("conv", "conv_transpose", "linear")


def fold_batch_norm(graph: NetworkGraph) -> NetworkGraph:
    """Return a graph in which batch normalization is part of the layer before it.

    A layer is left as it is if another operation reads its output, or if another
    layer shares its weights.

    Example:
        >>> from torch import nn
        >>> from striate.exporters.trace_graph import trace_graph
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())
        >>> graph = trace_graph(model, (1, 4, 4))
        >>> [node.kind for node in fold_batch_norm(graph).nodes]
        ['conv', 'reshape']
    """
    uses, constants = graph.uses(), dict(graph.constants)
    before = {node.output: node for node in graph.nodes}
    folded: dict[str, GraphNode] = {}  # by the name of the output
    dropped: set[str] = set()
    for norm in graph.nodes:
        layer = before.get(norm.inputs[0])
        if norm.kind != "batch_norm" or layer is None or layer.kind not in _FOLDABLE:
            continue
        if len(uses[layer.output]) > 1 or len(uses[layer.inputs[1]]) > 1:
            continue
        if layer.kind == "linear" and len(graph.shapes[layer.output]) != 2:
            continue
        folded[norm.output] = _folded(layer, norm, constants)
        dropped.add(layer.output)
    nodes = [
        folded.get(node.output, node)
        for node in graph.nodes
        if node.output not in dropped
    ]
    return graph.with_nodes(nodes, constants)


def _folded(
    layer: GraphNode, norm: GraphNode, constants: dict[str, np.ndarray]
) -> GraphNode:
    """Return the layer with the normalization; its new weights are in `constants`."""
    weight = constants[layer.inputs[1]].astype(np.float64)
    scale, shift = batch_norm_affine(norm, constants)
    bias = constants[layer.inputs[2]] if len(layer.inputs) > 2 else 0.0
    if layer.kind == "conv_transpose":  # (in, out/groups, …)
        groups = layer.attrs["groups"]
        grouped = scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        split = weight.reshape(groups, -1, *weight.shape[1:])
        weight = (split * grouped).reshape(weight.shape)
    else:
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    names = layer.inputs[1], f"{norm.output}/bias"
    constants[names[0]] = weight.astype(np.float32)
    constants[names[1]] = (scale * bias + shift).astype(np.float32)
    inputs = (layer.inputs[0], *names)
    return replace(layer, inputs=inputs, output=norm.output, layer=norm.layer)


def batch_norm_affine(
    norm: GraphNode, constants: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale and the shift of each channel, in double precision."""
    weight, bias, mean, var = (
        constants[name].astype(np.float64) for name in norm.inputs[1:]
    )
    scale = weight / np.sqrt(var + norm.attrs["eps"])
    return scale, bias - scale * mean
