"""Builder of a `NetworkGraph` from the steps of two traces with other batch sizes.

The numbers that differ between the two traces depend on the batch size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from striate.core.errors import StriateError
from striate.exporters.graph import BATCH, GraphNode, NetworkGraph
from striate.interpret.trace import TensorRef, TraceStep


class UnsupportedOperationError(StriateError):
    """Error of an operation that an exporter cannot write."""


class GraphBuilder:
    """Collects the nodes, constants and shapes of a graph.

    Args:
        model: The network, for the names of its weights.
        image: The first step of each trace.
    """

    def __init__(self, model: nn.Module, images: tuple[TraceStep, TraceStep]) -> None:
        self.nodes: list[GraphNode] = []
        self.constants: dict[str, np.ndarray] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.layer = ""
        self._names: dict[TensorRef, str] = {TensorRef(0): "input"}
        self.shapes["input"] = merged_shape(images[0].results[0], images[1].results[0])
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._weight_names = {
            tensor.untyped_storage().data_ptr(): name for name, tensor in tensors
        }
        self._constant_names: dict[tuple[Any, ...], str] = {}
        self._taken = {"input", "logits"}

    def error(self, what: str) -> UnsupportedOperationError:
        """Return the error that a network cannot be exported, with its layer."""
        layer = f"layer {self.layer}" if self.layer else "forward() of the network"
        fix = "replace this operation, or export a network without it"
        return UnsupportedOperationError(what, where=layer, fix=fix)

    def name_of(self, argument: Any) -> str:
        """Return the name of a value, or of a constant tensor or number."""
        if isinstance(argument, TensorRef):
            if argument not in self._names:
                raise self.error("an operation with several outputs is not supported")
            return self._names[argument]
        return argument if isinstance(argument, str) else self.constant(argument)

    def constant(self, value: Tensor | np.ndarray | float, hint: str = "") -> str:
        """Store a constant, once; return its name."""
        array = self._as_array(value)
        name = hint
        if isinstance(value, Tensor):
            name = name or self._weight_names.get(
                value.untyped_storage().data_ptr(), ""
            )
        content = hashlib.sha256(array.tobytes()).digest()
        key = (name, array.dtype.str, array.shape, content)
        if key not in self._constant_names:
            self._constant_names[key] = self._free_name(name or "constant")
            self.constants[self._constant_names[key]] = array
        return self._constant_names[key]

    def _as_array(self, value: Tensor | np.ndarray | float) -> np.ndarray:
        if isinstance(value, int | float):
            return np.array(value, np.float32)
        if isinstance(value, Tensor):
            value = value.detach().cpu()
            if value.is_complex() or value.is_quantized:
                raise self.error(f"values of type {value.dtype} are not supported")
            value = value.to(
                torch.float32 if value.is_floating_point() else value.dtype
            )
            value = value.contiguous().numpy()
        if value.dtype == np.float64:
            value = value.astype(np.float32)
        return np.ascontiguousarray(value) if value.ndim else value

    def _free_name(self, name: str) -> str:
        number, free = 2, name
        while free in self._taken:
            free, number = f"{name}_{number}", number + 1
        self._taken.add(free)
        return free

    def add(
        self, kind: str, inputs: Iterable[Any], shape: Sequence[int], /, **attrs: Any
    ) -> str:
        """Append an operation; return the name of its output.

        Args:
            kind: Key of `OPERATIONS`.
            inputs: Names, references to values of the trace, tensors or numbers.
            shape: Shape of the output, with BATCH.
            attrs: Attributes of the operation.
        """
        names = tuple(x if isinstance(x, str) else self.name_of(x) for x in inputs)
        output = self._free_name(f"{self.layer or 'network'}/{kind}")
        self.shapes[output] = tuple(shape)
        node = GraphNode(
            kind=kind, inputs=names, output=output, attrs=attrs, layer=self.layer
        )
        self.nodes.append(node)
        return output

    def assign(self, ref: TensorRef, name: str) -> None:
        """Give the name of a value to an output of the trace."""
        self._names[ref] = name

    def finish(self, output: TensorRef) -> NetworkGraph:
        """Return the graph; its output is renamed to `logits`."""
        last = self.name_of(output)
        if not self.nodes or last == "input":
            raise self.error("the network returns its input")

        def renamed(name: str) -> str:
            return "logits" if name == last else name

        nodes = [
            GraphNode(
                kind=node.kind,
                inputs=tuple(map(renamed, node.inputs)),
                output=renamed(node.output),
                attrs=node.attrs,
                layer=node.layer,
            )
            for node in self.nodes
        ]
        shapes = {renamed(name): shape for name, shape in self.shapes.items()}
        graph = NetworkGraph(
            nodes=tuple(nodes), constants=self.constants, shapes=shapes
        )
        return without_unused(graph)


def without_unused(graph: NetworkGraph) -> NetworkGraph:
    """Return a graph without the operations that the output does not depend on."""
    needed, nodes = {graph.output}, []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    return graph.with_nodes(nodes[::-1])


def merged_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """Return the common shape of a value in two traces, with BATCH where they differ.

    Example:
        >>> merged_shape(torch.zeros(2, 3), torch.zeros(3, 3))
        (-1, 3)
    """
    return tuple(m if m == n else BATCH for m, n in zip(a.shape, b.shape, strict=True))


def merged_arguments(a: Any, b: Any) -> Any:
    """Return the arguments of a step in two traces, with BATCH for differing sizes.

    Raises:
        ValueError: The arguments differ in another way.
    """
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return _merged_constants(a, b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return {key: merged_arguments(a[key], b[key]) for key in a}
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        items = [merged_arguments(*pair) for pair in zip(a, b, strict=True)]
        return type(a)(items) if isinstance(a, list) else tuple(items)
    if a == b:
        return a
    if type(a) is int and type(b) is int:
        return BATCH
    raise ValueError(f"{a} and {b}")


def _merged_constants(a: Tensor, b: Tensor) -> Tensor:
    """Return a constant; if it was repeated for the batch, one row of it."""
    if a.shape == b.shape:
        if torch.allclose(a, b, rtol=0, atol=0, equal_nan=True):
            return a
        raise ValueError("a constant with random values")
    rows = a.shape[1:] == b.shape[1:] and a.ndim > 0
    if rows and torch.equal(a, a[:1].expand_as(a)) and torch.equal(a[:1], b[:1]):
        return RepeatedRow(a[:1])
    raise ValueError("a constant that depends on the batch size")


class RepeatedRow(Tensor):
    """A constant that the network repeats for each image of the batch."""

    @staticmethod
    def __new__(cls, row: Tensor) -> RepeatedRow:
        """Mark a row, of the shape (1, …)."""
        return torch.Tensor._make_subclass(cls, row)
