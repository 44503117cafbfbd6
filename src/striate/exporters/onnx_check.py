"""Check of an ONNX file from elsewhere, before any program opens it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from striate.core.errors import WeightsError
from striate.exporters.onnx_model import import_onnx

MAX_NODES = 100_000
MAX_DEPTH = 8  # of graphs inside nodes, such as the branches of `If`
DOMAINS = ("", "ai.onnx")
_EXTERNAL = 1  # TensorProto.EXTERNAL


def check_onnx(payload: bytes, where: object = "ONNX file") -> Any:
    """Return the parsed file, if it needs nothing from outside.

    Refused are weights in other files (a path could lead anywhere on this machine),
    operators of other domains (they load libraries), and graphs that are too large.

    Raises:
        WeightsError: The file is damaged or refused.
    """
    onnx = import_onnx()
    try:
        model = onnx.load_model_from_string(payload)
    except Exception as error:  # protobuf's own error classes differ by version
        raise WeightsError("the ONNX file is damaged", where=where) from error
    domains = {opset.domain for opset in model.opset_import} - set(DOMAINS)
    count = 0
    for graph in _graphs(model.graph, where):
        count += len(graph.node)
        if count > MAX_NODES:
            what = f"the ONNX file has more than {MAX_NODES:,} nodes"
            raise WeightsError(what, where=where)
        domains |= {node.domain for node in graph.node} - set(DOMAINS)
        for tensor in _tensors(graph):
            if tensor.data_location == _EXTERNAL or tensor.external_data:
                what = f"the ONNX file reads weight {tensor.name!r} from another file"
                fix = "use a file with all weights inside"
                raise WeightsError(what, where=where, fix=fix)
    if domains or model.functions:
        names = ", ".join(sorted(domains)) or "own functions"
        what = f"the ONNX file has operators that are not standard: {names}"
        raise WeightsError(what, where=where, fix="use a file without them")
    return model


def _graphs(graph: Any, where: object, depth: int = 0) -> Iterator[Any]:
    """Yield a graph and all graphs inside its nodes."""
    if depth > MAX_DEPTH:
        what = f"the ONNX file has graphs nested more than {MAX_DEPTH} deep"
        raise WeightsError(what, where=where)
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for each in inner:
                yield from _graphs(each, where, depth + 1)


def _tensors(graph: Any) -> Iterator[Any]:
    """Yield all tensors of a graph and of the attributes of its nodes."""
    yield from graph.initializer
    sparse = list(graph.sparse_initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse += list(attribute.sparse_tensors)
            sparse += [attribute.sparse_tensor] * attribute.HasField("sparse_tensor")
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices
