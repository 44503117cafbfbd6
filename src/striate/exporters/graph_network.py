"""A torch network that runs a `NetworkGraph`, with the layer names of the original."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.errors import GeometryError
from striate.exporters.graph import GraphNode, NetworkGraph
from striate.exporters.torch_operations import TORCH_OPERATIONS

# The positions of the inputs of batch normalization that no training step changes.
_STATISTICS = (3, 4)
_Source = tuple[nn.Module, str] | None  # owner and name of a constant; None: a value


class GraphOperation(nn.Module):
    """One operation of a graph; its output can be read and replaced by hooks.

    Args:
        kind: Key of `OPERATIONS`.
        attrs: Attributes of the operation.
    """

    def __init__(self, kind: str, attrs: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self.attrs = dict(attrs)
        self._sources: list[_Source] = []  # of all inputs, in order

    def forward(self, *values: Tensor) -> Tensor:
        """Compute the operation; the constants among its inputs are not arguments."""
        rest = iter(values)
        inputs = [
            next(rest) if source is None else _constant(*source)
            for source in self._sources
        ]
        return TORCH_OPERATIONS[self.kind](*inputs, **self.attrs)

    def extra_repr(self) -> str:
        """Return the operation and its attributes as text, for a printed model."""
        settings = [f"{key}={value}" for key, value in self.attrs.items()]
        return ", ".join([self.kind, *settings])


class GraphNetwork(nn.Module):
    """A torch network that runs a `NetworkGraph`.

    Each layer is a module with its name and output: hooks work as in the original
    network. A layer with several operations, or with layers inside, contains a module
    for each of them. `state_dict` has the names of the constants of the graph.

    Args:
        graph: Any graph; its constants are copied.

    Shapes:
        (batch, channels, height, width) float32 → (batch, classes) float32

    Example:
        >>> from striate.exporters.trace_graph import trace_graph
        >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
        >>> network = GraphNetwork(trace_graph(model, (1, 4, 4)))
        >>> [name for name, _ in network.named_modules()]
        ['', '0', '1', '2']
        >>> sorted(network.state_dict())
        ['0.bias', '0.weight']
        >>> x = torch.rand(5, 1, 4, 4)
        >>> torch.equal(network(x), model(x))
        True
    """

    def __init__(self, graph: NetworkGraph) -> None:
        super().__init__()
        self.input_shape = graph.input_shape
        self.num_classes = graph.num_classes
        self._output = graph.output
        self._last_use = _last_uses(graph)
        names = _operation_names(graph)
        operations = [GraphOperation(node.kind, node.attrs) for node in graph.nodes]
        for name, operation in sorted(zip(names, operations, strict=True), key=_depth):
            _container(self, name)._modules[name.rpartition(".")[2]] = operation
        sources = self._register_constants(graph)
        self._steps: list[list[tuple[str, tuple[str, ...], str]]] = []
        ends = _ends_of_layers(graph, names)
        for node, name, operation in zip(graph.nodes, names, operations, strict=True):
            operation._sources = [sources.get(key) for key in node.inputs]
            values = tuple(key for key in node.inputs if key not in sources)
            if node.kind == "expand":  # needs the number of images
                operation._sources.append(None)
                values = *values, graph.input
            layers = [
                (layer, (node.output,), node.output) for layer in ends[node.output]
            ]
            self._steps.append([(name, values, node.output), *layers])
        self._input = graph.input
        self.eval()

    def _register_constants(self, graph: NetworkGraph) -> dict[str, _Source]:
        """Add the constants as parameters and buffers; return where each of them is."""
        statistics = {
            node.inputs[position]
            for node in graph.nodes
            if node.kind == "batch_norm"
            for position in _STATISTICS
        }
        sources: dict[str, _Source] = {}
        for name, value in graph.constants.items():
            owner, leaf = _container(self, name), name.rpartition(".")[2]
            tensor = torch.from_numpy(np.array(value))  # a copy
            if name in statistics or not tensor.is_floating_point() or not tensor.ndim:
                owner._buffers[leaf] = tensor
            else:
                owner._parameters[leaf] = nn.Parameter(tensor)
            sources[name] = owner, leaf
        return sources

    def forward(self, image: Tensor) -> Tensor:
        """Return the output of the graph for a batch of images."""
        if image.shape[1:] != self.input_shape:
            expected, shape = list(self.input_shape), list(image.shape[1:])
            raise GeometryError(f"images must have the shape {expected}, got {shape}")
        values = {self._input: image}
        modules = dict(self.named_modules(remove_duplicate=False))
        for steps, unused in zip(self._steps, self._last_use, strict=True):
            for name, inputs, output in steps:
                values[output] = modules[name](*[values[key] for key in inputs])
            for key in unused:
                del values[key]
        return values[self._output]


def _constant(owner: nn.Module, name: str) -> Tensor:
    """Return a parameter or buffer; a module may have the same name."""
    value = owner._parameters.get(name)
    return owner._buffers[name] if value is None else value  # type: ignore[return-value]


def _depth(pair: tuple[str, GraphOperation]) -> int:
    """Return the depth of a module name: outer modules are added first."""
    return pair[0].count(".")


def _container(root: nn.Module, name: str) -> nn.Module:
    """Return the module that holds a dotted name, with new modules if necessary."""
    *parts, _ = name.split(".")
    for part in parts:
        if root._modules.get(part) is None:
            root._modules[part] = nn.Identity()
        root = root._modules[part]  # type: ignore[assignment]
    return root


def _last_of_layers(graph: NetworkGraph) -> dict[str, int]:
    """Return the index of the last node in each layer, also in the layers inside."""
    last: dict[str, int] = {}
    for number, node in enumerate(graph.nodes):
        parts = node.layer.split(".") if node.layer else []
        for count in range(len(parts), 0, -1):
            layer = ".".join(parts[:count])
            last.pop(layer, None)
            last[layer] = number
    return last  # inner layers before outer layers


def _operation_names(graph: NetworkGraph) -> list[str]:
    """Return a unique dotted name for each node; the last of a layer has its name."""
    last = _last_of_layers(graph)
    taken = {*last, *graph.constants}
    names = []
    for number, node in enumerate(graph.nodes):
        is_last = last.get(node.layer) == number
        names.append(node.layer if is_last else _free_name(node, taken))
    return names


def _ends_of_layers(graph: NetworkGraph, names: list[str]) -> dict[str, list[str]]:
    """Return for each value the layers that it is the output of, inner layers first."""
    ends: dict[str, list[str]] = {node.output: [] for node in graph.nodes}
    for layer, number in _last_of_layers(graph).items():
        if names[number] != layer:
            ends[graph.nodes[number].output].append(layer)
    return ends


def _free_name(node: GraphNode, taken: set[str]) -> str:
    stem = f"{node.layer}.{node.kind}" if node.layer else node.kind
    number, name = 2, stem
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name


def _last_uses(graph: NetworkGraph) -> list[list[str]]:
    """Return for each node the values that no later node reads."""
    last = {key: n for n, node in enumerate(graph.nodes) for key in node.inputs}
    if any(node.kind == "expand" for node in graph.nodes):
        last[graph.input] = len(graph.nodes)
    freed: list[list[str]] = [[] for _ in graph.nodes]
    for key, number in last.items():
        is_value = key not in graph.constants and key != graph.output
        if is_value and number < len(graph.nodes):
            freed[number].append(key)
    return freed
