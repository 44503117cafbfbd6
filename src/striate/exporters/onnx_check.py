"""Check of an ONNX file from elsewhere, before a program opens it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from striate.core.errors import DataError
from striate.exporters.onnx_model import import_onnx

DOMAINS = ("", "ai.onnx")  # of the standard operators
LOOPS = ("Loop", "Scan", "SequenceMap")  # a file can run forever with them
MAX_DEPTH = 8  # of graphs inside of graphs
MAX_NODES = 100_000


def check_onnx(payload: bytes, where: str = "the ONNX file") -> Any:
    """Return a parsed ONNX file, if it has only parts that striate writes.

    Raises:
        DataError: It is no ONNX file, or it has custom operators, external data, loops.
    """
    onnx = import_onnx()
    try:
        model = onnx.load_model_from_string(payload)
    except Exception as error:  # protobuf's classes of errors differ by version
        raise DataError("this is not an ONNX file", where=where) from error
    if len(model.graph.node) > MAX_NODES:
        raise DataError(f"the file has more than {MAX_NODES:,} nodes", where=where)
    if not model.graph.node and not model.graph.output:
        raise DataError("this is not an ONNX file", where=where)
    problem = next(_problems(model), None)
    if problem is not None:
        fix = "use a file that striate exported"
        raise DataError(f"the file is refused: {problem}", where=where, fix=fix)
    return model


def _problems(model: Any) -> Iterator[str]:
    """Yield why an ONNX file is refused."""
    if model.functions:
        yield f"it defines its own operator {model.functions[0].name}"
    for opset in model.opset_import:
        if opset.domain not in DOMAINS:
            yield f"operators of the domain {opset.domain} are not standard"
    yield from _graph_problems(model.graph, 0)


def _graph_problems(graph: Any, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        yield "its graphs are nested too deeply"
        return
    sparse = [part for t in graph.sparse_initializer for part in (t.values, t.indices)]
    yield from _external([*graph.initializer, *sparse])
    for node in graph.node:
        if node.domain not in DOMAINS:
            yield f"operator {node.op_type} of the domain {node.domain}"
        if node.op_type in LOOPS:
            yield f"operator {node.op_type} could run forever"
        for attribute in node.attribute:
            yield from _attribute_problems(attribute, depth)


def _attribute_problems(attribute: Any, depth: int) -> Iterator[str]:
    sparse = [attribute.sparse_tensor, *attribute.sparse_tensors]
    tensors = [attribute.t, *attribute.tensors]
    yield from _external([*tensors, *(s.values for s in sparse)])
    yield from _external([s.indices for s in sparse])
    for graph in (
        *([attribute.g] if attribute.HasField("g") else ()),
        *attribute.graphs,
    ):
        yield from _graph_problems(graph, depth + 1)


def _external(tensors: list[Any]) -> Iterator[str]:
    for tensor in tensors:
        if tensor.external_data or tensor.data_location:
            yield f"the values of {tensor.name or 'a constant'} are in another file"
